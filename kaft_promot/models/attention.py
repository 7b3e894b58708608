"""Multi-head attention, its masks and T5's relative-position bias.

Shapes: B batch, Q query length, K key length, H heads, C head width (`kv`), D embed.
Masks are boolean, True where attention is allowed; a bias is added to the scores.
T5 does not divide scores by sqrt(C): the query's initialisation does (Raffel et al., 2020).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kaft_promot.models.config import T5Config
from kaft_promot.models.gradients import softmax
from kaft_promot.models.layers import Dense, dropout, fan_in_normal

# Added to forbidden scores. Finite, so that a row with no allowed key has no NaN.
MASKED = -1e10


def relative_position_bucket(
    relative_position: jax.Array, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> jax.Array:
    """The bucket (int32) of `key position - query position`.

    Half of the buckets hold exact small distances, the others grow logarithmically up to
    `max_distance` (Raffel et al., 2020, section 2.1). `bidirectional` gives each direction its
    half of the buckets; otherwise keys after the query fall into bucket 0.
    """
    bucket = jnp.zeros_like(relative_position)
    distance = -relative_position
    if bidirectional:
        num_buckets //= 2
        bucket = bucket + (distance < 0).astype(jnp.int32) * num_buckets
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(distance, 0)
    max_exact = num_buckets // 2
    is_small = distance < max_exact
    # T5X adds one float32 epsilon inside the logarithm so that exact powers stay in their bucket.
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / max_exact + np.finfo(np.float32).eps
    scaled = jnp.log(ratio) / np.log(max_distance / max_exact) * (num_buckets - max_exact)
    large = max_exact + scaled.astype(jnp.int32)
    large = jnp.minimum(large, num_buckets - 1)
    return bucket + jnp.where(is_small, distance, large)


class RelativePositionBias(nn.Module):
    """The relative-position bias that one stack's self-attention layers share."""

    config: T5Config
    bidirectional: bool

    def setup(self) -> None:
        self.rel_embedding = self.param(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.config.num_heads, self.config.relative_attention_num_buckets),
            jnp.float32,
        )

    def at(self, relative_position: jax.Array) -> jax.Array:
        """The bias `[H, N]` at each of N values of `key position - query position`."""
        bucket_N = relative_position_bucket(
            relative_position,
            bidirectional=self.bidirectional,
            num_buckets=self.config.relative_attention_num_buckets,
            max_distance=self.config.relative_attention_max_distance,
        )
        return jnp.take(self.rel_embedding, bucket_N, axis=1).astype(self.config.dtype)

    def __call__(self, length: int) -> jax.Array:
        """The bias `[1, H, L, L]` of a sequence of `length` attending to itself.

        The bias depends on key minus query alone, so only 2L values are looked up; reshapes lay
        them out as a Toeplitz matrix. On a CPU the gradient of a lookup of all L * L values took
        7 % of a training step.
        """
        distances = jnp.arange(1 - length, length + 1, dtype=jnp.int32)  # N = 2L; the last is spare
        by_distance_HxN = self.at(distances)
        heads = by_distance_HxN.shape[0]
        rows = jnp.broadcast_to(by_distance_HxN[:, None], (heads, length, 2 * length))
        # Reading rows of 2L values as rows of 2L - 1 shifts each row right by one more place.
        flat = rows.reshape(heads, -1)[:, : length * (2 * length - 1)]
        shifted = flat.reshape(heads, length, 2 * length - 1)
        return shifted[None, :, :, length - 1 :]


def segment_mask(query_segments_BxQ: jax.Array, key_segments_BxK: jax.Array) -> jax.Array:
    """`[B, 1, Q, K]`: True where query and key belong to the same packed example."""
    return (query_segments_BxQ[:, :, None] == key_segments_BxK[:, None, :])[:, None]


def padding_mask(keys_BxK: jax.Array) -> jax.Array:
    """`[B, 1, 1, K]`: True where the key is a real token."""
    return keys_BxK[:, None, None, :]


def mask_to_bias(mask: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """0 where `mask` allows, MASKED where it forbids."""
    return jnp.where(mask, jnp.zeros((), dtype), jnp.full((), MASKED, dtype))


class Attention(nn.Module):
    """Multi-head attention with T5X's parameters: `query`, `key`, `value`, `out`, kernels joined.

    Use `__call__` for whole sequences; decoding calls `keys_values` once per key and `attend` per
    step.
    """

    config: T5Config

    def setup(self) -> None:
        config = self.config
        joined = config.num_heads * config.head_dim
        dtype = jnp.dtype(config.dtype)

        def query_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return fan_in_normal(key, shape, dtype) / np.sqrt(config.head_dim)

        self.query = Dense(joined, dtype, query_init)
        self.key = Dense(joined, dtype)
        self.value = Dense(joined, dtype)
        self.out = Dense(config.emb_dim, dtype)
        self.drop = dropout(config, shared_axis=-1)

    def _heads_first(self, x_BxLxJ: jax.Array) -> jax.Array:
        """`[B, H, L, C]`: each head's matrix in one piece, as a product of matrices reads it."""
        split = x_BxLxJ.reshape(*x_BxLxJ.shape[:-1], self.config.num_heads, self.config.head_dim)
        return split.swapaxes(1, 2)

    def keys_values(self, memory_BxKxD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values `[B, H, K, C]` of the positions of `memory`."""
        key, value = self.key(memory_BxKxD), self.value(memory_BxKxD)
        return self._heads_first(key), self._heads_first(value)

    def attend(
        self,
        x_BxQxD: jax.Array,
        key_BxHxKxC: jax.Array,
        value_BxHxKxC: jax.Array,
        bias_BxHxQxK: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """Attends from `x` to given keys and values; returns `[B, Q, D]`."""
        query_BxHxQxC = self._heads_first(self.query(x_BxQxD))
        scores_BxHxQxK = jnp.einsum("bhqc,bhkc->bhqk", query_BxHxQxC, key_BxHxKxC)
        weights = softmax((scores_BxHxQxK + bias_BxHxQxK).astype(jnp.float32))
        weights_BxHxQxK = weights.astype(self.config.dtype)
        # T5X drops weights, with one mask `[B, H, 1, K]` for all queries. To drop the values of a
        # key is the same, and makes no second array `[B, H, Q, K]`.
        dropped_BxHxKxC = self.drop(value_BxHxKxC, deterministic=deterministic)
        context_BxHxQxC = jnp.einsum("bhqk,bhkc->bhqc", weights_BxHxQxK, dropped_BxHxKxC)
        return self.out(context_BxHxQxC.swapaxes(1, 2).reshape(*x_BxQxD.shape[:-1], -1))

    def __call__(
        self,
        x_BxQxD: jax.Array,
        memory_BxKxD: jax.Array,
        bias_BxHxQxK: jax.Array,
        deterministic: bool,
    ) -> jax.Array:
        """Attends from every position of `x` to every position of `memory`."""
        return self.attend(x_BxQxD, *self.keys_values(memory_BxKxD), bias_BxHxQxK, deterministic)
