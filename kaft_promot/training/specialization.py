"""Signs of format specialization, for any parameters and during training.

Gradient alignment (Wang et al., ICLR 2024, arXiv 2211.00635, section 2): the gradient on shuffled
targets holds only what the targets' format teaches. While its cosine with the true gradient is near
1, training teaches the format; in the paper it falls to about 0.2 after 400 steps. The divergence
from the base model on the target's inputs says how far the outputs have moved. Neither needs
decoding. A third sign does: the share of outputs on other tasks that are in the target's format.

    train(..., specialization=Specialization(period=100))
    # rows get specialization/kl, specialization/alignment_mlp, ...
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import gin
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from kaft_promot.errors import UserError
from kaft_promot.models import (
    Params,
    T5Config,
    flatten,
    logical_axes,
    remove_prompts,
    unflatten,
    unrolled,
)
from kaft_promot.models.lora import merge_lora, subtract_lora
from kaft_promot.scale.mesh import param_shardings
from kaft_promot.training.feed import Batch
from kaft_promot.training.hooks import Hook
from kaft_promot.training.lora import frozen_lora
from kaft_promot.training.losses import weights_and_normalizer
from kaft_promot.training.stages import Stage
from kaft_promot.training.start import Start
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
    return {
        part: float(
            _cosine(*({p: g[p] for p in true if p.startswith(start)} for g in (true, other)))
        )
        for part, start in _PARTS.items()
    }


def kl_from_base(
    config: T5Config, params: Params, base_params: Params, batch: Mapping[str, np.ndarray]
) -> float:
    """KL(base || tuned) of the next token, in nats, mean over the batch's target tokens."""
    kl_BxT, weights_BxT = token_divergence(config, params, base_params, batch)
    return float(np.sum(kl_BxT * weights_BxT) / max(np.sum(weights_BxT), 1e-6))


def token_divergence(
    config: T5Config, params: Params, base_params: Params, batch: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """KL(base || tuned) of every next token under teacher forcing, and the tokens' weights.

    Returns:
      Two float32 `[B, T]`: nats, and `decoder_loss_weights` (0 where there is no target).
    """
    kl_BxT, weights_BxT = _divergence(config)(params, base_params, model_features(batch))
    return np.asarray(kl_BxT), np.asarray(weights_BxT)


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Specialization:
    """What a run measures of its own format specialization, on examples that it trains on.

    `kl` and `alignment_{mlp,query,key,value}` are of the network as it is trained, with the soft
    prompts and additions of the run; the base is the network that the run started from, with those
    that it started with. Where soft prompts are attached, or LoRA is and stays frozen,
    `kl_detached` compares both networks without them, on the inputs without placeholders: as other
    tasks meet the model.

    Attributes:
      period: steps between measurements; None or 0 for none.
      batch_size: examples that are measured on, the first ones of the run's first batch (of which
        there may be fewer).
      seed: of the shuffling of targets.
      output_share: a function of a network (configuration and parameters, without what is attached)
        that returns shares by name, which get the prefix `specialization/`; see
        `kaft_promot.specialize.output_share`. None: not measured.

    Raises:
      UserError: for values that make no sense or would do nothing.
    """

    period: int | None = None
    batch_size: int = 32
    seed: int = 0
    output_share: Callable[[T5Config, Params], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        if self.period is not None and self.period < 0:
            raise UserError(f"Specialization.period = {self.period}: 0 (off) or more")
        if self.batch_size < 2:
            raise UserError(f"Specialization.batch_size = {self.batch_size}: must be at least 2")
        if self.seed < 0:
            raise UserError(f"Specialization.seed = {self.seed}: must not be negative")
        if self.output_share is not None and not self.period:
            raise UserError(
                "the output share of SPECIALIZATION_TASKS is measured every "
                "SPECIALIZATION_PERIOD steps: add --gin.SPECIALIZATION_PERIOD=..."
            )

    def hook(self, start: Start, stage: Stage, batch: Batch, mesh: Mesh) -> Hook:
        """The measurement of one run.

        Args:
          start: where it starts, with what is attached to it.
          stage: what it trains.
          batch: its first batch, packed or not, of all processes.
          mesh: how its devices share the work.

        Raises:
          UserError: if the batch has fewer than two examples, or the run no period.
        """
        if not self.period:
            raise UserError("Specialization.period: say after how many steps to measure")
        rows = unpacked(batch, self.batch_size)
        if len(rows["decoder_target_tokens"]) < 2:
            raise UserError(
                "specialization is measured on at least 2 examples of the run's first batch: raise "
                "BATCH_SIZE"
            )
        config = start.config
        base = merge_lora(start.params)
        if jax.process_count() > 1:  # arrays of this process's device cannot be spread over others'
            base = jax.tree.map(np.asarray, base)
        shardings = param_shardings(base, logical_axes(base), mesh)
        fixed = frozen_lora(start.params, stage)
        bare_rows = {
            **rows,
            "encoder_input_tokens": rows["encoder_input_tokens"][:, config.prompt_length :],
        }

        def detached(params: Params) -> tuple[T5Config, Params]:
            return remove_prompts(config, subtract_lora(params, fixed))

        def function(step: int, params: Params) -> dict[str, float]:
            placed = jax.device_put(base, shardings)  # in devices' memory only while it is needed
            found = {"kl": kl_from_base(config, params, placed, rows)}
            bare_config, bare = detached(params)
            if config.prompt_rows or fixed:
                base_bare = detached(placed)[1]
                found["kl_detached"] = kl_from_base(bare_config, bare, base_bare, bare_rows)
            aligned = gradient_alignment(config, params, rows, self.seed)
            found |= {f"alignment_{part}": value for part, value in aligned.items()}
            if self.output_share is not None:
                found |= self.output_share(bare_config, bare)
            return {f"specialization/{name}": value for name, value in found.items()}

        return Hook(function=function, period=self.period)


def unpacked(batch: Mapping[str, np.ndarray], limit: int) -> Batch:
    """The first `limit` examples of a batch, one a row."""
    if "decoder_segment_ids" not in batch:
        return {name: value[:limit] for name, value in model_features(batch).items()}
    from kaft_promot.feeding.features import batch_examples, unpack

    examples = unpack(dict(batch))[:limit]
    lengths = {name: max(len(e[name]) for e in examples) for name in ("inputs", "targets")}
    return batch_examples(examples, lengths, limit)[0]


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
def _divergence(config: T5Config) -> Callable[[Params, Params, Any], tuple[jax.Array, jax.Array]]:
    @jax.jit
    def divergence(params: Params, base_params: Params, batch: Any) -> tuple[jax.Array, jax.Array]:
        weights, _ = weights_and_normalizer(batch, None)
        base, tuned = (jax.nn.log_softmax(forward(config, p, batch)) for p in (base_params, params))
        return jnp.sum(jnp.exp(base) * (base - tuned), axis=-1), weights

    return divergence


@jax.jit
def _cosine(a: Mapping[str, jax.Array], b: Mapping[str, jax.Array]) -> jax.Array:
    """Of two sets of arrays, each as one vector."""
    product, a_squared, b_squared = (
        sum(jnp.sum(x[path] * y[path]) for path in a) for x, y in ((a, b), (a, a), (b, b))
    )
    return product / jnp.maximum(jnp.sqrt(a_squared * b_squared), 1e-30)
