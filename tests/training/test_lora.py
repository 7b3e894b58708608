"""LoRA: low-rank additions that train alone and leave an ordinary network."""

import dataclasses

import jax
import numpy as np
import pytest
from training_tiny import CONFIG, batch, batches, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.interop import load_model, load_params, write_native
from kaft_promot.models import flatten, logical_axes, stack_layers, unstack_layers
from kaft_promot.training import (
    LORA,
    AdamW,
    CheckpointConfig,
    Checkpoints,
    Lora,
    merge_lora,
    partition,
    train,
)
from kaft_promot.training.step import forward

CHANGED = {
    f"{stack}/layers_0/{attention}/{name}/kernel"
    for stack, attention in (
        ("encoder", "attention"),
        ("decoder", "self_attention"),
        ("decoder", "encoder_decoder_attention"),
    )
    for name in ("query", "value")
}


def run(model_dir, base, total_steps=4, **arguments):
    return train(
        model_dir=model_dir,
        total_steps=total_steps,
        initial_checkpoint_path=str(base),
        train_dataset_cfg=batches,
        optimizer=AdamW(learning_rate=0.05),
        checkpoint_cfg=CheckpointConfig(period=2, keep=None),
        stage=LORA,
        tensorboard=False,
        progress=False,
        **{"lora": Lora(rank=2), **arguments},
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "base"
    write_native(folder, numpy_params(CONFIG), CONFIG)
    return folder


def test_additions_change_nothing_at_first_and_are_the_stage_alone():
    params = numpy_params(CONFIG)
    attached = Lora(rank=2).attach(params)
    trainable, frozen = partition(attached, LORA)
    assert flatten(frozen).keys() == flatten(params).keys()
    assert len(flatten(trainable)) == 2 * len(CHANGED)
    axes = flatten(logical_axes(attached))
    assert axes["encoder/layers_0/attention/query/lora_a"] == ("embed", "lora_rank")
    assert axes["encoder/layers_0/attention/query/lora_b"] == ("lora_rank", "joined_kv")
    for path, value in flatten(merge_lora(attached)).items():
        np.testing.assert_array_equal(value, flatten(params)[path])


def test_merging_adds_the_product_also_to_stacked_layers():
    params = numpy_params(CONFIG)
    attached = flatten(Lora(rank=3, kernels=".*/mlp/wo").attach(stack_layers(params)))
    name = "decoder/layers/mlp/wo"
    attached[f"{name}/lora_b"] = np.ones_like(attached[f"{name}/lora_b"])
    merged = flatten(unstack_layers(merge_lora(attached)))
    added = attached[f"{name}/lora_a"][0] @ attached[f"{name}/lora_b"][0]
    path = "decoder/layers_0/mlp/wo/kernel"
    np.testing.assert_allclose(merged[path], flatten(params)[path] + added, rtol=1e-6)
    assert merged.keys() == flatten(params).keys()


def test_a_run_trains_keeps_and_exports(base, tmp_path):
    tuned = flatten(run(tmp_path / "whole", base))
    before = flatten(load_params(base))
    assert tuned.keys() == before.keys()
    changed = {path for path in before if not np.array_equal(before[path], tuned[path])}
    assert changed == CHANGED
    for path in changed:
        assert np.linalg.matrix_rank(tuned[path] - before[path], tol=1e-5) <= 2
    # The export is an ordinary network, and so is what a checkpoint of additions gives.
    exported = load_model(tmp_path / "whole")
    assert exported.config == CONFIG
    one = batch(seed=9)
    expected = np.asarray(jax.jit(lambda p: forward(CONFIG, p, one))(exported.params))
    for path, value in flatten(load_params(tmp_path / "whole" / "checkpoints" / "4")).items():
        np.testing.assert_allclose(value, flatten(exported.params)[path], rtol=1e-6, atol=1e-7)
    assert np.abs(expected - np.asarray(forward(CONFIG, load_params(base), one))).max() > 1e-3
    checkpoints = Checkpoints(tmp_path / "whole", read_only=True)
    assert {p.rsplit("/", 1)[1] for p in flatten(checkpoints.trainable(4))} == {"lora_a", "lora_b"}
    checkpoints.close()
    run(tmp_path / "parts", base, 2)
    for path, value in flatten(run(tmp_path / "parts", base)).items():
        np.testing.assert_array_equal(value, tuned[path], err_msg=path)


def test_mistakes_are_named(base):
    with pytest.raises(UserError, match="Lora.rank = 0"):
        Lora(rank=0)
    with pytest.raises(UserError, match="not a regular expression"):
        Lora(kernels="(")
    with pytest.raises(UserError, match="matches no kernel; they are named like decoder/layers_0"):
        Lora(kernels=".*/q").attach(numpy_params(CONFIG))
    with pytest.raises(UserError, match="matches no parameter"):
        run(None, base, lora=None)
    assert dataclasses.replace(Lora(), rank=4).kernels == (".*/(query|value)",)
