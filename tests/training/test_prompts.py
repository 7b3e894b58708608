"""Soft prompts in training: packing, the stages of ProMoT, what a run keeps, and mistakes."""

import json

import jax
import numpy as np
import pytest
from training_tiny import CONFIG, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.feeding import DatasetConfig, PromptIds, batch_examples, train_iterator
from kaft_promot.feeding.features import unpack
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.saved import write_tokens
from kaft_promot.feeding.token_store import TokenStore
from kaft_promot.interop import Prompts, load_model, read_prompts, write_native, write_prompts
from kaft_promot.models import attach_prompts, flatten
from kaft_promot.models.prompts import PROMPT as TABLE
from kaft_promot.training import (
    FULL,
    MODEL,
    PROMPT,
    Adafactor,
    CheckpointConfig,
    SoftPrompts,
    load_run,
    train,
)
from kaft_promot.training.step import forward, loss_sums

P = 3
LENGTHS = {"inputs": 30, "targets": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model `base` and saved tokens `both` of two tasks."""
    folder = tmp_path_factory.mktemp("prompts")
    write_native(folder / "base", numpy_params(CONFIG), CONFIG)
    rng = np.random.default_rng(0)

    def examples(count):
        sizes = zip(rng.integers(2, 8, count), rng.integers(1, 4, count), strict=True)
        return [
            {
                "inputs": [*rng.integers(3, 32, n).tolist(), 1],
                "targets": [*rng.integers(3, 32, t).tolist(), 1],
            }
            for n, t in sizes
        ]

    sources = [
        Source(name=name, rate=1.0, store=TokenStore.from_examples(examples(20))) for name in "ab"
    ]
    write_tokens(sources, dataset(folder), folder / "both")
    return folder


def dataset(folder, **settings):
    return DatasetConfig(
        **{
            "mixture_or_task_name": "both",
            "task_feature_lengths": LENGTHS,
            "batch_size": 4,
            "saved": str(folder / "both"),
            "prefetch": 0,
            **settings,
        }
    )


def run(folder, name, total_steps=4, **arguments):
    arguments = {
        "initial_checkpoint_path": str(folder / "base"),
        "train_dataset_cfg": dataset(folder, pack=True),
        "optimizer": Adafactor(learning_rate=0.1),
        "checkpoint_cfg": CheckpointConfig(period=2, keep=None),
        "prompts": SoftPrompts(length=P),
        "tensorboard": False,
        "progress": False,
        **arguments,
    }
    return train(model_dir=folder / name, total_steps=total_steps, **arguments)


@pytest.fixture(scope="module")
def stage1(folder):
    return run(folder, "stage1", stage=PROMPT)


def test_packed_prompts_have_the_logits_and_gradients_of_unpacked_ones(folder):
    """Two tasks with a prompt each share every row; 1e-5 relative to the largest value."""
    rng = np.random.default_rng(1)
    table = rng.normal(size=(2, P, CONFIG.emb_dim)).astype(np.float32)
    config, params = attach_prompts(CONFIG, numpy_params(CONFIG), table)
    ids = PromptIds(first_id=config.vocab_size, length=P, by_task={"a": 0, "b": 1})
    packed = next(train_iterator(dataset(folder, pack=True, prompts=ids, batch_size=6)))
    examples = unpack(packed)
    assert len(examples) > len(packed["encoder_input_tokens"]) + 3
    assert {int(e["inputs"][0]) for e in examples} == {config.vocab_size, config.vocab_size + P}
    (alone,) = batch_examples(examples, LENGTHS, len(examples))

    @jax.jit
    def loss_and_gradients(params, batch):
        return jax.value_and_grad(loss, has_aux=True)(params, batch)

    def loss(params, batch):
        logits = forward(config, params, batch)
        return loss_sums(logits, batch, 0.1, 1e-4)["loss"], logits

    found = {}
    for name, batch in (("packed", packed), ("alone", alone)):
        (value, logits), grads = loss_and_gradients(params, batch)
        targets = batch["decoder_target_tokens"]
        real = np.asarray(logits)[targets > 0]  # row by row: the order of `unpack`
        found[name] = (float(value), real, flatten(grads))
    assert found["packed"][0] == pytest.approx(found["alone"][0], rel=1e-5)
    np.testing.assert_allclose(
        found["packed"][1], found["alone"][1], rtol=0, atol=1e-5 * np.abs(found["alone"][1]).max()
    )
    for path, expected in found["alone"][2].items():
        size = np.abs(expected).max()
        assert size > 0, path
        np.testing.assert_allclose(
            found["packed"][2][path], expected, rtol=0, atol=1e-5 * size, err_msg=path
        )


def test_stage_1_tunes_and_keeps_the_prompt_alone(folder, stage1):
    base = flatten(load_model(folder / "base").params)
    tuned = flatten(stage1)
    for path, value in base.items():
        np.testing.assert_array_equal(tuned[path], value, err_msg=path)
    prompts = read_prompts(folder / "stage1")
    assert prompts.names == ("both",) and prompts.length == P
    assert prompts.base_checkpoint == str(folder / "base")
    assert prompts.vocab_size == CONFIG.vocab_size
    np.testing.assert_array_equal(prompts.table[0], tuned[TABLE])
    start = read_prompts(folder / "stage1" / "checkpoints" / "2")
    assert start.names == ("both",)
    assert np.abs(start.table - prompts.table).max() > 1e-3
    # No model is written, and the state is the prompt's: kilobytes, most of them file names.
    assert not (folder / "stage1" / "model.safetensors").exists()
    checkpoint = folder / "stage1" / "checkpoints" / "4"
    array_bytes = sum(
        file.stat().st_size for file in checkpoint.rglob("*") if "/d/" in file.as_posix()
    )
    assert array_bytes < 10_000
    # A run without its model is read with the base it came from.
    config, whole = load_run(folder / "stage1")
    assert config.prompt_length == P
    assert flatten(whole).keys() == tuned.keys()


def test_stage_2_trains_the_model_under_the_frozen_prompt(folder, stage1):
    prompts = SoftPrompts(path=str(folder / "stage1"))
    run(folder, "half", 2, prompts=prompts, stage=MODEL)
    # An unfinished run has its prompt, too.
    found = read_prompts(folder / "half")
    np.testing.assert_array_equal(found.table[0], flatten(stage1)[TABLE])
    tuned = flatten(run(folder, "half", 4, prompts=prompts, stage=MODEL))
    whole = flatten(run(folder, "stage2", 4, prompts=prompts, stage=MODEL))
    for path, value in whole.items():
        np.testing.assert_array_equal(tuned[path], value, err_msg=path)
    np.testing.assert_array_equal(whole[TABLE], flatten(stage1)[TABLE])
    base = flatten(load_model(folder / "base").params)
    assert all(np.abs(whole[path] - base[path]).max() > 0 for path in base)
    # The model is written without the prompt, so the result is an ordinary checkpoint.
    model = load_model(folder / "stage2")
    assert model.config == CONFIG
    assert flatten(model.params).keys() == base.keys()
    np.testing.assert_array_equal(read_prompts(folder / "stage2").table, found.table)
    config, restored = load_run(folder / "stage2", 4)
    assert config.prompt_length == P
    np.testing.assert_array_equal(flatten(restored)[TABLE], whole[TABLE])


def test_another_prompt_does_not_continue_a_run(folder, stage1):
    run(folder, "one", 2, prompts=SoftPrompts(path=str(folder / "stage1")), stage=MODEL)
    with pytest.raises(UserError, match="one was started with other soft prompts"):
        run(folder, "one", 4, prompts=SoftPrompts(length=P, seed=1), stage=MODEL)


def test_joint_training_moves_both_and_a_random_prompt_stays(folder):
    base = flatten(load_model(folder / "base").params)
    joint = flatten(run(folder, "joint", stage=FULL))
    start = SoftPrompts(length=P, init="uniform")
    fixed = flatten(run(folder, "random", prompts=start, stage=MODEL))
    assert np.abs(joint["encoder/encoder_norm/scale"] - base["encoder/encoder_norm/scale"]).max()
    assert not np.array_equal(joint[TABLE], read_prompts(folder / "joint/checkpoints/2").table[0])
    assert np.abs(fixed[TABLE]).max() <= 0.5
    np.testing.assert_array_equal(read_prompts(folder / "random").table[0], fixed[TABLE])


def test_tasks_with_a_prompt_each(folder):
    both = SoftPrompts(length=P, tasks=("a", "b"))
    run(folder, "two", prompts=both, stage=PROMPT)
    tuned = read_prompts(folder / "two")
    assert tuned.names == ("a", "b")
    untrained = run(folder, "zero", 1, prompts=both, stage=MODEL)
    start = flatten(untrained)[TABLE].reshape(2, P, -1)
    assert np.abs(start[0] - start[1]).max() > 0  # other rows for each
    assert (np.abs(tuned.table - start).max(axis=(1, 2)) > 1e-3).all()  # both learn
    # Prompts tuned apart share stage 2.
    for name in "ab":
        write_prompts(folder / f"{name}.safetensors", tuned.only(name))
    apart = SoftPrompts(path={name: str(folder / f"{name}.safetensors") for name in "ba"})
    joined = flatten(run(folder, "apart", 1, prompts=apart, stage=MODEL))
    np.testing.assert_array_equal(
        joined[TABLE].reshape(2, P, -1), np.stack([tuned.rows["b"], tuned.rows["a"]])
    )
    with pytest.raises(UserError, match="task 'b' has no soft prompt"):
        run(folder, "lacking", prompts=SoftPrompts(length=P, tasks=("a",)), stage=PROMPT)


def test_rows_start_from_words(folder, tmp_path):
    import dataclasses

    config = dataclasses.replace(CONFIG, vocab_size=384)
    params = numpy_params(config)
    embedding = params["token_embedder"]["embedding"]
    write_native(tmp_path / "bytes", params, config, vocabulary="bytes")
    settings = {
        "initial_checkpoint_path": str(tmp_path / "bytes"),
        "stage": PROMPT,
        "optimizer": Adafactor(learning_rate=0.0),
    }
    text = SoftPrompts(length=P, init="text", text="ab")
    rows = flatten(run(folder, tmp_path / "text", 1, prompts=text, **settings))[TABLE]
    np.testing.assert_array_equal(rows[:2], embedding[[ord("a") + 3, ord("b") + 3]])
    labels = SoftPrompts(length=P, init="labels", labels=("ab", "c"))
    rows = flatten(run(folder, tmp_path / "labels", 1, prompts=labels, **settings))[TABLE]
    mean = embedding[[ord("a") + 3, ord("b") + 3]].mean(axis=0)
    np.testing.assert_allclose(rows[:2], [mean, embedding[ord("c") + 3]], rtol=1e-6)
    assert read_prompts(tmp_path / "text").vocabulary_digest == "bytes+125"
    with pytest.raises(UserError, match="text makes 4 rows, but the prompt has 3"):
        long = SoftPrompts(length=P, init="text", text="abcd")
        run(folder, tmp_path / "long", prompts=long, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "words"}, "init = 'words': choose from"),
        ({"text": "a"}, "SoftPrompts.text goes with SoftPrompts.init = 'text'"),
        ({"init": "labels"}, "SoftPrompts.labels goes with"),
        ({"length": 0}, "length = 0"),
        ({"tasks": "rte"}, "give a tuple"),
        ({"pieces": 0}, "pieces"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_prompts_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        SoftPrompts(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "wide"}, "wide.*this prompt is 9 wide"),
        ({"path": "gone"}, "gone: no such prompt"),
        ({"path": "stage1", "length": 5}, "SoftPrompts.length = 5, but .*stage1.* has 3 rows"),
        ({"path": "stage1", "tasks": ("rte",)}, "no prompt is called 'rte'; it has both"),
        ({"length": 25}, "of which the prompt takes 25; the first is example"),
        ({"length": 30}, "soft prompt of 30 leaves no room"),
        ({"length": P, "init": "text", "text": "a"}, "needs the vocabulary"),
    ],
)
def test_prompts_that_do_not_fit_are_refused_before_training(folder, stage1, settings, message):
    wide = Prompts(rows={"a": np.zeros((P, 9), np.float32)})
    write_prompts(folder / "wide" / "prompt.safetensors", wide)
    if "path" in settings:
        settings = {**settings, "path": str(folder / settings["path"])}
    with pytest.raises(UserError, match=message):
        run(folder, "bad", prompts=SoftPrompts(**settings), stage=MODEL)
    assert not (folder / "bad" / "metrics.jsonl").exists()


def test_a_prompt_stage_without_a_prompt_matches_nothing(folder):
    with pytest.raises(UserError, match="matches no parameter"):
        run(folder, "none", prompts=None, stage=PROMPT)


def test_rows_too_long_are_cut_where_told(folder):
    cut = SoftPrompts(length=25, long_inputs="truncate")
    run(folder, "cut", 1, prompts=cut, stage=PROMPT)
    assert json.loads((folder / "cut" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 1
