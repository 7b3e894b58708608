"""Format specialization and LoRA from the command line, on a tiny model."""

import json
import pathlib

import gin
import jax
import numpy as np
import pytest
from byte_model import CONFIG, write_byte_model

from kaft_promot import cli
from kaft_promot.infer import load_predictor
from kaft_promot.interop import load_params, read_lora, write_native
from kaft_promot.interop.lora import attach_lora
from kaft_promot.models import T5Config, abstract_params, flatten
from kaft_promot.models.lora import merge_lora
from kaft_promot.training import read_metrics

TASKS = """
from kaft_promot.evaluation.output_share import one_of, register_format
from kaft_promot.feeding.jsonl_task import register_jsonl_task

for name in ("spec_target", "spec_copy", "spec_add"):
    register_jsonl_task(
        name, lambda split: "examples.jsonl", fields={"inputs": str, "targets": str}
    )
register_format("spec_target", lambda output: True)
"""
TARGET = ("--gin.MIXTURE_OR_TASK_NAME=spec_target", "--gin.MIXTURE_OR_TASK_MODULE=spec_tasks")
LENGTHS = "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 8}"
OTHERS = "--gin.SPECIALIZATION_TASKS=('spec_copy', 'spec_add')"
SHORT = ("--gin.output_share.max_decode_length=3", "--gin.output_share.examples=4")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder with a random model `base` and examples; the current folder."""
    folder = tmp_path_factory.mktemp("specialize")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        write_byte_model("base")
        pathlib.Path("spec_tasks.py").write_text(TASKS)
        rows = [{"inputs": f"is {i} even?", "targets": str(i % 2 == 0)} for i in range(12)]
        pathlib.Path("examples.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        yield folder
    gin.clear_config()


def train(recipe, model_dir, *more, status=0):
    arguments = (
        "train",
        f"--gin_file=recipes/{recipe}.gin",
        *TARGET,
        LENGTHS,
        "--gin.INITIAL_CHECKPOINT_PATH=base",
        f"--gin.MODEL_DIR={model_dir}",
        "--gin.TRAIN_STEPS=4",
        "--gin.SAVING_PERIOD=2",
        "--gin.EVAL_PERIOD=2",
        "--gin.BATCH_SIZE=4",
        "--gin.train.tensorboard=False",
        "--gin.train.progress=False",
        *more,
    )
    assert cli.main(list(arguments)) == status


def evaluate(checkpoint, arm, *more, status=0):
    arguments = (
        "eval",
        "--gin_file=runs/eval.gin",
        *TARGET,
        LENGTHS,
        f"--gin.CHECKPOINT_PATH={checkpoint}",
        "--gin.EVAL_OUTPUT_DIR=ev",
        f"--gin.ARM={arm}",
        "--gin.MAX_DECODE_LENGTH=3",
        "--gin.BATCH_SIZE=6",
        *more,
    )
    assert cli.main(list(arguments)) == status


@pytest.fixture(scope="module")
def tuned(folder):
    """Fine-tuned from the command line, with all signs measured every 2 steps."""
    train("finetune", "tuned", "--gin.SPECIALIZATION_PERIOD=2", OTHERS, *SHORT)
    return folder / "tuned"


def test_a_run_measures_what_its_flags_say(tuned):
    rows = [r for r in read_metrics(tuned / "metrics.jsonl") if "specialization/kl" in r]
    assert [row["step"] for row in rows] == [2, 4]
    parts = {f"alignment_{part}" for part in ("mlp", "query", "key", "value")}
    shares = {"output_share", "output_share/spec_copy", "output_share/spec_add"}
    for row in rows:
        found = {name.split("/", 1)[1] for name in row if name.startswith("specialization/")}
        assert found == {"kl"} | parts | shares
        assert row["specialization/output_share"] == 1.0  # every text has this target's format
    assert 0 < rows[0]["specialization/kl"] < rows[1]["specialization/kl"]


def test_eval_measures_any_checkpoint_with_intervals(tuned, capsys):
    base = "--gin.BASE_CHECKPOINT_PATH=base"
    evaluate("base", "base", base)
    evaluate("tuned", "tuned", base, OTHERS, *SHORT)
    assert "output_share/spec_add" in capsys.readouterr().out
    evaluate("tuned/checkpoints/2", "half")
    found = json.loads(pathlib.Path("ev/results.json").read_text())["specialization"]
    assert set(found) == {"base", "tuned"}  # what no rows hold is kept for other arms
    assert found["base"]["kl"]["value"] == pytest.approx(0.0, abs=1e-6)
    kl = found["tuned"]["kl"]
    assert 0 < kl["low"] < kl["value"] < kl["high"]
    assert kl["n"] > 12 and found["tuned"]["alignment_mlp"]["n"] == 2  # tokens, batches of 6
    share = found["tuned"]["output_share"]
    assert (share["value"], share["high"], share["n"]) == (1.0, 1.0, 8) and share["low"] < 1.0


def test_lora_then_model_from_the_command_line(folder):
    train("lora", "lora", "--gin.LORA_RANK=2")
    train("lora_then_model", "then", "--gin.LORA_PATH=lora/checkpoints/best")
    assert read_lora("then").rank == 2 and not read_lora("then").merged
    attached = load_predictor("then", lora_path="then").params
    expected = merge_lora(attach_lora(read_lora("then"), load_params("then")))
    for path, value in flatten(expected).items():
        np.testing.assert_array_equal(flatten(attached)[path], value, err_msg=path)
    lora = ("--gin.LORA_PATH=then", "--gin.BASE_CHECKPOINT_PATH=base")
    evaluate("then", "with", *lora)
    found = json.loads(pathlib.Path("ev/results.json").read_text())
    assert {"with"} <= set(found["tasks"]) & set(found["specialization"])
    pathlib.Path("q.txt").write_text("is 1 even?\nis 2 even?\n")
    infer = ["infer", "--gin_file=runs/infer.gin", "--gin.CHECKPOINT_PATH=then"]
    infer += ["--gin.INPUT_FILE=q.txt", "--gin.MAX_DECODE_LENGTH=3"]
    names = []
    for output, more in (("with", ["--gin.LORA_PATH=then"]), ("without", [])):
        assert cli.main([*infer, f"--gin.INFER_OUTPUT_DIR={output}", *more]) == 0
        lines = pathlib.Path(output, "predictions.jsonl").read_text().splitlines()
        names.append(json.loads(lines[0])["checkpoint"])
    assert names[0] != names[1]


def last_error(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "bindings, message",
    [
        (["SPECIALIZATION_TASKS=('spec_copy',)"], "add --gin.SPECIALIZATION_PERIOD"),
        (["SPECIALIZATION_TASKS='spec_copy'", "SPECIALIZATION_PERIOD=2"], "give a tuple"),
        (["SPECIALIZATION_TASKS=('gone',)", "SPECIALIZATION_PERIOD=2"], "is called 'gone'"),
        (
            [
                "MIXTURE_OR_TASK_NAME=spec_add",
                "SPECIALIZATION_TASKS=('spec_copy',)",
                "SPECIALIZATION_PERIOD=2",
            ],
            "target task 'spec_add' has no format predicate",
        ),
        (["SPECIALIZATION_PERIOD=-1"], "Specialization.period = -1"),
    ],
)
def test_mistakes_are_named_before_training(capsys, bindings, message):
    train("finetune", "bad", *(f"--gin.{binding}" for binding in bindings), status=2)
    assert message in last_error(capsys)
    assert not pathlib.Path("bad/metrics.jsonl").exists()


def test_mistakes_in_eval_are_named(tuned, capsys):
    small = T5Config(**{**vars(CONFIG), "mlp_dim": 8})
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), abstract_params(small))
    write_native("small", params, small, vocabulary="bytes")
    evaluate("tuned", "bad", "--gin.BASE_CHECKPOINT_PATH=small", status=2)
    assert "BASE_CHECKPOINT_PATH=small is another network: parameter" in last_error(capsys)
    suite = ("--gin.MIXTURE_OR_TASK_NAME=None", "--gin.SUITE=mini_in_context")
    evaluate("tuned", "bad", "--gin.BASE_CHECKPOINT_PATH=base", *suite, status=2)
    assert "add --gin.MIXTURE_OR_TASK_NAME" in last_error(capsys)
    evaluate("tuned", "bad", "--gin.LORA_PATH=base", status=2)
    assert "no LoRA in it" in last_error(capsys)
