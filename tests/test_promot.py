"""ProMoT from the command line on a tiny model: both stages, the arms, prompt attached and not."""

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
from kaft_promot.interop import (
    Prompts,
    load_model,
    load_params,
    read_prompts,
    write_prompts,
)
from kaft_promot.models import flatten

LENGTHS = "--gin.TASK_FEATURE_LENGTHS={'inputs': 60, 'targets': 16}"
TASKS = """
from kaft_promot.feeding.jsonl_task import register_jsonl_task

for name in ("one", "two"):
    register_jsonl_task(
        name,
        lambda split, name=name: f"{name}.{split}.jsonl",
        fields={"inputs": str, "targets": str},
        select=lambda row: row,
    )

import seqio

seqio.MixtureRegistry.add("onetwo", ["one", "two"], default_rate=1.0)
register_jsonl_task(
    "half",
    lambda split: "two.train.jsonl",
    fields={"inputs": str, "targets": str},
    splits=["train"],
)
seqio.MixtureRegistry.add("onehalf", ["one", "half"], default_rate=1.0)
"""
MODULE = "promot_tasks_of_the_test"
NO_RATE = [
    f"--gin.create_learning_rate_scheduler.{name}=0.0"
    for name in ("base_learning_rate", "min_learning_rate")
]
WIDE, OTHER = "wide.safetensors", "other.safetensors"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder with a random model `base` and two tasks in a module; the current folder."""
    import seqio

    folder = tmp_path_factory.mktemp("promot")
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_byte_model("base")
        pathlib.Path(f"{MODULE}.py").write_text(TASKS)
        for name in ("one", "two"):
            for split in ("train", "validation"):
                rows = [{"inputs": f"{name} is {i}?", "targets": str(i)} for i in range(6)]
                text = "".join(json.dumps(row) + "\n" for row in rows)
                pathlib.Path(f"{name}.{split}.jsonl").write_text(text)
        yield folder
    jax.config.update("jax_disable_most_optimizations", before)
    gin.clear_config()
    for name in ("one", "two", "half"):
        seqio.TaskRegistry.remove(name)
    for name in ("onetwo", "onehalf"):
        seqio.MixtureRegistry.remove(name)


def train(recipe, model_dir, *more, task="one", steps=2):
    return cli.main(
        [
            "train",
            f"--gin_file=recipes/{recipe}.gin",
            f"--gin.MIXTURE_OR_TASK_NAME={task}",
            f"--gin.MIXTURE_OR_TASK_MODULE={MODULE}",
            LENGTHS,
            "--gin.INITIAL_CHECKPOINT_PATH=base",
            f"--gin.MODEL_DIR={model_dir}",
            f"--gin.TRAIN_STEPS={steps}",
            "--gin.BATCH_SIZE=2",
            "--gin.SAVING_PERIOD=1",
            "--gin.EVAL_PERIOD=1",
            "--gin.EVAL_STEPS=1",
            "--gin.train.tensorboard=False",
            *more,
        ]
    )


@pytest.fixture(scope="module")
def promot(folder):
    """Both stages: `prompt` and `tuned`."""
    assert train("promot_stage1", "prompt", "--gin.PROMPT_LENGTH=5") == 0
    assert train("promot_stage2", "tuned", "--gin.PROMPT_PATH=prompt/checkpoints/best") == 0
    return folder


def rows_of(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def test_stage_1_writes_the_prompt_alone(promot):
    prompts = read_prompts("prompt")
    assert prompts.names == ("one",) and prompts.length == 5
    assert prompts.base_checkpoint == "base"
    assert prompts.vocabulary_digest == "bytes+125"
    size = sum(f.stat().st_size for f in pathlib.Path("prompt").rglob("*") if f.is_file())
    assert not list(pathlib.Path("prompt").glob("model*"))
    assert size < 500_000
    before, after = flatten(load_params("base")), flatten(load_params("prompt"))
    assert set(after) - set(before) == {"encoder/prompt/prompt/prompt"}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_stage_2_writes_an_ordinary_model_and_its_prompt(promot):
    before, after = flatten(load_params("base")), flatten(load_params("tuned"))
    assert before.keys() == after.keys()
    assert all(np.abs(after[name] - before[name]).max() > 0 for name in before)
    rows = [row for row in rows_of("prompt/metrics.jsonl") if "eval/accuracy" in row]
    best = max(rows, key=lambda row: row["eval/accuracy"])["step"]  # the first of equals
    kept = [read_prompts(f"prompt/checkpoints/{step}").table for step in (1, 2)]
    assert any(np.array_equal(read_prompts("tuned").table, table) for table in kept)
    found = read_prompts("prompt/checkpoints/best").table
    np.testing.assert_array_equal(found, read_prompts("tuned").table)
    if rows[0]["eval/accuracy"] != rows[1]["eval/accuracy"]:
        np.testing.assert_array_equal(found, kept[best - 1])
    assert load_model("tuned/checkpoints/best").config.prompt_length == 5


def test_infer_with_and_without_the_prompt(promot, capsys):
    pathlib.Path("p.txt").write_text("".join(f"{n} is {i}?\n" for n in "ab" for i in range(8)))
    infer = ["infer", "--gin_file=runs/infer.gin", "--gin.INPUT_FILE=p.txt"]
    infer += ["--gin.MAX_INPUT_LENGTH=32", "--gin.MAX_DECODE_LENGTH=6", "--gin.BATCH_SIZE=8"]
    infer += ["--gin.CHECKPOINT_PATH=tuned"]
    attached = ["--gin.INFER_OUTPUT_DIR=attached", "--gin.PROMPT_PATH=prompt"]
    assert cli.main([*infer, *attached]) == 0
    assert cli.main([*infer, "--gin.INFER_OUTPUT_DIR=removed"]) == 0
    with_prompt, without = (rows_of(f"{d}/predictions.jsonl") for d in ("attached", "removed"))
    assert [r["prompt"] for r in with_prompt] == [r["prompt"] for r in without]
    assert [r["prediction"] for r in with_prompt] != [r["prediction"] for r in without]
    # A run's checkpoint that holds the prompt gives the same as its export, attached or removed.
    again = [a.replace("tuned", "tuned/checkpoints/2") for a in infer]
    assert cli.main([*again, "--gin.INFER_OUTPUT_DIR=removed2"]) == 0
    found = [r["prediction"] for r in rows_of("removed2/predictions.jsonl")]
    assert found == [r["prediction"] for r in without]
    # Predictions with another prompt are not mixed in.
    assert cli.main([*infer, "--gin.INFER_OUTPUT_DIR=attached"]) == 2
    assert "of another input or checkpoint" in capsys.readouterr().err


def test_eval_of_a_task_takes_a_prompt(promot):
    task = ["--gin.MIXTURE_OR_TASK_NAME=one", f"--gin.MIXTURE_OR_TASK_MODULE={MODULE}", LENGTHS]
    task += ["--gin.MAX_INPUT_LENGTH=32", "--gin.MAX_DECODE_LENGTH=4", "--gin.BATCH_SIZE=8"]
    task += ["--gin.CHECKPOINT_PATH=tuned", "--gin.PROMPT_PATH=tuned", "--gin.EVAL_OUTPUT_DIR=ev"]
    assert cli.main(["eval", "--gin_file=runs/eval.gin", *task]) == 0
    rows = [row for row in rows_of("ev/rows.jsonl") if "prediction" in row]
    assert len(rows) == 6
    # The prompt stands in front of what the rows show.
    assert rows[0]["prompt"].endswith("?")
    from kaft_promot.infer import load_predictor

    settings = {"max_input_length": 32, "max_decode_length": 4, "batch_size": 8}
    attached = load_predictor("tuned", prompt_path="tuned", **settings)
    found = attached.generate([row["prompt"] for row in rows])
    assert found == [row["prediction"] for row in rows]


@pytest.mark.parametrize("recipe", ["promot_joint", "promot_random_prompt"])
def test_arms_make_their_prompt_themselves(folder, recipe):
    assert train(recipe, recipe, "--gin.PROMPT_LENGTH=4", steps=1) == 0
    rows = read_prompts(recipe).table[0]
    assert rows.shape == (4, 8)
    base, after = load_params("base"), flatten(load_params(recipe))
    assert after.keys() == flatten(base).keys()
    assert all(np.abs(after[name] - value).max() > 0 for name, value in flatten(base).items())
    if recipe == "promot_random_prompt":
        assert np.abs(rows).max() <= 0.5


def test_the_arm_with_demonstrations(promot):
    assert train("promot_1shot", "shot", "--gin.PROMPT_PATH=prompt", steps=1) == 0
    np.testing.assert_array_equal(read_prompts("shot").table, read_prompts("prompt").table)
    plain = train("promot_stage2", "plain", "--gin.PROMPT_PATH=prompt", steps=1)
    loss = [rows_of(f"{name}/metrics.jsonl")[0]["loss"] for name in ("shot", "plain")]
    assert plain == 0 and loss[0] != loss[1]


def test_the_arms_without_a_prompt(folder):
    base = flatten(load_params("base"))
    for arm, more in (("finetune", []), ("lora", ["--gin.LORA_RANK=2"])):
        assert train(arm, arm, *more, steps=1) == 0
        after = flatten(load_params(arm))
        changed = {path for path in base if not np.array_equal(base[path], after[path])}
        assert after.keys() == base.keys()
        assert changed == (
            set(base)
            if arm == "finetune"
            else {p for p in base if "/value/" in p or "/query/" in p}
        )
        assert not pathlib.Path(arm, "prompt.safetensors").exists()


def test_a_mixture_with_a_prompt_for_each_task(folder, capsys):
    tasks = ["--gin.PROMPT_LENGTH=4", "--gin.PROMPT_TASKS=('one', 'two')"]
    assert train("promot_multitask", "each", *tasks, task="onetwo", steps=1) == 0
    assert read_prompts("each").names == ("one", "two")
    infer = ["infer", "--gin_file=runs/infer.gin", "--gin.CHECKPOINT_PATH=base"]
    pathlib.Path("one.txt").write_text("one is 1?\n")
    infer += ["--gin.INPUT_FILE=one.txt", "--gin.INFER_OUTPUT_DIR=which", "--gin.PROMPT_PATH=each"]
    infer += ["--gin.MAX_DECODE_LENGTH=4", "--gin.MAX_INPUT_LENGTH=32"]
    assert cli.main(infer) == 2
    assert "choose one by --gin.PROMPT_NAME=..., of one, two" in capsys.readouterr().err
    assert cli.main([*infer, "--gin.PROMPT_NAME=two"]) == 0
    assert train("promot_stage2", "both", "--gin.PROMPT_PATH=each", task="onetwo") == 0
    frozen, kept = read_prompts("each").rows, read_prompts("both").rows
    for name in ("one", "two"):
        np.testing.assert_array_equal(kept[name], frozen[name])
    assert not same_params("both", "base")
    assert (
        train("promot_stage1", "lacks", tasks[0], "--gin.PROMPT_TASKS=('one',)", task="onetwo") == 2
    )
    assert "task 'two' has no soft prompt" in capsys.readouterr().err
    three = "--gin.PROMPT_TASKS=('one', 'two', 'three')"
    assert train("promot_stage1", "unused", tasks[0], three, task="onetwo") == 2
    assert "names three, of which the training data has no example" in capsys.readouterr().err


def test_a_task_without_a_validation_split_has_its_prompt(folder):
    tasks = ["--gin.PROMPT_LENGTH=4", "--gin.PROMPT_TASKS=('one', 'half')"]
    assert train("promot_multitask", "half", *tasks, task="onehalf", steps=1) == 0
    assert read_prompts("half").names == ("one", "half")


def test_the_best_checkpoint_leaves_with_its_prompt_in_a_file(promot):
    """As a run's own export does; and a run that starts from it starts without the prompt."""
    export = ["export", "--checkpoint=tuned/checkpoints/best"]
    assert cli.main([*export, "--output=best"]) == 0
    assert cli.main([*export, "--output=best-hf", "--format=huggingface"]) == 0
    best = flatten(load_params("tuned/checkpoints/best"))
    table = best.pop("encoder/prompt/prompt/prompt")
    for folder in ("best", "best-hf"):
        found = flatten(load_params(folder))
        assert found.keys() == best.keys()
        assert all(np.array_equal(found[name], best[name]) for name in best)
        np.testing.assert_array_equal(read_prompts(f"{folder}/prompt.safetensors").table[0], table)
    first = "--gin.INITIAL_CHECKPOINT_PATH=tuned/checkpoints/best"
    assert train("finetune", "after", first, steps=1) == 0
    assert flatten(load_params("after")).keys() == best.keys()


def same_params(first, second):
    pairs = zip(*(sorted(flatten(load_params(p)).items()) for p in (first, second)), strict=True)
    return all(a == b and np.array_equal(x, y) for (a, x), (b, y) in pairs)


def test_one_target_after_another(promot):
    """The second target starts from the first one's model without its prompt, behind its own."""
    first, prompt = "--gin.INITIAL_CHECKPOINT_PATH=tuned", "--gin.PROMPT_PATH=prompt-two"
    assert train("promot_stage1", "prompt-two", first, "--gin.PROMPT_LENGTH=4", task="two") == 0
    assert train("promot_sequential", "still", first, prompt, *NO_RATE, task="two") == 0
    assert same_params("still", "tuned") and not same_params("still", "base")
    assert train("promot_sequential", "second", first, prompt, task="two") == 0
    assert not same_params("second", "tuned")
    assert read_prompts("second").names == ("two",)
    np.testing.assert_array_equal(
        read_prompts("second").rows["two"], read_prompts("prompt-two").rows["two"]
    )


@pytest.fixture(scope="module")
def misfits(folder):
    """Prompts for another width and for another vocabulary than `base` has."""
    write_prompts(WIDE, Prompts(rows={"one": np.zeros((5, 9), np.float32)}))
    rows = {"one": np.zeros((5, CONFIG.emb_dim), np.float32)}
    write_prompts(OTHER, Prompts(rows=rows, vocab_size=384, vocabulary_digest="another"))


@pytest.mark.parametrize(
    ("recipe", "more", "message"),
    [
        ("promot_stage1", ["PROMPT_LENGTH=100"], "soft prompt of 100 leaves no room"),
        (
            "promot_stage1",
            ["PROMPT_LENGTH=52"],
            "task 'one': 6 of 6 inputs do not fit behind their soft prompt: TASK_FEATURE_LENGTHS "
            "gives 60 tokens, of which the prompt takes 52; the first is example 0, the longest "
            "example 0 with 10 tokens, 2 too many. Raise TASK_FEATURE_LENGTHS",
        ),
        ("promot_stage1", ["Stage.trainable='.*promt.*'"], "'.*promt.*' matches no parameter"),
        ("finetune", ["Stage.trainable='.*prompt.*'"], "'.*prompt.*' matches no parameter"),
        (
            "promot_stage1",
            ["train.train_eval_dataset_cfg=None"],
            "metric_name_to_monitor = 'eval/accuracy' is not measured without train.train_eval",
        ),
        (
            "finetune",
            ["SAVING_PERIOD=1", "EVAL_PERIOD=2"],
            "measured every 2 steps (train.eval_period), checkpoints are saved every 1 (Checkpoint",
        ),
        ("promot_stage2", ["PROMPT_PATH=gone"], "gone: no such prompt"),
        ("promot_stage2", [], "no value for PROMPT_PATH"),
        ("promot_stage2", ["PROMPT_PATH=base"], "base: no soft prompt in it"),
        ("promot_stage2", [f"PROMPT_PATH={WIDE}"], f"{WIDE}: this prompt is 9 wide, but the model"),
        ("promot_stage2", [f"PROMPT_PATH={OTHER}"], f"{OTHER}: this prompt was tuned with another"),
    ],
)
def test_mistakes_are_one_line_before_training(folder, capsys, misfits, recipe, more, message):
    assert train(recipe, "bad", *(f"--gin.{binding}" for binding in more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not pathlib.Path("bad").exists()


@pytest.mark.parametrize("verb", ["infer", "eval"])
def test_prompts_that_do_not_fit_are_refused_by_every_verb(folder, capsys, misfits, verb):
    pathlib.Path("one.txt").write_text("one is 1?\n")
    flags = [f"--gin_file=runs/{verb}.gin", "--gin.CHECKPOINT_PATH=base"]
    if verb == "infer":
        flags += ["--gin.INPUT_FILE=one.txt", "--gin.INFER_OUTPUT_DIR=misfit"]
    else:
        flags += ["--gin.MIXTURE_OR_TASK_NAME=one", f"--gin.MIXTURE_OR_TASK_MODULE={MODULE}"]
        flags += [LENGTHS, "--gin.EVAL_OUTPUT_DIR=misfit"]
    for path, message in ((WIDE, "9 wide"), (OTHER, "another vocabulary than bytes")):
        assert cli.main([verb, *flags, f"--gin.PROMPT_PATH={path}"]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: {path}: this prompt") and message in error


def test_examples_to_evaluate_start_with_their_prompt(folder):
    from kaft_promot.feeding import DatasetConfig, PromptIds, eval_examples

    gin.clear_config()
    gin.bind_parameter("task_vocabulary.path", "bytes")
    cfg = DatasetConfig(
        mixture_or_task_name="onetwo",
        module=MODULE,
        task_feature_lengths={"inputs": 40, "targets": 8},
        split="validation",
        batch_size=1,
        prompts=PromptIds(first_id=384, length=3, by_task={"one": 0, "two": 1}),
    )
    found = eval_examples(cfg)
    assert {(e["task"], tuple(e["inputs"][:3])) for e in found} == {
        ("one", (384, 385, 386)),
        ("two", (387, 388, 389)),
    }
    assert bytes(i - 3 for i in found[0]["inputs"][3:-1]).decode() == "one is 0?"
    small = dataclasses.replace(cfg, task_feature_lengths={"inputs": 12, "targets": 8})
    with pytest.raises(UserError, match="6 of 6 inputs do not fit.*1 too many"):
        eval_examples(small)
