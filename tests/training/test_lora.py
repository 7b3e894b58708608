"""LoRA: low-rank additions that train alone and leave an ordinary network."""

import dataclasses

import jax
import numpy as np
import pytest
from training_tiny import CONFIG, batch, batches, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.interop import (
    LoraWeights,
    load_model,
    load_params,
    read_lora,
    write_lora,
    write_native,
)
from kaft_promot.interop.lora import attach_lora
from kaft_promot.models import flatten, logical_axes, stack_layers, unstack_layers
from kaft_promot.training import (
    FULL,
    LORA,
    MODEL,
    AdamW,
    CheckpointConfig,
    Checkpoints,
    Lora,
    Stage,
    merge_lora,
    partition,
    train,
)
from kaft_promot.training.start import load_start
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
        tensorboard=False,
        progress=False,
        **{"lora": Lora(rank=2), "stage": LORA, **arguments},
    )


def attached(lora, params):
    """Parameters with the additions of a `Lora` beside them."""
    return lora.attach(dataclasses.replace(load_start(CONFIG, None, None, 0), params=params)).params


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "base"
    write_native(folder, numpy_params(CONFIG), CONFIG)
    return folder


def test_additions_change_nothing_at_first_and_are_the_stage_alone():
    params = numpy_params(CONFIG)
    both = attached(Lora(rank=2), params)
    trainable, frozen = partition(both, LORA)
    assert flatten(frozen).keys() == flatten(params).keys()
    assert len(flatten(trainable)) == 2 * len(CHANGED)
    axes = flatten(logical_axes(both))
    assert axes["encoder/layers_0/attention/query/lora_a"] == ("embed", "lora_rank")
    assert axes["encoder/layers_0/attention/query/lora_b"] == ("lora_rank", "joined_kv")
    for path, value in flatten(merge_lora(both)).items():
        np.testing.assert_array_equal(value, flatten(params)[path])


def test_merging_adds_the_product_also_to_stacked_layers():
    params = numpy_params(CONFIG)
    both = flatten(attached(Lora(rank=3, kernels=".*/mlp/wo"), stack_layers(params)))
    name = "decoder/layers/mlp/wo"
    both[f"{name}/lora_b"] = np.ones_like(both[f"{name}/lora_b"])
    merged = flatten(unstack_layers(merge_lora(both)))
    added = both[f"{name}/lora_a"][0] @ both[f"{name}/lora_b"][0]
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
        attached(Lora(kernels=".*/q"), numpy_params(CONFIG))
    with pytest.raises(UserError, match="matches no parameter"):
        run(None, base, lora=None)
    with pytest.raises(UserError, match="leave it out with Lora.path"):
        Lora(path="runs/lora", kernels=".*")
    with pytest.raises(UserError, match="trains .*lora_b and not .*lora_a"):
        run(None, base, stage=Stage(trainable=".*/lora_b"))


@pytest.fixture(scope="module")
def stage_1(base, tmp_path_factory):
    """A folder where a run has tuned LoRA of rank 2."""
    folder = tmp_path_factory.mktemp("stage_1") / "run"
    run(folder, base)
    return folder


def stage_2(model_dir, base, stage_1, total_steps=4, **arguments):
    lora = Lora(path=str(stage_1))
    return run(model_dir, base, total_steps, stage=MODEL, lora=lora, **arguments)


def test_a_run_keeps_what_it_tuned_in_a_file_of_its_own(base, stage_1):
    lora = read_lora(stage_1)
    assert (lora.rank, lora.merged, lora.base_checkpoint) == (2, True, str(base))
    assert {f"{name}/kernel" for name in lora.kernels} == CHANGED
    merged = flatten(merge_lora(attach_lora(lora, load_params(base))))
    exported = flatten(load_params(stage_1))
    for path, value in merged.items():
        np.testing.assert_allclose(value, exported[path], rtol=1e-6, atol=1e-7, err_msg=path)
    # Earlier steps have theirs.
    assert read_lora(stage_1 / "checkpoints" / "4").digest == lora.digest
    assert read_lora(stage_1 / "checkpoints" / "2").digest != lora.digest
    assert read_lora(stage_1 / "checkpoints" / "2").base_checkpoint == str(base)


def test_the_model_is_tuned_under_frozen_additions(base, stage_1, tmp_path):
    """The arm lora_then_model."""
    trained = flatten(stage_2(tmp_path / "whole", base, stage_1))
    before, first = flatten(load_params(base)), read_lora(stage_1)
    model, kept = load_model(tmp_path / "whole"), read_lora(tmp_path / "whole")
    assert (kept.digest, kept.merged, kept.base_checkpoint) == (first.digest, False, str(base))
    # The model is written without them, and all of it has changed.
    exported = flatten(model.params)
    assert model.config == CONFIG and exported.keys() == before.keys()
    assert all(np.abs(exported[path] - before[path]).max() > 0 for path in before)
    # With them it is the network that was trained.
    one = batch(seed=9)
    logits = [
        np.asarray(forward(CONFIG, params, one))
        for params in (merge_lora(trained), merge_lora(attach_lora(kept, model.params)))
    ]
    np.testing.assert_allclose(logits[0], logits[1], rtol=0, atol=1e-5)
    assert np.abs(logits[0] - np.asarray(forward(CONFIG, model.params, one))).max() > 1e-3
    # So are its checkpoints, and a run that was stopped goes on to the same end.
    last = flatten(load_params(tmp_path / "whole" / "checkpoints" / "4"))
    for path, value in exported.items():
        np.testing.assert_array_equal(last[path], value, err_msg=path)
    stage_2(tmp_path / "parts", base, stage_1, 2)
    assert read_lora(tmp_path / "parts" / "checkpoints" / "2").digest == first.digest
    for path, value in flatten(stage_2(tmp_path / "parts", base, stage_1)).items():
        np.testing.assert_array_equal(value, trained[path], err_msg=path)
    with pytest.raises(UserError, match="parts was started with other LoRA additions"):
        stage_2(tmp_path / "parts", base, stage_1 / "checkpoints" / "2")


def test_runs_of_one_process_have_programs_of_their_own(base, stage_1):
    """With and without frozen additions the trained parameters have the same shapes."""
    for lora in (Lora(path=str(stage_1)), None, Lora(rank=3)):
        run(None, base, 1, stage=MODEL, lora=lora)


def test_tuning_goes_on_from_a_file(base, stage_1, tmp_path):
    """Additions and model together: the export is the merged network."""
    trained = flatten(run(tmp_path / "both", base, lora=Lora(path=str(stage_1)), stage=FULL))
    assert read_lora(tmp_path / "both").digest != read_lora(stage_1).digest
    assert read_lora(tmp_path / "both").merged
    for path, value in flatten(load_params(tmp_path / "both")).items():
        np.testing.assert_allclose(value, trained[path], rtol=1e-6, atol=1e-7, err_msg=path)


def test_additions_of_another_network_are_refused_before_training(base, stage_1, tmp_path):
    wide = dataclasses.replace(CONFIG, emb_dim=12)
    write_native(tmp_path / "wide", numpy_params(wide), wide)
    for folder, lora, message in (
        (
            tmp_path / "wide",
            Lora(path=str(stage_1)),
            r"attention/query \(8, 8\), which this one has",
        ),
        (stage_1, Lora(path=str(stage_1)), "has the additions of .* in it already"),
        (stage_1 / "checkpoints/2", Lora(path=str(stage_1)), "in it already"),
        (base, Lora(path=str(stage_1), rank=3), "Lora.rank = 3, but .* has rank 2"),
        (base, Lora(path=str(tmp_path / "gone")), "gone: no such LoRA"),
        (base, Lora(path=str(base)), "no LoRA in it"),
    ):
        with pytest.raises(UserError, match=message) as error:
            run(tmp_path / "bad", folder, lora=lora, stage=MODEL)
        ours, _, _ = str(error.value).partition("\n  In call to configurable")  # gin's addition
        assert "\n" not in ours
    assert not (tmp_path / "bad").exists()


def test_stacked_layers_take_what_unrolled_ones_gave(stage_1, tmp_path):
    params = numpy_params(CONFIG)
    lora = read_lora(stage_1)
    stacked = merge_lora(attach_lora(lora, stack_layers(params)))
    unrolled = flatten(merge_lora(attach_lora(lora, params)))
    for path, value in flatten(unstack_layers(stacked)).items():
        np.testing.assert_allclose(value, unrolled[path], rtol=1e-6, atol=1e-7, err_msg=path)
    two = dataclasses.replace(CONFIG, num_encoder_layers=2)
    with pytest.raises(UserError, match="encoder/layers/attention/query in 1 layers of 2"):
        attach_lora(lora, stack_layers(numpy_params(two)))


def test_damaged_files_are_named(stage_1, tmp_path):
    lora = read_lora(stage_1)
    half = {path: x for path, x in lora.additions.items() if not path.endswith("query/lora_b")}
    with pytest.raises(UserError, match="not \\[I, R\\] and \\[R, O\\]"):
        LoraWeights(additions=half)
    write_lora(tmp_path / "a.safetensors", lora)
    assert read_lora(tmp_path / "a.safetensors").digest == lora.digest
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-3])
    with pytest.raises(UserError, match="cut.safetensors: not a whole safetensors file"):
        read_lora(tmp_path / "cut.safetensors")
    with pytest.raises(UserError, match="model.safetensors: not a LoRA file"):
        read_lora(stage_1 / "model.safetensors")
