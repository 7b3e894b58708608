"""The parts of a T5 layer that do not attend: dense maps, norm, dropout, feed-forward, embedding.

Shapes are written with B batch, L length, D embed (`emb_dim`), F mlp, V vocab, R prompt rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from kaft_promot.models.config import T5Config
from kaft_promot.models.gradients import gated_gelu, matmul, rms_norm

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": nn.gelu,  # the tanh approximation, as T5X and Hugging Face's `gelu_new`
    "relu": nn.relu,
    "silu": nn.silu,
    "linear": lambda x: x,
}

fan_in_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Dense(nn.Module):
    """x @ kernel without a bias; the kernel is float32 and is cast to the compute dtype."""

    features: int
    dtype: jnp.dtype
    kernel_init: nn.initializers.Initializer = fan_in_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        return matmul(x.astype(self.dtype), kernel.astype(self.dtype))


class LayerNorm(nn.Module):
    """T5's layer norm: divides by the root mean square, no mean, no bias (Zhang & Sennrich 2019).

    The statistics are float32 whatever the compute dtype.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        scale_D = self.param("scale", nn.initializers.ones, (x_BxLxD.shape[-1],), jnp.float32)
        return rms_norm(x_BxLxD, scale_D, self.dtype)


def dropout(config: T5Config, shared_axis: int = -2) -> nn.Dropout:
    """Dropout whose mask is shared along one axis, by default that of length, as T5X does."""
    return nn.Dropout(config.dropout_rate, broadcast_dims=(shared_axis,))


class Mlp(nn.Module):
    """T5's feed-forward: `wi` (T5 1.0) or the product of `wi_0` and `wi_1` (T5 1.1), then `wo`."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, deterministic: bool) -> jax.Array:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        names = [f"wi_{i}" for i in range(len(config.mlp_activations))]
        if len(names) == 1:
            names = ["wi"]
        branches = [Dense(config.mlp_dim, dtype, name=name)(x_BxLxD) for name in names]
        if config.mlp_activations == ("gelu", "linear"):
            hidden_BxLxF = gated_gelu(*branches)
        else:
            activations = (_ACTIVATIONS[name] for name in config.mlp_activations)
            hidden_BxLxF = math.prod(f(x) for f, x in zip(activations, branches, strict=True))
        hidden_BxLxF = dropout(config)(hidden_BxLxF, deterministic=deterministic)
        return Dense(config.emb_dim, dtype, name="wo")(hidden_BxLxF)


class Embed(nn.Module):
    """The token embedding `[V, D]`, shared by encoder and decoder."""

    config: T5Config

    def setup(self) -> None:
        shape = (self.config.vocab_size, self.config.emb_dim)
        self.embedding = self.param("embedding", nn.initializers.normal(1.0), shape, jnp.float32)

    def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
        """Returns `[B, L, D]` in the compute dtype; ids beyond the table read its last row."""
        tokens = jnp.minimum(tokens_BxL, self.config.vocab_size - 1)
        return jnp.take(self.embedding, tokens, axis=0).astype(self.config.dtype)

    def attend(self, x_BxLxD: jax.Array) -> jax.Array:
        """Float32 logits `[B, L, V]` with the embedding as the output matrix (T5 1.0)."""
        return matmul(x_BxLxD.astype(jnp.float32), self.embedding.T)


class PromptTable(nn.Module):
    """The soft prompts `[R, D]`: row `id - V` stands wherever a placeholder id (>= V) stands.

    Prompts occupy token positions, so masks, relative positions, packing and decoding need no
    special case. Parameter path and shape are those of google-research/prompt-tuning
    (Lester et al., EMNLP 2021), `encoder/prompt/prompt/prompt`.
    """

    config: T5Config

    @nn.compact
    def __call__(self, tokens_BxL: jax.Array, embedded_BxLxD: jax.Array) -> jax.Array:
        config = self.config
        table_RxD = PromptParameter(config, name="prompt")()
        row_BxL = jnp.clip(tokens_BxL - config.vocab_size, 0, config.prompt_rows - 1)
        prompt_BxLxD = jnp.take(table_RxD, row_BxL, axis=0).astype(embedded_BxLxD.dtype)
        is_prompt_BxL = tokens_BxL >= config.vocab_size
        return jnp.where(is_prompt_BxL[..., None], prompt_BxLxD, embedded_BxLxD)


class PromptParameter(nn.Module):
    """Holds the prompt table; uniform in [-0.5, 0.5], prompt tuning's random initialisation."""

    config: T5Config

    @nn.compact
    def __call__(self) -> jax.Array:
        def uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -0.5, 0.5)

        shape = (self.config.prompt_rows, self.config.emb_dim)
        return self.param("prompt", uniform, shape, jnp.float32)
