"""The quickstart's whole way on a tiny random model and hand-made facts."""

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

import gin
import jax
import numpy as np
import pytest

from kaft_promot import cli
from kaft_promot.errors import UserError
from kaft_promot.evaluation import measurements
from kaft_promot.feeding.vocabulary import SentencePieceVocabulary
from kaft_promot.interop import write_native
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.vocabulary import train_vocabulary
from kaft_promot.models import T5Config, abstract_params
from kaft_promot.quickstart import Quickstart, sample, training_facts
from kaft_promot.training.optimizers import AdamW

CITIES = ["Rome", "Oslo", "Bonn", "Lima", "Cairo", "Quito", "Delhi", "Minsk"]
SIZES = {
    facts_lib.REMEMBERED_TRAIN: 16,
    facts_lib.REMEMBERED_VALIDATION: 8,
    facts_lib.REMEMBERED_TEST: 16,
}
ARMS = ["relevant_only", "noisy", "kaft"]
# Written anew by every run, from the rows.
COMPUTED = {"report.html", "results.json", "details.json"}


def make_facts() -> list[facts_lib.Fact]:
    facts = []
    for split, size in SIZES.items():
        for i in range(size):
            subject, city = f"{split.split('_')[1].capitalize()} Person{i}", CITIES[i % len(CITIES)]
            sentence = f"{subject} was born in {city} long ago."
            fact = {"id": f"{split}-{i}", "relation": "P19", "subject": subject, "answer": city}
            fact |= {"subject_uri": "Q1", "object_uri": "Q2", "sentences": (sentence,)}
            facts.append(facts_lib.Fact(**fact, split=split))
    return facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a random model `base` and `facts.jsonl.gz`; the current folder."""
    folder = tmp_path_factory.mktemp("quickstart")
    facts = make_facts()
    text = [s for f in facts for s in (*f.sentences, f.question())] * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        facts_lib.write_facts(facts, "facts.jsonl.gz")
        train_vocabulary(text, "vocab.model", pieces=310)
        config = T5Config(
            vocab_size=SentencePieceVocabulary("vocab.model").vocab_size,
            emb_dim=16,
            num_heads=2,
            num_encoder_layers=1,
            num_decoder_layers=1,
            head_dim=8,
            mlp_dim=32,
        )
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda like: 0.3 * rng.standard_normal(like.shape, np.float32), abstract_params(config)
        )
        write_native("base", params, config, vocabulary="vocab.model")
        yield folder
    gin.clear_config()


def flags(output: str, more: Sequence[str], half: str = "kaft") -> list[str]:
    bindings = {
        "facts": "facts.jsonl.gz",
        "train_steps": 2,
        "batch_size": 2,
        "task_feature_lengths": {"inputs": 64, "targets": 24},
        "questions": 12,
    }
    found = [f"--gin.Quickstart.{name}={value}" for name, value in bindings.items()]
    found += ["--gin.INITIAL_CHECKPOINT_PATH=base", "--gin.task_vocabulary.path=vocab.model"]
    return ["quickstart", f"--half={half}", f"--output={output}", *found, *more]


def start(*more: str, output: str = "out", half: str = "kaft") -> int:
    return cli.main(flags(output, more, half))


@pytest.fixture(scope="module")
def out(folder) -> pathlib.Path:
    assert start() == 0
    return folder / "out"


def rows_of(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files_of(folder: pathlib.Path) -> dict[str, int]:
    """Every file that a finished run leaves alone, with its time of change in ns."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in COMPUTED
    }


@pytest.mark.slow
def test_everything_is_written(out):
    names = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    expected = {"settings.json", "rows.jsonl", "report.html", "results.json", "details.json"}
    expected |= {f"{arm}/model.safetensors" for arm in ARMS}
    expected |= {f"records/{split}.jsonl" for split in ("train", "validation", "test")}
    expected |= {f"records/{split}.rejected.jsonl" for split in ("train", "test")}
    assert expected <= names
    for arm in ARMS:
        assert rows_of(out / arm / "metrics.jsonl")[-1]["step"] == 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(arm in page for arm in ARMS) and "<svg" in page


@pytest.mark.slow
def test_results_have_the_eight_figures_of_every_arm(out):
    results = json.loads((out / "results.json").read_text())
    assert set(results) == {"arms"}
    assert set(results["arms"]) == {"base", *ARMS}
    for of_arm in results["arms"].values():
        assert list(of_arm) == [m.name for m in measurements.MAIN] and len(of_arm) == 8
        for name, figure in of_arm.items():
            assert list(figure) == ["value", "low", "high", "n"]
            if name != "controllability_strict":  # a random model knows nothing to contradict
                assert figure["n"] >= 10
                assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    # The base model agrees with itself.
    assert results["arms"]["base"]["retention_agree"]["value"] == 1.0


@pytest.mark.slow
def test_no_test_fact_is_in_a_training_record(out):
    trained = (out / "records" / "train.jsonl").read_text(encoding="utf-8")
    tested = rows_of(out / "records" / "test.jsonl")
    assert {row["source_id"] for row in tested} == {
        fact.id for fact in sample([f for f in make_facts() if "test" in f.split], 12)
    }
    kinds = {row["context_kind"] for row in rows_of(out / "records" / "train.jsonl")}
    assert kinds == {"relevant", "counterfactual", "irrelevant", "empty"}
    for fact in make_facts():
        if fact.split == facts_lib.REMEMBERED_TRAIN:
            assert fact.subject in trained and fact.id in trained
        else:
            assert fact.subject not in trained and f'"{fact.id}' not in trained
            assert fact.question() not in trained and fact.sentence not in trained


@pytest.mark.slow
def test_a_second_run_redoes_nothing_and_a_stopped_one_goes_on(out, capsys):
    before = {name: (out / name).read_bytes() for name in COMPUTED}
    times = files_of(out)
    assert start() == 0
    assert files_of(out) == times
    assert {name: (out / name).read_bytes() for name in COMPUTED} == before
    # As if it had been stopped while it evaluated: the last arm's rows and a half line are missing.
    rows = (out / "rows.jsonl").read_bytes()
    at = rows.index(b'"arm":"kaft"')
    (out / "rows.jsonl").write_bytes(rows[: at + 50])
    assert start() == 0
    assert json.loads((out / "results.json").read_text()) == json.loads(before["results.json"])
    del times["rows.jsonl"]
    assert {name: files_of(out)[name] for name in times} == times
    assert "Controllability (strict)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "binding, message",
    [
        ("Quickstart.train_steps=3", "out/settings.json: this folder was made with another"),
        ("Quickstart.seed=1", "another seed (0, now 1)"),
        ("kaft/AdamW.b2=0.9", "another optimizer"),
        ("Quickstart.evaluation_split=tset", "evaluation_split = 'tset': choose from test, valid"),
        ("Quickstart.arms=('kaft', 'kaft')", "name mixtures, each once"),
        ("Quickstart.arms=('kafft',)", "no task or mixture is called 'kafft'"),
        ("Quickstart.train_stepz=3", "did you mean train_steps?"),
    ],
)
def test_other_settings_are_one_line_and_change_nothing(out, capsys, binding, message):
    times = files_of(out)
    capsys.readouterr()
    assert start(f"--gin.{binding}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert message in error
    assert files_of(out) == times


@pytest.mark.slow
def test_a_folder_in_which_nothing_was_done_takes_other_settings(folder, capsys):
    """A mistake that is found before any work leaves nothing that must be deleted."""
    for checkpoint in ("gone", "gone too"):
        assert start(f"--gin.INITIAL_CHECKPOINT_PATH={checkpoint}", output="new") == 2
        assert f"{checkpoint}: no such checkpoint" in capsys.readouterr().err


def test_no_shipped_training_fact_names_a_held_out_subject():
    facts = facts_lib.load_facts()
    trained = training_facts(facts)
    assert 1850 < len(trained) < 1900
    held_out = (facts_lib.REMEMBERED_TEST, facts_lib.REMEMBERED_VALIDATION)
    text = "\n".join(f"{fact.question()} {fact.sentence}" for fact in trained)
    for fact in facts:
        if fact.split in held_out:
            assert not facts_lib.find_words(fact.subject, text), fact.subject


def test_the_sample_goes_through_all_relations():
    facts = [f for f in facts_lib.load_facts() if f.split == facts_lib.REMEMBERED_TEST]
    chosen = sample(facts, 400)
    assert len(chosen) == 400 and sample(facts, None) == facts
    assert sample(facts[::-1], 400) == chosen[::-1]
    for relation in {f.relation for f in facts}:
        share = [sum(f.relation == relation for f in some) / len(some) for some in (facts, chosen)]
        assert share[1] == pytest.approx(share[0], abs=0.03)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"arms": ()}, "name mixtures"),
        ({"arms": ("base",)}, "'base' is evaluated anyway"),
        ({"questions": 0}, "must be at least 1"),
        ({"evaluation_split": "train"}, "choose from test, validation"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    sound = {"train_steps": 1, "batch_size": 1, "task_feature_lengths": {}, "optimizer": AdamW()}
    sound["base_checkpoint"] = "base"
    with pytest.raises(UserError, match=message):
        Quickstart(**(sound | fields))


@pytest.mark.slow
def test_the_halves_may_be_run_in_calls_of_their_own(out, folder):
    """The second call is a process that has not imported the first one's target."""
    again = folder / "apart"
    shutil.copytree(out, again)
    small = {
        "ARMS": ("finetune",),
        "TRAIN_STEPS": 1,
        "BATCH_SIZE": 2,
        "CURVE_POINTS": 1,
        "Promot.curve_examples": {"target": 2, "queries": 1},
        "Promot.suite_data": {"shots": (2,), "queries": 1},
        "model/AdamW.learning_rate": 0.001,
    }
    more = [f"--gin.{name}={value}" for name, value in small.items()]
    assert start(*more, output="apart", half="promot") == 0
    code = f"import sys; from kaft_promot import cli; sys.exit(cli.main({flags('apart', more)}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((again / "results.json").read_text())
    assert set(results["arms"]) == {"base", *ARMS} and set(results["promot"]) == {
        "base",
        "finetune",
    }
    changed = "--gin.TRAIN_STEPS=2"
    assert start(*more, changed, output="apart") == 0  # that half would be of other settings
    assert "promot" not in json.loads((again / "results.json").read_text())
