"""The loop: run directories, resuming, evaluation, hooks, and what users get wrong."""

import dataclasses
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_tiny import CONFIG, batch, batches, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.interop import load_params, write_native
from kaft_promot.interop.best import resolve_best
from kaft_promot.models import abstract_params, flatten
from kaft_promot.training import (
    Adafactor,
    AdamW,
    CheckpointConfig,
    Checkpoints,
    Hook,
    Stage,
    load_run,
    read_metrics,
    train,
)
from kaft_promot.training.feed import check_ids
from kaft_promot.training.metrics import MetricWriter

OPTIMIZER = Adafactor(learning_rate=0.1)


@pytest.fixture(scope="module")
def base():
    return numpy_params(CONFIG)


def run(model_dir, total_steps, **arguments):
    arguments = {
        "model_config": CONFIG,
        "train_dataset_cfg": batches,
        "optimizer": OPTIMIZER,
        "stats_period": 4,
        "checkpoint_cfg": CheckpointConfig(period=5),
        "tensorboard": False,
        "progress": False,
        **arguments,
    }
    return train(model_dir=model_dir, total_steps=total_steps, **arguments)


def assert_same(first, second):
    first, second = flatten(first), flatten(second)
    assert first.keys() == second.keys()
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


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


def test_checkpoints_keep_the_latest_and_the_best(tmp_path, base):
    scores = {5: 0.1, 10: 0.9, 15: 0.3, 20: 0.2, 25: 0.4}
    hook = Hook(function=lambda step, params: {"target": scores[step]}, period=5)
    config = CheckpointConfig(period=5, keep=1, metric_name_to_monitor="target")
    for total, kept in ((20, [10, 20]), (25, [10, 25])):
        run(tmp_path, total, initial_params=base, hooks=[hook], checkpoint_cfg=config)
        checkpoints = Checkpoints(tmp_path, config, read_only=True)
        assert checkpoints.steps() == kept
        assert checkpoints.best_step() == 10
        checkpoints.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if "target" in row] == list(scores)


def kept_and_best(model_dir, base, values, **config):
    """What a run keeps that measures `values` (by step) as `name`; and which it calls the best."""
    config = CheckpointConfig(period=1, keep=1, **config)
    name = config.metric_name_to_monitor
    hook = Hook(function=lambda step, params: {name: values[step]}, period=1)
    run(model_dir, len(values), initial_params=base, hooks=[hook], checkpoint_cfg=config)
    checkpoints = Checkpoints(model_dir, config, read_only=True)
    found = checkpoints.steps(), checkpoints.best_step()
    checkpoints.close()
    return found


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_measurement_that_is_no_number_is_worse_than_any(tmp_path, base, mode):
    nan, sign = float("nan"), 1 if mode == "max" else -1
    config = {"metric_name_to_monitor": "target", "metric_mode": mode}
    for number, (values, best) in enumerate(
        [((0.5, 0.9, nan, 0.3, 0.4, 0.2), 2), ((nan, 0.1, 0.3, nan), 3), ((0.1, nan), 1)]
    ):
        measured = {step: sign * value for step, value in enumerate(values, start=1)}
        found = kept_and_best(tmp_path / str(number), base, measured, **config)
        assert found == (sorted({best, len(values)}), best)
    assert kept_and_best(tmp_path / "none", base, {1: nan, 2: nan}, **config)[1] is None


def test_the_best_loss_is_the_least_unless_said_otherwise(tmp_path, base):
    for name, mode, best in (
        ("eval_set/loss", None, 2),
        ("score", None, 3),
        ("loss_free", None, 3),
        ("loss", "max", 3),
        ("score", "min", 2),
    ):
        folder, config = tmp_path / f"{name.replace('/', '_')}_{mode}", {}
        if mode is not None:
            config = {"metric_mode": mode}
        values = {1: 0.5, 2: 0.1, 3: 0.9, 4: 0.3}
        found = kept_and_best(folder, base, values, metric_name_to_monitor=name, **config)
        assert found == ([best, 4], best), name
        assert resolve_best(folder / "checkpoints" / "best").name == str(best)
    with pytest.raises(UserError, match="metric_mode = 'least': choose 'max' or 'min'"):
        CheckpointConfig(metric_mode="least")


def test_a_monitored_metric_that_nothing_measures_is_a_user_error(tmp_path, base):
    config = CheckpointConfig(period=2, metric_name_to_monitor="eval/bleu")
    with pytest.raises(UserError, match="eval/bleu.*measures eval/loss and eval/accuracy alone"):
        run(tmp_path, 4, initial_params=base, checkpoint_cfg=config)
    assert not (tmp_path / "checkpoints").exists()
    hook = Hook(function=lambda step, params: {"else": 1.0}, period=2)
    with pytest.raises(UserError, match="eval/bleu.*step 2"):
        run(tmp_path, 4, initial_params=base, checkpoint_cfg=config, hooks=[hook])
    saved = Checkpoints(tmp_path, config, read_only=True)
    assert saved.steps() == [2]  # what was trained is not lost
    saved.close()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, jnp.float32, jnp.bfloat16])
def test_hooks_may_measure_in_any_kind_of_number(tmp_path, base, kind):
    config = CheckpointConfig(period=2, keep=1, metric_name_to_monitor="target")
    hook = Hook(function=lambda step, params: {"target": kind(8 - step)}, period=2)
    run(tmp_path, 4, initial_params=base, hooks=[hook], checkpoint_cfg=config)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["target"] for row in rows if "target" in row] == [6.0, 4.0]
    checkpoints = Checkpoints(tmp_path, config, read_only=True)
    assert checkpoints.best_step() == 2
    checkpoints.close()


def test_what_a_hook_measures_must_be_numbers(tmp_path, base):
    for value in ("much", None, np.zeros(2), {"a": 1.0}):
        hook = Hook(function=lambda step, params, value=value: {"target": value}, period=2)
        with pytest.raises(UserError, match="a Hook measured 'target' = .* at step 2: give a num"):
            run(None, 4, initial_params=base, hooks=[hook])


def test_evaluation_counts_every_real_token_once(tmp_path, base):
    short = {name: x[:3] for name, x in batch(seed=1).items()}
    run(
        tmp_path,
        3,
        initial_params=base,
        optimizer=AdamW(learning_rate=0.0),
        train_eval_dataset_cfg=[batch(seed=0), short],
        eval_period=2,
    )
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 3]
    first, second = rows
    assert first["eval/loss"] == second["eval/loss"]
    joined = {n: np.concatenate([batch(seed=0)[n], x]) for n, x in short.items()}
    from kaft_promot.training import make_eval_step

    sums = make_eval_step(CONFIG)(base, joined)
    assert first["eval/loss"] == pytest.approx(float(sums["loss"] / sums["weights"]), rel=1e-5)
    assert first["eval/accuracy"] == pytest.approx(float(sums["correct"] / sums["weights"]))


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


def test_data_that_ends_early_is_saved_and_told(tmp_path, base):
    with pytest.raises(UserError, match="ended after step 3 of 9"):
        run(
            tmp_path,
            9,
            initial_params=base,
            train_dataset_cfg=lambda: itertools.islice(batches(), 3),
        )
    config, params = load_run(tmp_path)
    assert config == CONFIG
    assert_same(params, run(None, 3, initial_params=base))


def test_data_that_ends_after_a_loss_that_is_not_finite_saves_nothing(tmp_path, base):
    def poisoned():
        for one in itertools.islice(batches(), 2):
            yield one
        yield one | {"decoder_loss_weights": np.full_like(one["decoder_loss_weights"], np.inf)}

    with pytest.raises(UserError, match="step 3 is not finite"):
        run(tmp_path, 9, initial_params=base, train_dataset_cfg=poisoned)
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == []
    checkpoints.close()


def test_checkpoints_of_a_prompt_are_small_and_complete(tmp_path):
    config = dataclasses.replace(CONFIG, prompt_length=2, num_prompts=1, emb_dim=64)
    stage = Stage(trainable=".*prompt.*", name="prompt")
    params = run(tmp_path, 4, model_config=config, stage=stage)
    size = sum(f.stat().st_size for f in (tmp_path / "checkpoints").rglob("*") if f.is_file())
    whole = sum(x.size * 4 for x in jax.tree.leaves(abstract_params(config)))
    assert size < whole / 2
    found, loaded = load_run(tmp_path, 4)  # the frozen rest is made from the seed again
    assert found == config
    assert_same(loaded, params)


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


@pytest.mark.parametrize("source", ["train_dataset_cfg", "train_eval_dataset_cfg"])
@pytest.mark.parametrize("name", ["encoder_input_tokens", "decoder_target_tokens"])
def test_ids_of_another_vocabulary_are_refused_before_training(tmp_path, base, source, name):
    """JAX would take another row of the embedding without a word."""
    odd = batch()
    odd[name][1, 2] = CONFIG.vocab_size
    message = rf"the token id 32 \({name}\), but the model has embeddings for 32 ids only"
    with pytest.raises(UserError, match=message):
        run(tmp_path, 2, initial_params=base, **{source: lambda: [odd]})
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())
    odd[name][1, 2] = -1
    with pytest.raises(UserError, match="the token id -1"):
        run(tmp_path, 2, initial_params=base, **{source: lambda: [odd]})


def test_placeholders_of_prompts_are_ids_of_the_encoder_alone():
    config = dataclasses.replace(CONFIG, prompt_length=2, num_prompts=2)
    fine, odd = batch(), batch()
    fine["encoder_input_tokens"][0, :2] = (34, 35)
    check_ids(fine, config)
    odd["encoder_input_tokens"][0, 0] = 36
    for wrong, settings in ((odd, config), (fine, CONFIG)):
        with pytest.raises(UserError, match="encoder_input_tokens"):
            check_ids(wrong, settings)
    fine["decoder_target_tokens"][0, 0] = 32
    with pytest.raises(UserError, match="decoder_target_tokens"):
        check_ids(fine, config)


def test_a_dataset_config_compiles_before_its_first_batch(tmp_path, base, monkeypatch):
    from kaft_promot.feeding import DatasetConfig
    from kaft_promot.training.compiled import TrainStep

    np.savez(tmp_path / "saved.npz", **{name: x[None] for name, x in batch().items()})
    config = DatasetConfig(
        mixture_or_task_name="none",
        task_feature_lengths={"inputs": 8, "targets": 5},
        batch_size=4,
        saved=str(tmp_path / "saved.npz"),
    )
    compiled = []
    compile_ahead = TrainStep.compile

    def noted(self, *arguments):
        compile_ahead(self, *arguments)
        compiled.append(self)

    monkeypatch.setattr(TrainStep, "compile", noted)
    fresh = Adafactor(learning_rate=0.123)  # no other test's programs
    params = run(None, 3, initial_params=base, train_dataset_cfg=config, optimizer=fresh)
    assert len(compiled[0]._compiled) == 1  # and the run's batches needed no other program:
    assert not any(jitted._cache_size() for jitted in compiled[0]._jitted.values())
    other = run(
        None, 3, initial_params=base, train_dataset_cfg=lambda: [batch()] * 3, optimizer=fresh
    )
    assert_same(params, other)


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
