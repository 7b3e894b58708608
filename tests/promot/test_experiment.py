"""ProMoT's comparison from the command line on a tiny random model: arms, curves, continuing."""

import dataclasses
import json
import pathlib

import gin
import jax
import numpy as np
import pytest
from byte_model import CONFIG, write_byte_model

from kaft_promot import cli
from kaft_promot.errors import UserError
from kaft_promot.evaluation import suites
from kaft_promot.evaluation.output_share import one_of, register_format
from kaft_promot.interop import load_params, read_prompts, write_native
from kaft_promot.knowledge.records import KaftRecord, Substitution, write_records
from kaft_promot.models import flatten
from kaft_promot.promot import experiment
from kaft_promot.promot.checks import OWN
from kaft_promot.promot.measured import CURVES, MATCHED, ROWS, read_whole, rows_of
from kaft_promot.promot.settings import Promot

MODULE = "promot_target_of_the_test"
TARGET = """
from kaft_promot.feeding.jsonl_task import register_jsonl_task

register_jsonl_task(
    "target_of_the_test",
    lambda split: f"target.{split}.jsonl",
    fields={"inputs": str, "targets": str},
)
"""
ARMS = ("finetune", "promot", "joint", "lora", "lora_then_model", "prompt_tuning", "wise_ft")
ARMS += ("random_prompt", "promot_1shot")


def in_context_task(task):
    def examples(data):
        for query in range(data["queries"]):
            yield suites.EvalExample(
                example_id=f"{data['split']}-{task}-{query}",
                question_id=f"{task}-{query}",
                prompt=f"{task}, {data['split']}: {query} =",
                fields={
                    "in_context_task": task,
                    "shots": 0,
                    "output_format": task,
                    "target": str(query) if task == "echo" else "True",
                },
            )

    return suites.EvalTask(
        name=task,
        examples=examples,
        read=lambda output: {"answer": output},
        score=lambda row: {"exact_match": float(row["answer"] == row["target"])},
    )


SUITE = suites.Suite(
    name="suite_of_the_test",
    description="echoes, and truths in the target's format",
    tasks=(in_context_task("echo"), in_context_task("truth")),
)
WITHOUT_SPLITS = dataclasses.replace(
    SUITE, name="splitless", load=lambda data: (lambda *, queries: {})(**data)
)
WITHOUT_SCORES = dataclasses.replace(
    SUITE,
    name="scoreless",
    tasks=(dataclasses.replace(SUITE.tasks[0], score=lambda row: {"bleu": 12.5}),),
)
SAME_IDS = dataclasses.replace(
    SUITE,
    name="same_ids",
    tasks=(SUITE.tasks[0], dataclasses.replace(SUITE.tasks[0], name="echo_again")),
)
SAME_QUERIES = dataclasses.replace(
    SUITE, name="same_queries", load=lambda data: {**data, "split": "validation"}
)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder with a random model `base` and the target's files; the current folder."""
    import seqio

    folder = tmp_path_factory.mktemp("comparison")
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    suites.register(SUITE)
    suites.register(WITHOUT_SPLITS)
    suites.register(WITHOUT_SCORES)
    suites.register(SAME_QUERIES)
    suites.register(SAME_IDS)
    register_format("target_of_the_test", one_of("True", "False"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_byte_model("base")
        pathlib.Path(f"{MODULE}.py").write_text(TARGET)
        for split in ("train", "validation", "test"):
            rows = [{"inputs": f"{i} is?", "targets": ("True", "False")[i % 2]} for i in range(8)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            pathlib.Path(f"target.{split}.jsonl").write_text(text)
        yield folder
    jax.config.update("jax_disable_most_optimizations", before)
    gin.clear_config()
    seqio.TaskRegistry.remove("target_of_the_test")


def compare(*more: str) -> int:
    return cli.main(
        [
            "promot",
            "--gin_file=recipes/promot.gin",
            "--gin.MIXTURE_OR_TASK_NAME=target_of_the_test",
            f"--gin.MIXTURE_OR_TASK_MODULE={MODULE}",
            "--gin.INITIAL_CHECKPOINT_PATH=base",
            "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 8}",
            "--gin.IN_CONTEXT_SUITE=suite_of_the_test",
            "--gin.Promot.suite_data={'queries': 3}",
            "--gin.Promot.curve_examples={'target': 4, 'queries': 2}",
            f"--gin.ARMS={ARMS}",
            "--gin.BATCH_SIZE=2",
            "--gin.PROMPT_LENGTH=3",
            "--gin.PROMPT_STEPS=2",
            "--gin.TRAIN_STEPS=4",
            "--gin.CURVE_POINTS=2",
            "--gin.MODEL_DIR=out",
            *more,
        ]
    )


@pytest.fixture(scope="module")
def out(folder) -> pathlib.Path:
    assert compare() == 0
    return folder / "out"


@pytest.mark.slow
def test_every_arm_is_measured_on_target_and_in_context(out):
    rows = rows_of(out, 0, ROWS)
    assert {row["arm"] for row in rows} == {"base", *ARMS}
    for arm in ("base", *ARMS):
        of_arm = [row for row in rows if row["arm"] == arm]
        assert sum(row["suite"] == "target" for row in of_arm) == 8
        in_context = [row for row in of_arm if row["suite"] == "in_context"]
        assert len(in_context) == 6
        assert all(row["example_id"].startswith("test-") for row in in_context)


@pytest.mark.slow
def test_arms_are_measured_on_their_way(out):
    steps = {}
    for row in rows_of(out, 0, CURVES):
        steps.setdefault(row["arm"], set()).add(row["step"])
    assert steps["base"] == {0} and steps["finetune"] == steps["lora"] == {2, 4}
    assert steps["prompt_tuning"] == steps["wise_ft"] == {0}


@pytest.mark.slow
def test_arms_change_what_their_stage_says(out):
    base = flatten(load_params("base"))
    prompt = read_prompts(out / "seed0" / "prompt" / "checkpoints" / "best").table
    for arm, moved in (("prompt", False), ("finetune", True), ("promot", True), ("lora", True)):
        tuned = flatten(load_params(out / "seed0" / arm))
        same = all(np.array_equal(base[p], tuned[p]) for p in base if p in tuned)
        assert same is not moved, arm
    np.testing.assert_array_equal(read_prompts(out / "seed0" / "promot").table, prompt)
    assert not np.array_equal(read_prompts(out / "seed0" / "joint").table, prompt)
    half = flatten(load_params(out / "seed0" / "wise_ft"))
    other = flatten(load_params(out / "seed0" / "finetune"))
    for path in base:
        np.testing.assert_allclose(half[path], (base[path] + other[path]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_results_and_report(out):
    results = json.loads((out / "results.json").read_text())
    assert set(results["promot"]) == {"base", *ARMS}
    for of_arm in results["promot"].values():
        assert list(of_arm) == [
            "target",
            "in_context_other_formats",
            "in_context_same_format",
            "output_share",
        ]
        assert of_arm["target"]["n"] == 8 and of_arm["output_share"]["n"] == 3
    page = (out / "report.html").read_text()
    assert all(arm in page for arm in ARMS)
    details = json.loads((out / "details.json").read_text())
    assert details["arms"] == {}  # no grounding was measured
    for arm, of_arm in results["promot"].items():
        assert details["promot"]["arms"][arm].items() >= of_arm.items()
    assert set(details["promot"]["differences"]) == {"base", "finetune"}
    assert set(details["promot"]["tasks"]) == {"echo", "truth"}
    assert details["promot_curves"] == results["promot_curves"]
    matched = results["promot_matched_target_score"]
    assert set(matched) == set(ARMS) - {"finetune"}
    for arm, found in matched.items():
        assert set(found["steps"]["0"]) == {arm, "finetune"}
        assert set(found["figures"]["0"]) == {"base", arm, "finetune"}


@pytest.mark.slow
def test_an_arm_is_asked_where_it_is_as_good_as_plain_fine_tuning(out, folder, capsys):
    """Of a comparison whose curves cross: ProMoT passes fine-tuning's last score at step 2."""
    import shutil

    again = folder / "crossing"
    shutil.copytree(out, again)
    right = {("finetune", 2): 0, ("finetune", 4): 2, ("promot", 2): 2, ("promot", 4): 4}
    lines, asked = [], {}
    for line in (again / "seed0" / CURVES).read_text().splitlines():
        row = json.loads(line)
        arm, _, step = row["arm"].partition("@")
        if row.get("suite") == "target" and (arm, int(step)) in right:
            asked[row["arm"]] = asked.get(row["arm"], 0) + 1
            hit = float(asked[row["arm"]] <= right[arm, int(step)])
            row["scores"] = {name: hit for name in row["scores"]}
        lines.append(json.dumps(row) + "\n")
    (again / "seed0" / CURVES).write_text("".join(lines))
    (again / "seed0" / ROWS).unlink()  # of other steps
    assert compare(f"--gin.MODEL_DIR={again}") == 0
    promot = json.loads((again / "results.json").read_text())["promot_matched_target_score"][
        "promot"
    ]
    assert promot["steps"] == {"0": {"promot": 2, "finetune": 4}}
    rows = [row for row in rows_of(again, 0, MATCHED) if row["arm"] == "promot"]
    assert {row["step"] for row in rows} == {2} and len(rows) == 8 + 6
    assert all(row["example_id"].startswith("test-") for row in rows if row["suite"] != "target")
    assert {row["split"] for row in rows if row["suite"] == "target"} == {"test"}
    assert promot["figures"]["0"]["promot"]["target"]["n"] == 8
    assert promot["validation"] == {"0": {"promot": 0.5, "finetune": 0.5}}
    assert "at matched target score" in capsys.readouterr().out
    at = (again / "seed0" / MATCHED).stat()
    assert compare(f"--gin.MODEL_DIR={again}") == 0
    assert (again / "seed0" / MATCHED).stat().st_mtime_ns == at.st_mtime_ns  # nothing asked again

    settings = Promot()  # as gin has it from this call
    assert set(read_whole(again, settings)) == {0}
    text = (again / "seed0" / MATCHED).read_text()
    for cut in (text[: text.rindex("\n", 0, -1) + 1], ""):
        (again / "seed0" / MATCHED).write_text(cut)
        assert "seed 0 is not measured whole" in read_whole(again, settings)
    (again / "seed0" / ROWS).unlink()
    assert "seed 0 is not measured whole" in read_whole(again, settings)
    other = dataclasses.replace(settings, steps=5)
    assert "was made with other settings (steps)" in read_whole(again, other)
    assert "nowhere holds no comparison" in read_whole(folder / "nowhere", settings)


def records():
    """One question in all four contexts; the base answers it right."""
    common = dict(
        source="towns",
        source_id="q1",
        question="Where was Ada born?",
        gold_answers=("Rome",),
        parametric_answer="Rome",
        base_checkpoint="base",
        seed=0,
    )
    change = Substitution(
        proposer="relation", old="Rome", new="Oslo", type="P19", spans=((16, 20),)
    )
    for kind, context, answer, fields in (
        ("relevant", "Ada was born in Rome.", "Rome", {}),
        ("counterfactual", "Ada was born in Oslo.", "Oslo", {"substitution": change}),
        ("irrelevant", "Bob was born in Graz.", "Rome", {"irrelevant_kind": "random"}),
        ("empty", "", "Rome", {}),
    ):
        announced = {"irrelevant": "irrelevant context", "empty": "empty context"}
        yield KaftRecord(
            id=f"q1/{kind}",
            context_kind=kind,
            context=context,
            answer=answer,
            answer_aliases=(answer,),
            target=f"{answer} ({announced.get(kind, 'from context')})",
            **{"substitution": None, "irrelevant_kind": None, **fields},
            **common,
        )


@pytest.mark.slow
def test_several_seeds_report_grounding_and_retention_over_them(folder, capsys):
    write_records("records.jsonl", records())
    few = "--gin.ARMS=('finetune', 'promot')", "--gin.CURVE_POINTS=1", "--gin.SEEDS=(2, 5)"
    assert compare("--gin.MODEL_DIR=seeds", "--gin.GROUNDING_DATA=records.jsonl", *few) == 0
    shown = capsys.readouterr().out
    results = json.loads((folder / "seeds" / "results.json").read_text())
    for name, measurement, n in (
        ("arms", "reading_em", 1),
        ("arms", "controllability_strict", 1),
        ("promot", "target", 8),
    ):
        over = results[f"{name}_seeds"]
        assert over["figures"]["2"] == results[name]  # the table shows the first seed
        assert set(over["figures"]) == {"2", "5"}
        for reference, others in (
            ("base", {"finetune", "promot"}),
            ("finetune", {"base", "promot"}),
        ):
            assert set(over["differences"][reference]) == others
            assert all(
                of_arm[measurement]["seeds"] == 2
                for of_arm in over["differences"][reference].values()
            )
        assert results[name]["finetune"][measurement]["n"] == n
    assert shown.count("minus finetune over 2 seeds") == 2
    page = (folder / "seeds" / "report.html").read_text()
    assert "Following its context, over 2 seeds" in page and "What it can still do, over" in page


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "warns"), [("same_queries", True), ("suite_of_the_test", False)])
def test_a_suite_that_asks_one_set_of_queries_is_warned_about(folder, capsys, suite, warns):
    few = "--gin.ARMS=('finetune',)", "--gin.CURVE_POINTS=1", "--gin.TRAIN_STEPS=1"
    assert compare(f"--gin.MODEL_DIR=of_{suite}", f"--gin.IN_CONTEXT_SUITE={suite}", *few) == 0
    assert ("of queries that settings may be chosen on" in capsys.readouterr().out) is warns


@pytest.mark.slow
def test_a_second_call_redoes_nothing(out):
    def times():
        return {
            path: path.stat().st_mtime_ns for path in (out / "seed0").rglob("*") if path.is_file()
        }

    before, results = times(), (out / "results.json").read_bytes()
    assert compare() == 0
    assert times() == before
    assert (out / "results.json").read_bytes() == results


@pytest.mark.slow
@pytest.mark.parametrize(
    "binding, message",
    [
        ("TRAIN_STEPS=5", "out/settings.json: this folder was made with another steps (4, now 5)"),
        ("ARMS=('promott',)", "no arm is called 'promott'; choose from prompt_tuning"),
        ("MIXTURE_OR_TASK_NAME=kaft_empty", "has no format predicate"),
        ("IN_CONTEXT_SUITE=suite_of_the_tset", "did you mean suite_of_the_test?"),
        (
            "IN_CONTEXT_SUITE=splitless",
            "cannot be asked of what it is given, {'queries': 2, 'split'",
        ),
        ("IN_CONTEXT_SUITE=same_ids", "suite 'same_ids': two examples have the id "),
        ("IN_CONTEXT_SUITE=scoreless", "a row of its task 'echo' has no scores.exact_match"),
        ("IN_CONTEXT_SUITE=grounding", "Promot.suite = 'grounding' cannot be asked"),
        ("Promot.suite_data=5", "Promot.suite_data = 5: give a dict"),
        ("INITIAL_CHECKPOINT_PATH=gone", "gone: no such checkpoint"),
        ("VOCABULARY=gone.model", "cannot read vocabulary gone.model"),
        ("train.dropout_rate=0.3", "does nothing here: a comparison sets it by itself; set Promot"),
        ("SoftPrompts.length=7", "does nothing here: a comparison sets it by itself; set Promot"),
        ("Predictor.method=beam", "another decoding ('greedy, 512 -> 8 tokens', now 'beam num"),
        ("Promot.test_split=tset", "has no split 'tset'"),
        ("PROMPT_LENGTH=40", "tokens"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(out, capsys, binding, message):
    kept = ("settings.json", "config.gin", "results.json", "seed0/rows.jsonl")
    before = [(out / name).read_bytes() for name in kept]
    capsys.readouterr()
    more = ["--gin.MODEL_DIR=other"] if binding.startswith("PROMPT_LENGTH") else []
    assert compare(f"--gin.{binding}", *more) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert [(out / name).read_bytes() for name in kept] == before


@pytest.mark.slow
def test_a_base_that_names_no_vocabulary_is_compared_with_the_named_one(folder, capsys):
    params, lengths = load_params("base"), "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 8}"
    write_native("mute", params, CONFIG)  # as a T5X checkpoint is, which never says
    few = ["--gin.ARMS=('promot', 'lora')", "--gin.CURVE_POINTS=1", "--gin.TRAIN_STEPS=1", lengths]
    of_mute = ["--gin.INITIAL_CHECKPOINT_PATH=mute", "--gin.MODEL_DIR=of_mute", *few]
    assert compare(*of_mute) == 2
    assert "the vocabulary of mute is not known: add --gin.VOC" in capsys.readouterr().err
    assert compare("--gin.VOCABULARY=bytes", *of_mute) == 0
    assert {row["arm"] for row in rows_of(folder / "of_mute", 0)} == {"base", "promot", "lora"}


def test_what_a_comparison_sets_itself_is_refused_as_a_binding(folder, monkeypatch):
    """The list of such arguments follows what is handed to `train`."""
    handed = []

    def noted(**arguments):
        handed.append(set(arguments))
        raise UserError("noted")

    monkeypatch.setattr(experiment, "train", noted)
    for arm in ("promot", "finetune"):
        assert compare(f"--gin.ARMS=('{arm}',)", f"--gin.MODEL_DIR=noted_{arm}") == 2
    stage_1, tuning = handed
    assert stage_1 | tuning == set(OWN["train"])
