"""The training step: one pure function under one `jax.jit`.

`make_train_step` reads top to bottom: forward, loss, gradients of the trainable parameters only,
accumulation over microbatches, clipping, optimizer, metrics. Equal arguments give the same compiled
function, so several runs in one process (the arms of a comparison) compile once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from kaft_promot.errors import UserError
from kaft_promot.models import Params, T5Config, Transformer, logical_axes
from kaft_promot.training.compiled import TrainStep
from kaft_promot.training.losses import (
    check_normalizing_factor,
    smoothed_cross_entropy,
    weights_and_normalizer,
)
from kaft_promot.training.optimizers import Optimizer, check_clipping, learning_rate_at
from kaft_promot.training.stages import merge
from kaft_promot.training.state import TrainState, model_features

Batch = Mapping[str, jax.Array]


@functools.lru_cache(maxsize=32)
def make_train_step(
    config: T5Config,
    optimizer: Optimizer,
    label_smoothing: float = 0.0,
    z_loss: float = 1e-4,
    loss_normalizing_factor: float | str | None = None,
    num_microbatches: int = 1,
    global_norm_clip_threshold: float | None = None,
) -> TrainStep:
    """A compiled `step(state, batch) -> (state, metrics)`; it takes over the state's memory.

    Which parameters are trained is in the state (`init_state`), not here.

    Args:
      config: the network.
      optimizer: see `optimizers`.
      label_smoothing: share of a target's probability spread over the other tokens.
      z_loss: coefficient of log(Z)^2, at least 0.
      loss_normalizing_factor: see `losses.weights_and_normalizer`.
      num_microbatches: parts that a batch is computed in, one after the other, to save memory; the
        result is that of the whole batch.
      global_norm_clip_threshold: largest norm of all gradients together, above 0 (None: no
        clipping).

    Returns:
      The step. Metrics are float32 scalars: `loss` (nats per real target token, z-loss and
      smoothing included), `z_loss`, `accuracy` (of tokens under teacher forcing), `tokens` (real
      targets), `learning_rate`, `gradient_norm` (before clipping).

    Raises:
      UserError: for a value that makes no sense.
    """
    check_normalizing_factor(loss_normalizing_factor)
    if not 0.0 <= label_smoothing < 1.0:
        raise UserError(f"label_smoothing = {label_smoothing}: must be in [0, 1)")
    if not z_loss >= 0.0:
        raise UserError(f"z_loss = {z_loss}: must be at least 0, which is none")
    if global_norm_clip_threshold is not None:
        check_clipping("global_norm_clip_threshold", global_norm_clip_threshold)
    if num_microbatches < 1:
        raise UserError(f"num_microbatches = {num_microbatches}: must be at least 1")

    def loss_fn(
        trainable: Params, frozen: Params, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = forward(config, merge(trainable, frozen), batch, dropout_key=key)
        sums = loss_sums(logits, batch, label_smoothing, z_loss)
        return sums["loss"] / batch["normalizer"], sums

    def train_step(
        state: TrainState, frozen: Params, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        weights, normalizer = weights_and_normalizer(batch, loss_normalizing_factor)
        batch = {**batch, "decoder_loss_weights": weights}
        key = jax.random.fold_in(state.key, state.step)

        def gradients(part: Batch, index: jax.Array | int) -> tuple[Params, Any]:
            part = {**part, "normalizer": normalizer}
            grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
            (_, sums), grads = grad_fn(
                state.trainable, frozen, part, jax.random.fold_in(key, index)
            )
            return grads, sums

        if num_microbatches == 1:
            grads, sums = gradients(batch, 0)
        else:
            grads, sums = _accumulate(gradients, batch, num_microbatches)

        gradient_norm = optax.global_norm(grads)
        if global_norm_clip_threshold is not None:
            shrink = jnp.minimum(1.0, global_norm_clip_threshold / (gradient_norm + 1e-9))
            grads = jax.tree.map(lambda g: g * shrink, grads)

        transform = optimizer.make(logical_axes(state.trainable))
        updates, opt_state = transform.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)

        metrics = _per_token(sums) | {
            "learning_rate": learning_rate_at(optimizer, state.step),
            "gradient_norm": gradient_norm,
        }
        new = dataclasses.replace(
            state, step=state.step + 1, trainable=trainable, opt_state=opt_state
        )
        return new, metrics

    return TrainStep(train_step, num_microbatches)


def forward(
    config: T5Config, params: Params, batch: Batch, dropout_key: jax.Array | None = None
) -> jax.Array:
    """Float32 logits `[B, T, V]` of a batch; with a key and a dropout rate units are dropped."""
    drop = dropout_key is not None and config.dropout_rate > 0.0
    return Transformer(config).apply(
        {"params": params},
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        encoder_segment_ids=batch.get("encoder_segment_ids"),
        decoder_segment_ids=batch.get("decoder_segment_ids"),
        enable_dropout=drop,
        rngs={"dropout": dropout_key} if drop else None,
    )


def loss_sums(
    logits_BxTxV: jax.Array, batch: Batch, label_smoothing: float, z_loss: float
) -> dict[str, jax.Array]:
    """Weighted sums over target tokens: `loss`, `z_loss`, `correct`, `tokens` (float32 scalars)."""
    targets = batch["decoder_target_tokens"]
    weights = batch["decoder_loss_weights"]
    loss, z_part = smoothed_cross_entropy(logits_BxTxV, targets, label_smoothing, z_loss)
    # Right: no token is likelier. The maximum is at hand, an argmax is a pass of its own.
    target_logit = jnp.take_along_axis(logits_BxTxV, targets[..., None], axis=-1)[..., 0]
    correct = target_logit >= jnp.max(logits_BxTxV, axis=-1)
    return {
        "loss": jnp.sum(loss * weights),
        "z_loss": jnp.sum(z_part * weights),
        "correct": jnp.sum(correct * weights),
        "weights": jnp.sum(weights),
        "tokens": jnp.sum((weights > 0).astype(jnp.float32)),
    }


def _per_token(sums: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    weights = jnp.maximum(sums["weights"], 1e-6)
    return {
        "loss": sums["loss"] / weights,
        "z_loss": sums["z_loss"] / weights,
        "accuracy": sums["correct"] / weights,
        "tokens": sums["tokens"],
    }


def _accumulate(gradients: Callable[..., Any], batch: Batch, parts: int) -> Any:
    """Sums what `gradients(part, index)` returns over the parts of a batch, one at a time.

    Row i belongs to part i % parts: then each part has as many rows of every device.
    """
    split = jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    first = jax.tree.map(lambda x: x[0], split)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradients, first, 0))

    def add(total: Any, part_and_index: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients(*part_and_index)), None

    total, _ = jax.lax.scan(add, zeros, (split, jnp.arange(parts)))
    return total


@functools.lru_cache(maxsize=32)
def make_eval_step(config: T5Config) -> Callable[[Params, Batch], dict[str, jax.Array]]:
    """A compiled `step(params, batch)` that gives the sums of `loss_sums` without smoothing."""

    @jax.jit
    def eval_step(params: Params, batch: Batch) -> dict[str, jax.Array]:
        weights, _ = weights_and_normalizer(batch, None)
        batch = {**batch, "decoder_loss_weights": weights}
        return loss_sums(forward(config, params, batch), batch, 0.0, 0.0)

    return lambda params, batch: eval_step(params, model_features(batch))
