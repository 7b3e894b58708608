"""Gradient alignment and divergence from the base model."""

import dataclasses

import jax
import numpy as np
import pytest
from training_tiny import CONFIG, batch, batches, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.feeding import DatasetConfig, PromptIds, train_iterator
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.saved import write_tokens
from kaft_promot.feeding.token_store import TokenStore
from kaft_promot.interop import LoraWeights, load_params, write_lora, write_native
from kaft_promot.models import flatten, stack_layers
from kaft_promot.training import (
    MODEL,
    PROMPT,
    AdamW,
    Lora,
    SoftPrompts,
    Specialization,
    gradient_alignment,
    kl_from_base,
    read_metrics,
    train,
)
from kaft_promot.training.specialization import unpacked
from kaft_promot.training.step import forward


@pytest.fixture(scope="module")
def params():
    return numpy_params(CONFIG)


def test_equal_targets_align_wholly_and_others_less(params):
    one = batch(rows=8)
    same = {**one}
    for name in one:
        if name.startswith("decoder_"):
            same[name] = np.repeat(one[name][:1], 8, axis=0)
    whole = gradient_alignment(CONFIG, params, same)
    assert set(whole) == {"mlp", "query", "key", "value"}
    assert all(value == pytest.approx(1.0, abs=1e-4) for value in whole.values())
    mixed = gradient_alignment(CONFIG, params, one)
    assert all(-1 <= value < 0.999 for value in mixed.values())
    assert mixed == gradient_alignment(CONFIG, params, one)
    assert mixed != gradient_alignment(CONFIG, params, one, seed=1)


def test_it_is_the_cosine_of_whole_gradients(params):
    """Two rows: the shuffle swaps their targets. Against plain gradients of all parameters."""
    one = batch(rows=2)
    swapped = {k: v[::-1] if k.startswith("decoder_") else v for k, v in one.items()}

    def loss(params, batch):
        logits = jax.nn.log_softmax(forward(CONFIG, params, batch))
        picked = jax.nn.one_hot(batch["decoder_target_tokens"], CONFIG.vocab_size) * logits
        return -(picked.sum(-1) * batch["decoder_loss_weights"]).sum()

    gradients = jax.jit(jax.grad(loss))
    grads = [
        gradients(params, b)["decoder"]["layers_0"]["self_attention"]["value"]["kernel"]
        for b in (one, swapped)
    ]
    a, b = (np.ravel(g) for g in grads)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert gradient_alignment(CONFIG, params, one)["value"] == pytest.approx(expected, abs=1e-4)


def test_divergence_is_that_of_the_definition(params):
    one, other = batch(), numpy_params(CONFIG, seed=1)
    assert kl_from_base(CONFIG, params, params, one) == pytest.approx(0.0, abs=1e-6)
    p, q = (np.asarray(jax.nn.softmax(forward(CONFIG, x, one))) for x in (params, other))
    expected = (p * np.log(p / q)).sum(-1)[one["decoder_loss_weights"] > 0].mean()
    assert kl_from_base(CONFIG, other, params, one) == pytest.approx(expected, rel=1e-3)


def measured(model_dir, **arguments):
    """The rows of a run's metrics that hold signs of specialization."""
    arguments = {
        "model_config": CONFIG,
        "train_dataset_cfg": batches,
        "optimizer": AdamW(learning_rate=0.05),
        "specialization": Specialization(period=2, batch_size=4),
        "tensorboard": False,
        "progress": False,
        **arguments,
    }
    train(model_dir=model_dir, total_steps=4, **arguments)
    rows = read_metrics(model_dir / "metrics.jsonl")
    return [row for row in rows if "specialization/kl" in row]


def test_a_run_writes_both_every_n_steps_and_trains_as_without(params, tmp_path):
    shares = []

    def output_share(config, tuned):
        shares.append((config, flatten(tuned).keys()))
        return {"output_share": 0.25 * len(shares)}

    signs = Specialization(period=2, batch_size=4, output_share=output_share)
    rows = measured(tmp_path / "a", initial_params=params, specialization=signs)
    assert [row["step"] for row in rows] == [2, 4]
    assert 0 < rows[0]["specialization/kl"] < rows[1]["specialization/kl"]
    assert all(-1 <= row["specialization/alignment_mlp"] <= 1 for row in rows)
    assert [row["specialization/output_share"] for row in rows] == [0.25, 0.5]
    assert shares == [(CONFIG, flatten(params).keys())] * 2
    # Nothing is attached, so nothing is detached.
    assert "specialization/kl_detached" not in rows[0]
    # The figures are those of the functions, and the first batch is trained on all the same.
    after = load_params(tmp_path / "a")
    kl = kl_from_base(CONFIG, after, params, batch(seed=0))
    assert rows[1]["specialization/kl"] == pytest.approx(kl, rel=1e-3)
    assert not measured(tmp_path / "b", initial_params=params, specialization=Specialization())
    for path, value in flatten(load_params(tmp_path / "b")).items():
        np.testing.assert_array_equal(flatten(after)[path], value, err_msg=path)


def test_the_model_that_others_meet_is_measured_apart(params, tmp_path):
    """Under a prompt that alone is trained the model without it does not move."""
    write_native(tmp_path / "base", params, CONFIG)
    rng = np.random.default_rng(0)
    examples = [
        {"inputs": [*rng.integers(3, 32, n), 1], "targets": [*rng.integers(3, 32, 2), 1]}
        for n in rng.integers(2, 8, 20)
    ]
    dataset = DatasetConfig(
        mixture_or_task_name="saved",
        task_feature_lengths={"inputs": 30, "targets": 12},
        batch_size=4,
        saved=str(tmp_path / "saved"),
        pack=True,
        prefetch=2,
    )
    source = Source(name="saved", rate=1.0, store=TokenStore.from_examples(examples))
    write_tokens([source], dataset, tmp_path / "saved")
    arguments = {
        "model_config": None,
        "initial_checkpoint_path": str(tmp_path / "base"),
        "train_dataset_cfg": dataset,
        "prompts": SoftPrompts(length=3),
        "specialization": Specialization(period=4),
    }
    (row,) = measured(tmp_path / "stage1", stage=PROMPT, **arguments)
    assert row["specialization/kl"] > 1e-3
    assert row["specialization/kl_detached"] == pytest.approx(0.0, abs=1e-6)
    # A model that is tuned: against the exported one, on the same examples without placeholders.
    rows = unpacked(next(train_iterator(dataset)), 32)
    assert len(rows["encoder_input_tokens"]) > 4
    prompted = train_iterator(
        dataclasses.replace(dataset, prompts=PromptIds(first_id=CONFIG.vocab_size, length=3))
    )
    bare = unpacked(next(prompted), 32)
    without = [[t for t in row if t < CONFIG.vocab_size] for row in bare["encoder_input_tokens"]]
    bare["encoder_input_tokens"] = np.array(without, np.int32)
    (row,) = measured(tmp_path / "stage2", stage=MODEL, **arguments)
    found = kl_from_base(CONFIG, load_params(tmp_path / "stage2"), params, bare)
    assert row["specialization/kl_detached"] == pytest.approx(found, rel=1e-3)
    assert row["specialization/kl"] != pytest.approx(found, rel=1e-3)
    # The same with frozen LoRA.
    shape = {"encoder/layers_0/mlp/wo/lora_a": (16, 2), "encoder/layers_0/mlp/wo/lora_b": (2, 8)}
    lora = LoraWeights(
        additions={path: rng.normal(size=s).astype(np.float32) for path, s in shape.items()}
    )
    write_lora(tmp_path / "lora.safetensors", lora)
    under = Lora(path=str(tmp_path / "lora.safetensors"))
    arguments |= {"prompts": None, "lora": under}
    (row,) = measured(tmp_path / "under", stage=MODEL, **arguments)
    found = kl_from_base(CONFIG, load_params(tmp_path / "under"), params, rows)
    assert row["specialization/kl_detached"] == pytest.approx(found, rel=1e-3)
    assert row["specialization/kl"] != pytest.approx(found, rel=1e-3)


def test_settings_that_make_no_sense_are_refused(params, tmp_path):
    for settings, message in (
        ({"period": -1}, "period = -1"),
        ({"period": 1, "batch_size": 1}, "batch_size = 1"),
        ({"seed": -1}, "seed = -1"),
        ({"output_share": len}, "add --gin.SPECIALIZATION_PERIOD"),
    ):
        with pytest.raises(UserError, match=message):
            Specialization(**settings)
    with pytest.raises(UserError, match="at least 2 examples"):
        measured(tmp_path / "a", initial_params=params, train_dataset_cfg=lambda: batches(rows=1))
    assert not (tmp_path / "a").exists()


def test_packed_or_single_batches_are_refused(params):
    packed = batch() | {
        "encoder_segment_ids": np.ones((4, 8)),
        "decoder_segment_ids": np.ones((4, 5)),
    }
    for bad in (packed, batch(rows=1)):
        with pytest.raises(UserError, match="unpacked batch of at least 2 rows"):
            gradient_alignment(CONFIG, params, bad)


def test_scanned_layers_align_as_unrolled_ones(params):
    scanned = dataclasses.replace(CONFIG, scan_layers=True)
    found = gradient_alignment(scanned, stack_layers(params), batch())
    assert found == pytest.approx(gradient_alignment(CONFIG, params, batch()), abs=1e-6)
