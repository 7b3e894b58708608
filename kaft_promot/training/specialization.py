"""Two cheap signs of forgetting that need no decoding, for any parameters and during training.

Gradient alignment (Wang et al., ICLR 2024, arXiv 2211.00635, section 2): the gradient on shuffled
targets holds only what the targets' format teaches. While its cosine with the true gradient is near
1, training teaches the format; in the paper it falls to about 0.2 after 400 steps. The divergence
from the base model on the target's inputs says how far the outputs have moved.

    hook = specialization_hook(config, base_params, batch, period=100)
    train(..., hooks=[hook])        # rows get specialization/kl, specialization/alignment_mlp, ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models import Params, T5Config, flatten, unflatten, unrolled
from kaft_promot.training.loop import Hook
from kaft_promot.training.losses import weights_and_normalizer
from kaft_promot.training.state import model_features
from kaft_promot.training.step import forward, loss_sums

# Parts of the last decoder layer whose gradients are compared, by the beginnings of their paths.
_PARTS = {
    "mlp": "mlp/",
    "query": "self_attention/query/",
    "key": "self_attention/key/",
    "value": "self_attention/value/",
}


def gradient_alignment(
    config: T5Config, params: Params, batch: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, float]:
    """Cosine of the gradients on true and on shuffled targets, for parts of the last decoder layer.

    Args:
      config: the network.
      params: all of its parameters.
      batch: an unpacked batch of the target task.
      seed: of the shuffling, in which every row gets another row's target.

    Returns:
      `mlp`, `query`, `key`, `value` (of self-attention), each from -1 to 1.

    Raises:
      UserError: for a packed batch, or one of a single row.
    """
    features = model_features(batch)
    rows = len(features["decoder_target_tokens"])
    if "decoder_segment_ids" in features or rows < 2:
        raise UserError(
            "gradient alignment needs an unpacked batch of at least 2 rows: set "
            "DatasetConfig.pack = False"
        )
    order = np.random.default_rng(seed).permutation(rows)
    source = np.empty(rows, np.int64)
    source[order] = np.roll(order, 1)
    shuffled = {
        name: value[source] if name.startswith("decoder_") else value
        for name, value in features.items()
    }
    config, params = unrolled(config, params)
    gradients = _last_layer_gradients(config)
    true, other = (gradients(params, x) for x in (features, shuffled))
    found = {}
    for part, start in _PARTS.items():
        a, b = (
            np.concatenate([np.ravel(x) for path, x in g.items() if path.startswith(start)])
            for g in (true, other)
        )
        found[part] = float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30))
    return found


def kl_from_base(
    config: T5Config, params: Params, base_params: Params, batch: Mapping[str, np.ndarray]
) -> float:
    """KL(base || tuned) of the next token, in nats, mean over the batch's target tokens."""
    features = model_features(batch)
    return float(_divergence(config)(params, base_params, features))


def specialization_hook(
    config: T5Config,
    base_params: Params,
    batch: Mapping[str, np.ndarray],
    period: int,
    seed: int = 0,
) -> Hook:
    """Both signs as a measurement during training.

    Args:
      config: the network of the run, its soft prompts included.
      base_params: parameters to compare with; of the same configuration.
      batch: an unpacked batch of the target task, with its soft prompt's placeholders.
      period: steps between measurements.
      seed: of the shuffling.
    """

    def measure(step: int, params: Params) -> dict[str, float]:
        aligned = gradient_alignment(config, params, batch, seed)
        found = {f"specialization/alignment_{part}": value for part, value in aligned.items()}
        return {"specialization/kl": kl_from_base(config, params, base_params, batch), **found}

    return Hook(function=measure, period=period)


@functools.lru_cache(maxsize=8)
def _last_layer_gradients(config: T5Config) -> Callable[[Params, Any], dict[str, jax.Array]]:
    layer = f"decoder/layers_{config.num_decoder_layers - 1}/"

    @jax.jit
    def gradients(params: Params, batch: Any) -> dict[str, jax.Array]:
        flat = flatten(params)

        def loss(chosen: dict[str, jax.Array]) -> jax.Array:
            weights, _ = weights_and_normalizer(batch, None)
            logits = forward(config, unflatten({**flat, **chosen}), batch)
            return loss_sums(logits, {**batch, "decoder_loss_weights": weights}, 0.0, 0.0)["loss"]

        chosen = {path: value for path, value in flat.items() if path.startswith(layer)}
        return {path.removeprefix(layer): x for path, x in jax.grad(loss)(chosen).items()}

    return gradients


@functools.lru_cache(maxsize=8)
def _divergence(config: T5Config) -> Callable[[Params, Params, Any], jax.Array]:
    @jax.jit
    def divergence(params: Params, base_params: Params, batch: Any) -> jax.Array:
        weights, _ = weights_and_normalizer(batch, None)
        base, tuned = (jax.nn.log_softmax(forward(config, p, batch)) for p in (base_params, params))
        kl_BxT = jnp.sum(jnp.exp(base) * (base - tuned), axis=-1)
        return jnp.sum(kl_BxT * weights) / jnp.maximum(jnp.sum(weights), 1e-6)

    return divergence
