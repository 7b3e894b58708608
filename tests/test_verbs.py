"""The verbs on a tiny model, from question files to a report, as a user would call them."""

import dataclasses
import json
import pathlib

import gin
import jax
import numpy as np
import pytest
from byte_model import CONFIG, write_byte_model

from kaft_promot import cli
from kaft_promot.interop import load_params, write_native
from kaft_promot.models import abstract_params, flatten, unflatten

LENGTHS = "--gin.TASK_FEATURE_LENGTHS={'inputs': 96, 'targets': 16}"
SHORT = ["--gin.MAX_INPUT_LENGTH=96", "--gin.MAX_DECODE_LENGTH=4", "--gin.BATCH_SIZE=8"]
PLACES = ["Rome", "Oslo", "Bonn", "Lima", "Cairo", "Paris"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder with a random model `base`, questions and their records; the current folder."""
    folder = tmp_path_factory.mktemp("verbs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_byte_model("base")
        with open("q.jsonl", "w") as out:
            for i, place in enumerate(PLACES):
                row = {
                    "id": f"q{i}",
                    "question": f"Where is {i}?",
                    "context": f"It is in {place}.",
                    "answers": [place],
                    "relation": "P131",
                }
                out.write(json.dumps(row) + "\n")
        yield folder
    gin.clear_config()


def run(*arguments):
    assert cli.main(list(arguments)) == 0


@pytest.fixture(scope="module")
def records(folder):
    """`probe`, then `augment`: the folder of the records."""
    probe = ["probe", "--input=q.jsonl", "--checkpoint=base", "--output=answers.jsonl"]
    run(*probe, "--max_decode_length=4")
    run("augment", "--input=q.jsonl", "--parametric=answers.jsonl", "--output=rec", "--split=train")
    return folder / "rec"


def train(model_dir, *more):
    run(
        "train",
        "--gin_file=runs/train.gin",
        "--gin.MIXTURE_OR_TASK_NAME=kaft",
        "--gin.kaft_records.directory=rec",
        LENGTHS,
        "--gin.INITIAL_CHECKPOINT_PATH=base",
        f"--gin.MODEL_DIR={model_dir}",
        "--gin.BATCH_SIZE=2",
        "--gin.train.train_eval_dataset_cfg=None",
        "--gin.train.tensorboard=False",
        *more,
    )


@pytest.fixture(scope="module")
def trained(records):
    """`train`: the run's folder."""
    train("tuned", "--gin.TRAIN_STEPS=3", "--gin.CheckpointConfig.keep=None")
    return records.parent / "tuned"


def rows_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def test_probe_names_the_checkpoint_and_its_digest(records):
    answers = rows_of("answers.jsonl")
    assert [row["id"] for row in answers] == [f"q{i}" for i in range(len(PLACES))]
    assert {row["checkpoint"].split("@")[0] for row in answers} == {"base"}
    assert len(answers[0]["checkpoint"].split("@")[1]) == 8


def test_augment_makes_all_kinds(records):
    kinds = [row["context_kind"] for row in rows_of(records / "train.jsonl")]
    assert set(kinds) == {"relevant", "counterfactual", "irrelevant", "empty"}


def test_train_writes_a_run_that_knows_its_vocabulary_and_configuration(trained):
    before, after = flatten(load_params("base")), flatten(load_params(trained))
    assert all(np.abs(after[name] - before[name]).max() > 0 for name in before)
    assert json.loads((trained / "model_config.json").read_text())["vocabulary"] == "bytes"
    assert "train.total_steps = %TRAIN_STEPS" in (trained / "operative_config.gin").read_text()
    assert "TRAIN_STEPS = 3" in (trained / "config.gin").read_text()


def test_a_kept_configuration_repeats_the_run(trained):
    run("train", f"--gin_file={trained}/config.gin", "--gin.MODEL_DIR=again")
    first, second = flatten(load_params(trained)), flatten(load_params("again"))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_eval_compares_arms_in_one_folder(trained, capsys):
    evaluate = ["eval", "--gin_file=runs/eval.gin", "--gin.EVAL_OUTPUT_DIR=ev", *SHORT]
    evaluate.append("--gin.EVAL_DATA=rec/train.jsonl")
    run(*evaluate, "--gin.CHECKPOINT_PATH=base", "--gin.ARM=base")
    run(*evaluate, "--gin.CHECKPOINT_PATH=tuned", "--gin.ARM=kaft")
    assert "kaft" in capsys.readouterr().out
    results = json.loads(pathlib.Path("ev/results.json").read_text())
    assert set(results["arms"]) == {"base", "kaft"}
    # The base model is compared with its own closed-book answers.
    assert results["arms"]["base"]["retention_agree"]["value"] == 1.0
    assert "<html" in pathlib.Path("ev/report.html").read_text().lower()
    run("report", "--rows=ev/rows.jsonl", "--output=page")
    assert json.loads(pathlib.Path("page/results.json").read_text()) == results


def test_a_retrained_checkpoint_is_not_mixed_with_old_rows(trained, capsys):
    lines = [f"question: {i}?" for i in range(3)]
    pathlib.Path("p.txt").write_text("\n".join(lines))
    infer = ["infer", "--gin_file=runs/infer.gin", "--gin.INPUT_FILE=p.txt", *SHORT]
    infer += ["--gin.INFER_OUTPUT_DIR=inf", "--gin.CHECKPOINT_PATH=moving"]
    params = load_params("base")
    write_native("moving", params, CONFIG, vocabulary="bytes")
    run(*infer)
    rows = rows_of("inf/predictions.jsonl")
    assert [row["prompt"] for row in rows] == lines
    # A run that was cut off goes on, with equal predictions.
    path = pathlib.Path("inf/predictions.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b'"prediction"')])
    run(*infer)
    assert path.read_bytes() == whole
    write_native("moving", jax.tree.map(lambda x: x + 1, params), CONFIG, vocabulary="bytes")
    assert cli.main(infer) == 2
    assert "holds predictions of another input or checkpoint" in capsys.readouterr().err


def test_infer_and_eval_read_tasks_and_earlier_checkpoints(trained):
    task = ["--gin.MIXTURE_OR_TASK_NAME=kaft_relevant", "--gin.MIXTURE_OR_TASK_SPLIT=train"]
    task += ["--gin.kaft_records.directory=rec", LENGTHS, *SHORT]
    here = f"--gin.CHECKPOINT_PATH={trained}/checkpoints/3"
    run("infer", "--gin_file=runs/infer.gin", here, "--gin.INFER_OUTPUT_DIR=ti", *task)
    rows = rows_of("ti/predictions.jsonl")
    assert len(rows) == len(PLACES)
    assert rows[0]["prompt"] == "question: Where is 0? context: It is in Rome."
    assert rows[0]["inputs"]["targets_pretokenized"] == "Rome (from context)"
    run("eval", "--gin_file=runs/eval.gin", here, "--gin.EVAL_OUTPUT_DIR=te", *task)
    first = json.loads(pathlib.Path("te/results.json").read_text())
    assert first["tasks"]["model"]["kaft_relevant/train"]["exact_match"]["n"] == len(PLACES)
    # A second arm, and records, join the first in the same folder.
    base = ["--gin.CHECKPOINT_PATH=base", "--gin.ARM=base", "--gin.EVAL_OUTPUT_DIR=te"]
    run("eval", "--gin_file=runs/eval.gin", *base, *task)
    run("eval", "--gin_file=runs/eval.gin", *base, *SHORT, "--gin.EVAL_DATA=rec/train.jsonl")
    results = json.loads(pathlib.Path("te/results.json").read_text())
    assert results["tasks"]["model"] == first["tasks"]["model"]
    assert set(results["tasks"]) == {"model", "base"} and set(results["arms"]) == {"base"}


def test_export_writes_hugging_faces_form(trained):
    run("export", "--checkpoint=tuned", "--format=huggingface", "--output=hf")
    ours, theirs = flatten(load_params("tuned")), flatten(load_params("hf"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "binding, message",
    [
        ("VOCABULARY=gone.model", "gone.model"),
        ("MIXTURE_OR_TASK_NAME=kaftt", "kaftt"),
        ("MIXTURE_OR_TASK_MODULE=gone", "no module 'gone' (MIXTURE_OR_TASK_MODULE)"),
        ("kaft_records.directory=gone", "there is no folder gone"),
        ("INITIAL_CHECKPOINT_PATH=gone", "gone"),
        ("TASK_FEATURE_LENGTHS={'inputs': 96}", "targets"),
        ("MeshConfig.fsdp=3", "fsdp=3, tensor=1) does not divide the 1 device(s) here"),
        ("train/DatasetConfig.seeed=1", "did you mean seed?"),
        ("T5Config.emb_dim=16", "nothing uses T5Config in this run"),
        (
            "AdamW.b1=0.8",
            "--gin.AdamW.b1=0.8: nothing uses AdamW in this run; refer to it by @Adam",
        ),
    ],
)
def test_mistakes_in_training_are_one_line(records, capsys, binding, message):
    arguments = ["train", "--gin_file=runs/train.gin", "--gin.MIXTURE_OR_TASK_NAME=kaft", LENGTHS]
    arguments += ["--gin.kaft_records.directory=rec", "--gin.INITIAL_CHECKPOINT_PATH=base"]
    arguments += ["--gin.TRAIN_STEPS=1", "--gin.MODEL_DIR=bad", f"--gin.{binding}"]
    capsys.readouterr()
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_a_refused_call_leaves_the_runs_configuration(trained, capsys):
    kept = {name: (trained / name).read_bytes() for name in ("config.gin", "operative_config.gin")}
    arguments = ["train", "--gin_file=runs/train.gin", "--gin.MIXTURE_OR_TASK_NAME=kaft", LENGTHS]
    arguments += ["--gin.kaft_records.directory=rec", "--gin.INITIAL_CHECKPOINT_PATH=base"]
    arguments += ["--gin.BATCH_SIZE=2", "--gin.train.train_eval_dataset_cfg=None"]
    assert cli.main([*arguments, "--gin.TRAIN_STEPS=2", "--gin.MODEL_DIR=tuned"]) == 2
    assert "tuned is already at step 3, beyond train.total_steps = 2" in capsys.readouterr().err
    assert {name: (trained / name).read_bytes() for name in kept} == kept


def test_what_would_break_a_model_is_not_written(trained, capsys):
    run("export", "--checkpoint=tuned", "--format=huggingface", "--output=whole-hf")
    half = ["interpolate", "--base=base", "--tuned=tuned", "--weight=0.5"]
    before = (trained / "model.safetensors").read_bytes()
    for arguments, what in (
        (
            ["export", "--checkpoint=base", "--output=whole-hf"],
            "a model in another form (config.js",
        ),
        (["export", "--checkpoint=base", "--output=tuned"], "a run (checkpoints)"),
        ([*half, "--output=tuned"], "a run (checkpoints)"),
    ):
        assert cli.main(arguments) == 2
        assert f"holds {what}" in capsys.readouterr().err
    assert (trained / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("binding", ["TRAIN_STEPS=2.5", "BATCH_SIZE=0", "EVAL_PERIOD='a'"])
def test_wrong_numbers_end_in_one_line_before_anything_is_read(capsys, binding):
    """Neither the checkpoint nor the records exist: they are not what the error is about."""
    arguments = ["train", "--gin_file=runs/train.gin", "--gin.MIXTURE_OR_TASK_NAME=kaft", LENGTHS]
    arguments += ["--gin.kaft_records.directory=gone", "--gin.INITIAL_CHECKPOINT_PATH=gone"]
    arguments += ["--gin.TRAIN_STEPS=1", "--gin.MODEL_DIR=wrong", f"--gin.{binding}"]
    capsys.readouterr()
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --gin.{binding}: ") and error.count("\n") == 1
    assert f"; write --gin.{binding.partition('=')[0]}=" in error
    assert not pathlib.Path("wrong").exists()


@pytest.mark.parametrize("verb", ["train", "eval", "infer"])
def test_a_vocabulary_of_another_size_is_named(records, capsys, verb):
    small = dataclasses.replace(CONFIG, vocab_size=300)
    params = {
        path: np.zeros(x.shape, np.float32) for path, x in flatten(abstract_params(small)).items()
    }
    write_native("narrow", unflatten(params), small)
    pathlib.Path("p.txt").write_text("question: 1?\n")
    flags = {
        "train": ["MIXTURE_OR_TASK_NAME=kaft", "kaft_records.directory=rec", "TRAIN_STEPS=1"]
        + ["INITIAL_CHECKPOINT_PATH=narrow", "MODEL_DIR=bad", LENGTHS.removeprefix("--gin.")],
        "eval": ["EVAL_DATA=rec/train.jsonl", "CHECKPOINT_PATH=narrow", "EVAL_OUTPUT_DIR=bad"],
        "infer": ["INPUT_FILE=p.txt", "CHECKPOINT_PATH=narrow", "INFER_OUTPUT_DIR=bad"],
    }
    bindings = [f"--gin.{binding}" for binding in (*flags[verb], "VOCABULARY=bytes")]
    capsys.readouterr()
    assert cli.main([verb, f"--gin_file=runs/{verb}.gin", *bindings]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: VOCABULARY=bytes has 384 ids, but narrow has only 300 embeddings" in error


@pytest.mark.parametrize("verb", ["eval", "infer"])
def test_decoding_takes_the_mesh_that_is_asked_for(records, capsys, verb):
    pathlib.Path("p.txt").write_text("question: 1?\n")
    flags = {
        "eval": ["EVAL_DATA=rec/train.jsonl", "EVAL_OUTPUT_DIR=bad"],
        "infer": ["INPUT_FILE=p.txt", "INFER_OUTPUT_DIR=bad"],
    }
    count = len(jax.devices())
    flags[verb] += ["CHECKPOINT_PATH=base", f"MeshConfig.tensor={2 * count}"]
    bindings = [f"--gin.{binding}" for binding in flags[verb]]
    capsys.readouterr()
    assert cli.main([verb, f"--gin_file=runs/{verb}.gin", *bindings]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"does not divide the {count} device(s) here" in error


def test_mistakes_in_records_to_evaluate_name_file_and_line(records, capsys):
    lines = (records / "train.jsonl").read_bytes().splitlines(keepends=True)
    broken = json.dumps(json.loads(lines[0]) | {"context": "Nowhere."}).encode() + b"\n"
    cases = {
        "cut.jsonl": ([*lines[:2], lines[2][:40]], "cut.jsonl:3: malformed_json"),
        "latin.jsonl": ([lines[0], b'{"id": "\xe9"}\n'], "latin.jsonl:2: invalid_utf8"),
        "context.jsonl": ([broken], "context.jsonl:1: answer_not_in_context"),
        "twice.jsonl": ([*lines[:2], lines[0]], "twice.jsonl:3: duplicate_id"),
        "other.jsonl": ([b'{"question": "?"}\n'], "other.jsonl:1: missing_field"),
        "empty.jsonl": ([], "the data has no example for any of its tasks"),
        "gone.jsonl": (None, "EVAL_DATA=gone.jsonl: no such file"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            pathlib.Path(name).write_bytes(b"".join(content))
        arguments = ["eval", "--gin_file=runs/eval.gin", "--gin.CHECKPOINT_PATH=base", *SHORT]
        arguments += [f"--gin.EVAL_DATA={name}", "--gin.EVAL_OUTPUT_DIR=bad-records"]
        assert cli.main(arguments) == 2, name
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error, name
    assert not pathlib.Path("bad-records/rows.jsonl").exists()


def test_a_full_disk_while_exporting_is_one_line(records, capsys, full_disk):
    capsys.readouterr()
    with full_disk(1000):
        status = cli.main(["export", "--checkpoint=base", "--output=full"])
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1
    assert error.startswith("error: full/model.safetensors: cannot be written: ")
    assert "what was finished is kept" in error and not list(pathlib.Path("full").iterdir())


def test_changed_rows_are_named_by_the_report(folder, capsys):
    row = {"arm": "a", "example_id": "e", "question_id": "q", "suite": "grounding"}
    row |= {"context_kind": "relevant", "answer": "Rome", "contextual_answers": ["Rome"]}
    pathlib.Path("changed.jsonl").write_text(json.dumps(row) + "\n")
    assert cli.main(["report", "--rows=changed.jsonl", "--output=changed"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: changed.jsonl:1: the sample row of arm 'a', example 'e' has no "
    )
    assert "gold_answers" in error and error.count("\n") == 1
    assert not pathlib.Path("changed").exists()


def test_a_checkpoint_of_another_shape_is_named_before_training(records, capsys):
    text = "".join(f"{name} = {value!r}\n" for name, value in vars(CONFIG).items())
    text = text.replace("mlp_dim = 16", "mlp_dim = 24").replace("\n", "\n  ").rstrip(" ")
    pathlib.Path("model.gin").write_text(f"MODEL = @T5Config()\nT5Config:\n  {text}")
    arguments = ["train", "--gin_file=model.gin", "--gin_file=runs/train.gin", LENGTHS]
    arguments += ["--gin.MIXTURE_OR_TASK_NAME=kaft", "--gin.kaft_records.directory=rec"]
    arguments += ["--gin.INITIAL_CHECKPOINT_PATH=base", "--gin.TRAIN_STEPS=1"]
    capsys.readouterr()
    assert cli.main([*arguments, "--gin.MODEL_DIR=shape"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    for part in ("error: base: parameter ", "mlp/wi_0/kernel", "(8, 16)", "(8, 24)"):
        assert part in error
    assert not pathlib.Path("shape/metrics.jsonl").exists()
