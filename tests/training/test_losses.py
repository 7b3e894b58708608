"""The loss against its formula in numpy, and against losses that T5X computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from kaft_promot.errors import UserError
from kaft_promot.training.losses import (
    check_normalizing_factor,
    smoothed_cross_entropy,
    weights_and_normalizer,
)
from kaft_promot.training.step import forward, loss_sums


def expected_loss(logits, targets, smoothing, z_loss):
    """T5X's formula, written with the whole smoothed distribution."""
    vocab = logits.shape[-1]
    on, off = 1.0 - smoothing, smoothing / (vocab - 1)
    wanted = np.where(np.eye(vocab)[targets] > 0, on, off)
    entropy = -(on * np.log(on) + (vocab - 1) * off * np.log(off + 1e-20))
    z = z_loss * logsumexp(logits, axis=-1) ** 2
    return -(wanted * log_softmax(logits, axis=-1)).sum(-1) - entropy + z, z


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.1])
def test_loss_and_gradient_equal_the_formula(smoothing, z_loss):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 3, 7))
    targets = rng.integers(0, 7, (2, 3))
    loss, z = smoothed_cross_entropy(jnp.float32(logits), jnp.int32(targets), smoothing, z_loss)
    want_loss, want_z = expected_loss(logits, targets, smoothing, z_loss)
    np.testing.assert_allclose(loss, want_loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(z, want_z, rtol=1e-5)

    weights = rng.normal(size=(2, 3))
    grad = jax.grad(
        lambda x: jnp.sum(
            smoothed_cross_entropy(x, jnp.int32(targets), smoothing, z_loss)[0] * weights
        )
    )(jnp.float32(logits))
    step = 1e-5
    for index in [(0, 0, 0), (1, 2, targets[1, 2]), (0, 1, 5)]:
        up, down = logits.copy(), logits.copy()
        up[index] += step
        down[index] -= step
        slope = sum(
            sign * (expected_loss(x, targets, smoothing, z_loss)[0] * weights).sum()
            for sign, x in ((1, up), (-1, down))
        ) / (2 * step)
        assert grad[index] == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_smoothed_loss_of_the_smoothed_distribution_is_zero():
    vocab, smoothing = 11, 0.1
    p = np.full((1, 1, vocab), smoothing / (vocab - 1))
    p[0, 0, 4] = 1 - smoothing
    loss, _ = smoothed_cross_entropy(jnp.float32(np.log(p)), jnp.int32([[4]]), smoothing, 0.0)
    assert abs(float(loss[0, 0])) < 1e-6


def test_normalizing_factors():
    targets = np.array([[5, 6, 1, 0], [7, 0, 0, 0]])
    batch = {"decoder_target_tokens": jnp.int32(targets)}
    weights, factor = weights_and_normalizer(batch, None)
    np.testing.assert_array_equal(weights, targets > 0)
    assert factor == 1.0
    assert weights_and_normalizer(batch, 128)[1] == 128.0
    assert float(weights_and_normalizer(batch, "NUM_REAL_TARGET_TOKENS")[1]) == 4.0
    assert float(weights_and_normalizer(batch, "num_total_target_tokens")[1]) == 8.0
    weights, factor = weights_and_normalizer(batch, "AVERAGE_PER_SEQUENCE")
    np.testing.assert_allclose(weights, [[1 / 3, 1 / 3, 1 / 3, 0], [1, 0, 0, 0]], rtol=1e-6)
    assert float(factor) == pytest.approx(2.0)


def test_average_per_sequence_counts_packed_examples_apart():
    batch = {
        "decoder_target_tokens": jnp.int32([[5, 1, 8, 9, 1, 0]]),
        "decoder_segment_ids": jnp.int32([[1, 1, 2, 2, 2, 0]]),
        "decoder_loss_weights": jnp.float32([[1, 1, 1, 1, 1, 0]]),
    }
    weights, factor = weights_and_normalizer(batch, "AVERAGE_PER_SEQUENCE")
    np.testing.assert_allclose(weights, [[1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 0]], rtol=1e-6)
    assert float(factor) == pytest.approx(2.0)


def test_unknown_normalizing_factor_is_a_user_error():
    with pytest.raises(UserError, match="NUM_REAL_TARGET_TOKENS"):
        check_normalizing_factor("TOKENS")
    with pytest.raises(UserError, match="above 0"):
        check_normalizing_factor(0)


@pytest.mark.parametrize("name", ["copy_orbax_1320", "copy_legacy_20"])
def test_losses_equal_those_that_t5x_computed(shared_dir, name):
    from kaft_promot import interop

    folder = shared_dir / "checkpoints" / "t5x"
    with np.load(folder / f"{name}.npz") as file:
        known = dict(file)
    model = interop.load_model(folder / name)
    targets = known["decoder_target_tokens"]
    batch = {
        "encoder_input_tokens": known["encoder_input_tokens"],
        "decoder_target_tokens": targets,
        "decoder_input_tokens": np.pad(targets, [(0, 0), (1, 0)])[:, :-1],
        "decoder_loss_weights": (targets > 0).astype(np.float32),
    }
    config = dataclasses.replace(model.config, dropout_rate=0.0)
    logits = jax.jit(lambda p, b: forward(config, p, b))(model.params, batch)
    for smoothing, want in ((0.0, "loss_sum"), (0.1, "loss_sum_label_smoothing_0p1")):
        sums = loss_sums(logits, batch, smoothing, 1e-4)
        assert float(sums["loss"]) == pytest.approx(float(known[want]), rel=1e-4)
        assert float(sums["z_loss"]) == pytest.approx(float(known["z_loss_sum"]), rel=1e-4)
        assert float(sums["weights"]) == float(known["weight_sum"])
