"""The loop: run directories, resuming, and what users get wrong."""

import dataclasses
import itertools
import json
import sys

import jax
import numpy as np
import pytest
from training_tiny import CONFIG, assert_same, batch, batches, numpy_params, run

from kaft_promot.errors import UserError
from kaft_promot.interop import load_params, write_native
from kaft_promot.models import flatten
from kaft_promot.training import (
    AdamW,
    Checkpoints,
    Stage,
    read_metrics,
)
from kaft_promot.training.metrics import MetricWriter


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path, base):
    whole = run(tmp_path / "whole", 12, initial_params=base)
    run(tmp_path / "parts", 7, initial_params=base)
    parts = run(tmp_path / "parts", 12, initial_params=base)
    assert_same(whole, parts)
    steps = [row["step"] for row in read_metrics(tmp_path / "parts" / "metrics.jsonl")]
    assert steps == [4, 5, 7, 8, 10, 12]


def test_a_lost_window_is_made_again_without_duplicates(tmp_path, base):
    """What a kill between checkpoints leaves behind: later rows, and half a line."""
    rows = {}
    for name in ("whole", "killed"):
        run(tmp_path / name, 10, initial_params=base)
        path = tmp_path / name / "metrics.jsonl"
        if name == "killed":
            with open(path, "a") as file:
                file.write('{"step": 12, "loss": 9.9}\n{"step": 13, "lo')
        run(tmp_path / name, 14, initial_params=base)
        rows[name] = [(row["step"], row["loss"]) for row in read_metrics(path)]
    assert rows["killed"] == rows["whole"]


def test_run_directory_and_export(tmp_path, base):
    from safetensors.numpy import load_file

    params = run(tmp_path, 6, initial_params=base, tensorboard=True, vocabulary="bytes")
    tensors = load_file(tmp_path / "model.safetensors")
    assert set(tensors) == {path.replace("/", ".") for path in flatten(params)}
    for path, value in flatten(params).items():
        np.testing.assert_array_equal(tensors[path.replace("/", ".")], value)
    config = json.loads((tmp_path / "model_config.json").read_text())
    assert (config["emb_dim"], config["vocabulary"], config["step"]) == (8, "bytes", 6)
    assert list(tmp_path.glob("events.out.tfevents.*"))
    row = read_metrics(tmp_path / "metrics.jsonl")[-1]
    for name in ("loss", "accuracy", "learning_rate", "gradient_norm"):
        assert np.isfinite(row[name])
    for name in ("steps", "target_tokens", "seqs"):
        assert row[f"timing/{name}_per_second"] > 0
    assert row["timing/seqs_per_second"] / row["timing/steps_per_second"] == pytest.approx(
        len(batch()["decoder_target_tokens"]), rel=1e-4
    )
    # The exported folder is itself a start for another run, which then needs no configuration.
    again = run(
        tmp_path / "next",
        1,
        model_config=None,
        initial_checkpoint_path=str(tmp_path),
        optimizer=AdamW(learning_rate=0.0),
    )
    assert_same(again, params)


def test_a_run_that_goes_on_stands_for_its_latest_step(tmp_path, base):
    """An export of an earlier end must not be taken for what the folder holds now."""
    run(tmp_path, 4, initial_params=base, vocabulary="bytes")
    with pytest.raises(UserError, match="the data ended after step 6"):
        few = lambda: itertools.islice(batches(), 6)  # noqa: E731
        run(tmp_path, 8, initial_params=base, vocabulary="bytes", train_dataset_cfg=few)
    assert_same(load_params(tmp_path), load_params(tmp_path / "checkpoints" / "6"))


def test_frozen_parameters_that_changed_are_not_taken_for_those_of_before(tmp_path, base):
    """A checkpoint holds what is trained; the rest is read where the run started."""
    write_native(tmp_path / "base", base, CONFIG, vocabulary="bytes")
    start = {"initial_checkpoint_path": str(tmp_path / "base"), "model_config": None}
    run(tmp_path / "a", 2, stage=Stage(trainable=".*/mlp/.*"), **start)
    whole = load_params(tmp_path / "a" / "checkpoints" / "2")
    changed = jax.tree.map(lambda x: x + 1.0, base)
    write_native(tmp_path / "base", changed, CONFIG, vocabulary="bytes")
    with pytest.raises(UserError, match="a: its checkpoints lack the frozen parameters.*changed"):
        load_params(tmp_path / "a" / "checkpoints" / "2")
    with pytest.raises(UserError, match="that checkpoint has changed since"):
        run(tmp_path / "a", 3, stage=Stage(trainable=".*/mlp/.*"), **start)
    assert_same(load_params(tmp_path / "a"), whole)  # what was exported has all of them


def test_the_base_of_a_run_is_found_from_another_folder(tmp_path, base, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_native("base", base, CONFIG, vocabulary="bytes")
    stage = Stage(trainable=".*/mlp/.*")
    run("a", 2, initial_checkpoint_path="base", model_config=None, stage=stage)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_native("base", jax.tree.map(lambda x: x + 1.0, base), CONFIG, vocabulary="bytes")
    assert_same(load_params(tmp_path / "a" / "checkpoints" / "2"), load_params(tmp_path / "a"))


def test_a_finished_run_returns_its_parameters_without_training(tmp_path, base):
    params = run(tmp_path, 5, initial_params=base)

    def forbidden():
        yield from ()
        raise AssertionError("read a batch")

    again = run(
        tmp_path,
        5,
        initial_params=base,
        train_dataset_cfg=lambda: itertools.chain(itertools.islice(batches(), 5), forbidden()),
    )
    assert_same(params, again)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path, base):
    def poisoned():
        for number, one in enumerate(batches(), start=1):
            if number == 7:
                one["decoder_loss_weights"] = np.full_like(one["decoder_loss_weights"], np.inf)
            yield one

    with pytest.raises(UserError, match="step 7 is not finite"):
        run(tmp_path, 20, initial_params=base, train_dataset_cfg=poisoned)
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == [5]
    good = checkpoints.trainable(5)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(good))
    checkpoints.close()
    # With the cause mended the same command goes on from there.
    mended = run(tmp_path, 20, initial_params=base)
    assert_same(mended, run(None, 20, initial_params=base))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"random_seed": 3}, "random_seed = 0, not 3"),
        ({"model_config": dataclasses.replace(CONFIG, emb_dim=16)}, "another model"),
        ({"stage": Stage(trainable=".*mlp.*")}, "another model, stage or optimizer"),
        ({"optimizer": AdamW()}, "another model, stage or optimizer"),
        ({"total_steps": 1}, "already at step 2"),
    ],
)
def test_going_on_with_something_else_is_a_user_error(tmp_path, change, message):
    run(tmp_path, 2, initial_params=numpy_params(CONFIG))
    start = numpy_params(change.get("model_config", CONFIG))
    with pytest.raises(UserError, match=message):
        run(tmp_path, **{"total_steps": 4, "initial_params": start, **change})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_config": None}, "train.model_config"),
        ({"stats_period": 0}, "train.stats_period = 0"),
        ({"train_dataset_cfg": "batches.npz"}, "cannot read batches"),
        ({"initial_checkpoint_path": "/nowhere"}, "/nowhere"),
        ({"label_smoothing": 1.5}, "label_smoothing"),
        ({"train_eval_dataset_cfg": []}, "no batch to evaluate on"),
    ],
)
def test_bad_arguments_are_user_errors(tmp_path, base, arguments, message):
    start = {} if "initial_checkpoint_path" in arguments else {"initial_params": base}
    with pytest.raises(UserError, match=message):
        run(tmp_path, 2, **start, **arguments)


def test_metrics_rows_hold_plain_numbers(tmp_path):
    writer = MetricWriter(tmp_path, 0, tensorboard=False)
    writer.write(3, {"loss": np.float32(0.1), "bad": float("nan")})
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 3, "loss": 0.1, "bad": null}\n'


def test_metrics_that_cannot_be_written_are_a_user_error(tmp_path):
    writer = MetricWriter(tmp_path, 0, tensorboard=False)
    writer._file.close()
    writer._file = open("/dev/full", "w")
    with pytest.raises(UserError, match="step 3.*No space left"):
        writer.write(3, {"loss": 1.0})
    writer.close()


def test_no_tensorflow_is_imported():
    import subprocess

    program = (
        "import sys; import kaft_promot.training, kaft_promot.scale, tensorboardX; "
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'seqio')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
