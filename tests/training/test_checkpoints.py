"""Which checkpoints are kept, which is the best, and what a checkpoint holds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_tiny import CONFIG, assert_same, run

from kaft_promot.errors import UserError
from kaft_promot.interop.best import resolve_best
from kaft_promot.models import abstract_params
from kaft_promot.training import (
    CheckpointConfig,
    Checkpoints,
    Hook,
    Stage,
    load_run,
    read_metrics,
)


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
