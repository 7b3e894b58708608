"""Gradient alignment and divergence from the base model."""

import dataclasses

import jax
import numpy as np
import pytest
from training_tiny import CONFIG, batch, batches, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.models import stack_layers
from kaft_promot.training import AdamW, read_metrics, train
from kaft_promot.training.specialization import (
    gradient_alignment,
    kl_from_base,
    specialization_hook,
)
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


def test_a_run_writes_both_every_n_steps(params, tmp_path):
    train(
        model_config=CONFIG,
        initial_params=params,
        train_dataset_cfg=batches,
        model_dir=tmp_path,
        total_steps=4,
        optimizer=AdamW(learning_rate=0.05),
        hooks=[specialization_hook(CONFIG, params, batch(seed=99), period=2)],
        tensorboard=False,
        progress=False,
    )
    rows = [r for r in read_metrics(tmp_path / "metrics.jsonl") if "specialization/kl" in r]
    assert [row["step"] for row in rows] == [2, 4]
    assert 0 < rows[0]["specialization/kl"] < rows[1]["specialization/kl"]
    assert all(-1 <= row["specialization/alignment_mlp"] <= 1 for row in rows)


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
