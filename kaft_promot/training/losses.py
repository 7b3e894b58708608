"""Cross entropy with label smoothing and z-loss, in T5X's conventions.

The loss is a sum over target tokens (T5 was trained so; Adafactor does not mind the scale), divided
by a normalizing factor if one is given. B batch, T target length, V vocabulary.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from kaft_promot.errors import UserError

NORMALIZING_FACTORS = ("NUM_REAL_TARGET_TOKENS", "NUM_TOTAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def smoothed_cross_entropy(
    logits_BxTxV: jax.Array, targets_BxT: jax.Array, label_smoothing: float, z_loss: float
) -> tuple[jax.Array, jax.Array]:
    """Cross entropy of every token against smoothed one-hot targets, and its z-loss part.

    The smoothed target gives `1 - label_smoothing` to the target and spreads the rest evenly over
    the other V - 1 tokens; the entropy of that distribution is subtracted, so that 0 stays the
    least possible value. The z-loss `z_loss * log(Z)^2` keeps logits from drifting.

    Args:
      logits_BxTxV: float32.
      targets_BxT: int32.
      label_smoothing: in [0, 1).
      z_loss: coefficient, T5X uses 1e-4.

    Returns:
      Two float32 arrays `[B, T]` in nats: the whole loss (z-loss included), and the z-loss.
      Gradients flow through the first only.
    """
    return _cross_entropy_forward(logits_BxTxV, targets_BxT, label_smoothing, z_loss)[0]


def _shares(label_smoothing: float, vocab_size: int) -> tuple[float, float]:
    """Probabilities of the target and of each other token in the smoothed target."""
    return 1.0 - label_smoothing, label_smoothing / (vocab_size - 1)


def _cross_entropy_forward(logits, targets, label_smoothing, z_loss):
    vocab_size = logits.shape[-1]
    on, off = _shares(label_smoothing, vocab_size)
    entropy = -(on * math.log(on) + (vocab_size - 1) * off * math.log(off + 1e-20))
    log_z = jax.nn.logsumexp(logits, axis=-1)
    target_logit = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    # sum_v p_v (log Z - logit_v) with p = off everywhere but at the target, sum p = 1.
    loss = log_z - (on - off) * target_logit - entropy
    if label_smoothing:
        loss = loss - off * jnp.sum(logits, axis=-1)
    z_part = z_loss * jnp.square(log_z)
    return (loss + z_part, z_part), (logits, targets, log_z)


def _cross_entropy_backward(label_smoothing, z_loss, residuals, cotangents):
    # Written out so that the softmax is recomputed in one fused pass instead of being kept.
    logits, targets, log_z = residuals
    on, off = _shares(label_smoothing, logits.shape[-1])
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]
    softmax = jnp.exp(logits - log_z[..., None])
    wanted = jnp.where(is_target, on, off).astype(logits.dtype)
    slope = (1.0 + 2.0 * z_loss * log_z)[..., None]
    return cotangents[0][..., None] * (slope * softmax - wanted), None


smoothed_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def check_normalizing_factor(factor: float | str | None) -> None:
    """Raises UserError unless `factor` is None, a positive number or a known name."""
    if isinstance(factor, str) and factor.upper() not in NORMALIZING_FACTORS:
        raise UserError(
            f"loss_normalizing_factor = {factor!r}: give a number, None or one of "
            f"{', '.join(NORMALIZING_FACTORS)}"
        )
    if isinstance(factor, (int, float)) and not factor > 0:
        raise UserError(f"loss_normalizing_factor = {factor}: must be above 0")


def weights_and_normalizer(
    batch: Mapping[str, jax.Array], factor: float | str | None
) -> tuple[jax.Array, jax.Array | float]:
    """Every target token's weight `[B, T]` (float32) and what the summed loss is divided by.

    Args:
      batch: features; `decoder_loss_weights` or else `decoder_target_tokens > 0` give the weights.
      factor: None (divide by 1), a number, `'NUM_REAL_TARGET_TOKENS'` (the sum of the weights),
        `'NUM_TOTAL_TARGET_TOKENS'` (padding too) or `'AVERAGE_PER_SEQUENCE'` (each example's mean,
        then their mean; examples of a packed row count apart).
    """
    targets = batch["decoder_target_tokens"]
    weights = batch.get("decoder_loss_weights", targets > 0).astype(jnp.float32)
    if factor is None:
        return weights, 1.0
    if not isinstance(factor, str):
        return weights, float(factor)
    factor = factor.upper()
    if factor == "NUM_REAL_TARGET_TOKENS":
        return weights, jnp.maximum(jnp.sum(weights), 1e-6)
    if factor == "NUM_TOTAL_TARGET_TOKENS":
        return weights, float(targets.size)
    segments = batch.get("decoder_segment_ids")
    if segments is None:
        totals = jnp.sum(weights, axis=-1, keepdims=True)
    else:
        same_BxTxT = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]
        totals = jnp.einsum("btu,bu->bt", same_BxTxT.astype(jnp.float32), weights)
    weights = jnp.where(totals > 0, weights / jnp.where(totals > 0, totals, 1.0), 0.0)
    return weights, jnp.maximum(jnp.sum(weights), 1e-6)
