"""The T5 encoder-decoder network as Flax Linen modules with T5X's parameter names.

Shapes: B batch, L encoder length, T decoder length, D embed, V vocab, H heads, C head width.
Token 0 is padding. Relative positions need no position ids: inside a packed example they equal
the differences of row indices, and segment ids keep examples apart.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kaft_promot.models.attention import (
    Attention,
    RelativePositionBias,
    mask_to_bias,
    padding_mask,
    segment_mask,
)
from kaft_promot.models.config import T5Config
from kaft_promot.models.gradients import add_to_rows
from kaft_promot.models.layers import Dense, Embed, LayerNorm, Mlp, PromptTable, dropout


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward, each added to the residual stream."""

    config: T5Config

    @nn.compact
    def __call__(
        self, x_BxLxD: jax.Array, bias_BxHxLxL: jax.Array, deterministic: bool
    ) -> jax.Array:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        drop = dropout(config)
        h = LayerNorm(dtype, name="pre_attention_layer_norm")(x_BxLxD)
        h = Attention(config, name="attention")(h, h, bias_BxHxLxL, deterministic)
        x_BxLxD = x_BxLxD + drop(h, deterministic=deterministic)
        h = LayerNorm(dtype, name="pre_mlp_layer_norm")(x_BxLxD)
        h = Mlp(config, name="mlp")(h, deterministic)
        return x_BxLxD + drop(h, deterministic=deterministic)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward."""

    config: T5Config

    def setup(self) -> None:
        config = self.config
        dtype = jnp.dtype(config.dtype)
        self.pre_self_attention_layer_norm = LayerNorm(dtype)
        self.self_attention = Attention(config)
        self.pre_cross_attention_layer_norm = LayerNorm(dtype)
        self.encoder_decoder_attention = Attention(config)
        self.pre_mlp_layer_norm = LayerNorm(dtype)
        self.mlp = Mlp(config)
        self.drop = dropout(config)

    def __call__(
        self,
        x_BxTxD: jax.Array,
        encoded_BxLxD: jax.Array,
        self_bias: jax.Array,
        cross_bias: jax.Array,
        deterministic: bool,
    ) -> jax.Array:
        h = self.pre_self_attention_layer_norm(x_BxTxD)
        h = self.self_attention(h, h, self_bias, deterministic)
        x_BxTxD = x_BxTxD + self.drop(h, deterministic=deterministic)
        h = self.pre_cross_attention_layer_norm(x_BxTxD)
        h = self.encoder_decoder_attention(h, encoded_BxLxD, cross_bias, deterministic)
        x_BxTxD = x_BxTxD + self.drop(h, deterministic=deterministic)
        h = self.mlp(self.pre_mlp_layer_norm(x_BxTxD), deterministic)
        return x_BxTxD + self.drop(h, deterministic=deterministic)

    def step(
        self,
        x_Bx1xD: jax.Array,
        position: jax.Array,
        cache: dict[str, jax.Array],
        self_bias: jax.Array,
        cross_bias: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """One position of decoding; writes its keys and values into `cache`."""
        h = self.pre_self_attention_layer_norm(x_Bx1xD)
        key, value = self.self_attention.keys_values(h)
        cache = dict(cache)
        for name, new in (("self_key", key), ("self_value", value)):
            cache[name] = jax.lax.dynamic_update_slice_in_dim(cache[name], new, position, axis=2)
        h = self.self_attention.attend(h, cache["self_key"], cache["self_value"], self_bias)
        x_Bx1xD = x_Bx1xD + h
        h = self.pre_cross_attention_layer_norm(x_Bx1xD)
        # Beams of one input share its keys and values: they are so many queries of one row.
        h = h.reshape(cache["cross_key"].shape[0], -1, h.shape[-1])
        h = self.encoder_decoder_attention.attend(
            h, cache["cross_key"], cache["cross_value"], cross_bias
        )
        x_Bx1xD = x_Bx1xD + h.reshape(x_Bx1xD.shape)
        return x_Bx1xD + self.mlp(self.pre_mlp_layer_norm(x_Bx1xD), True), cache


def _rematerialised(layer: type[nn.Module], config: T5Config, static: int) -> type[nn.Module]:
    """Wraps a layer so that its backward pass recomputes what `config.remat` names."""
    if config.remat == "none":
        return layer
    policy = None
    if config.remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # Without a scan around it XLA would find the recomputed values equal to the first ones and keep
    # those after all.
    return nn.remat(
        layer, policy=policy, static_argnums=(static,), prevent_cse=not config.scan_layers
    )


class Encoder(nn.Module):
    """Embeddings, soft prompts, the encoder's layers and its last norm."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        tokens_BxL: jax.Array,
        embedded_BxLxD: jax.Array,
        mask_BxHxLxL: jax.Array,
        deterministic: bool,
    ) -> jax.Array:
        config = self.config
        if config.prompt_rows:
            embedded_BxLxD = PromptTable(config, name="prompt")(tokens_BxL, embedded_BxLxD)
        bias = RelativePositionBias(config, bidirectional=True, name="relpos_bias")
        bias_BxHxLxL = add_to_rows(
            mask_to_bias(mask_BxHxLxL, jnp.dtype(config.dtype)), bias(tokens_BxL.shape[1])
        )
        x_BxLxD = dropout(config)(embedded_BxLxD, deterministic=deterministic)
        layer = _rematerialised(EncoderLayer, config, static=3)
        if config.scan_layers:
            x_BxLxD = _scan(
                layer(config, name="layers"),
                x_BxLxD,
                bias_BxHxLxL,
                length=config.num_encoder_layers,
                deterministic=deterministic,
            )
        else:
            for i in range(config.num_encoder_layers):
                x_BxLxD = layer(config, name=f"layers_{i}")(x_BxLxD, bias_BxHxLxL, deterministic)
        x_BxLxD = LayerNorm(jnp.dtype(config.dtype), name="encoder_norm")(x_BxLxD)
        return dropout(config)(x_BxLxD, deterministic=deterministic)


class Decoder(nn.Module):
    """The decoder's layers, last norm and output matrix."""

    config: T5Config

    def setup(self) -> None:
        config = self.config
        layer = _rematerialised(DecoderLayer, config, static=5)
        if config.scan_layers:
            self.layers = layer(config)
        else:
            self.layers = [layer(config) for _ in range(config.num_decoder_layers)]
        self.relpos_bias = RelativePositionBias(config, bidirectional=False)
        self.decoder_norm = LayerNorm(jnp.dtype(config.dtype))
        self.drop = dropout(config)
        if not config.logits_via_embedding:
            self.logits_dense = Dense(config.vocab_size, jnp.dtype(jnp.float32))

    def __call__(
        self,
        embed: Embed,
        tokens_BxT: jax.Array,
        encoded_BxLxD: jax.Array,
        self_mask: jax.Array,
        cross_mask: jax.Array,
        deterministic: bool,
    ) -> jax.Array:
        """Float32 logits `[B, T, V]` for every position at once."""
        config = self.config
        dtype = jnp.dtype(config.dtype)
        x_BxTxD = self.drop(embed(tokens_BxT), deterministic=deterministic)
        rows, length = tokens_BxT.shape
        self_mask = jnp.broadcast_to(self_mask, (rows, 1, length, length))
        self_bias = add_to_rows(mask_to_bias(self_mask, dtype), self.relpos_bias(length))
        inputs = (encoded_BxLxD, self_bias, mask_to_bias(cross_mask, dtype))
        if config.scan_layers:
            x_BxTxD = _scan(
                self.layers,
                x_BxTxD,
                *inputs,
                length=config.num_decoder_layers,
                deterministic=deterministic,
            )
        else:
            for layer in self.layers:
                x_BxTxD = layer(x_BxTxD, *inputs, deterministic)
        x_BxTxD = self.drop(self.decoder_norm(x_BxTxD), deterministic=deterministic)
        return self.logits(embed, x_BxTxD)

    def logits(self, embed: Embed, x_BxTxD: jax.Array) -> jax.Array:
        """Logits `[B, T, V]` of the normed residual stream; float32 throughout, as in T5X."""
        if self.config.logits_via_embedding:
            # Tied logits are scaled so that they start at the untied ones' size (T5 1.0).
            return embed.attend(x_BxTxD) / jnp.sqrt(float(self.config.emb_dim))
        return self.logits_dense(x_BxTxD)

    def init_cache(self, encoded_BxLxD: jax.Array, length: int) -> list[dict[str, jax.Array]]:
        """Per layer: empty self-attention keys and values, and the encoder's projected once."""
        config = self.config
        shape = (encoded_BxLxD.shape[0], config.num_heads, length, config.head_dim)
        caches = []
        for layer in self.layers:
            key, value = layer.encoder_decoder_attention.keys_values(encoded_BxLxD)
            empty = jnp.zeros(shape, config.dtype)
            caches.append(
                {"self_key": empty, "self_value": empty, "cross_key": key, "cross_value": value}
            )
        return caches

    def step(
        self,
        embed: Embed,
        token_B: jax.Array,
        position: jax.Array,
        cache: dict[str, Any],
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Float32 logits `[B, V]` for the token after `token_B`, and the cache with its keys."""
        config = self.config
        length = cache["layers"][0]["self_key"].shape[2]
        key_position_T = jnp.arange(length, dtype=jnp.int32)
        self_bias = self.relpos_bias.at(key_position_T - position)[None, :, None]
        self_bias = self_bias + mask_to_bias(key_position_T <= position, jnp.dtype(config.dtype))
        cross_bias = mask_to_bias(padding_mask(cache["encoder_mask"]), jnp.dtype(config.dtype))
        x_Bx1xD = embed(token_B[:, None])
        layers = []
        for layer, layer_cache in zip(self.layers, cache["layers"], strict=True):
            x_Bx1xD, layer_cache = layer.step(x_Bx1xD, position, layer_cache, self_bias, cross_bias)
            layers.append(layer_cache)
        logits = self.logits(embed, self.decoder_norm(x_Bx1xD))
        return logits[:, 0], {**cache, "layers": layers}


def _scan(
    layer: nn.Module, x: jax.Array, *inputs: jax.Array, length: int, deterministic: bool
) -> jax.Array:
    """Runs `length` equal layers with one scan; `layer`'s parameters are stacked on axis 0."""
    scanned = nn.scan(
        lambda layer, x, *inputs: (layer(x, *inputs, deterministic), None),
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=length,
    )
    return scanned(layer, x, *inputs)[0]


class Transformer(nn.Module):
    """The whole network; see `__call__`, `encode`, `init_cache` and `decode_step`."""

    config: T5Config

    def setup(self) -> None:
        self.token_embedder = Embed(self.config)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(
        self,
        encoder_input_tokens: jax.Array,
        encoder_segment_ids: jax.Array | None = None,
        enable_dropout: bool = False,
    ) -> jax.Array:
        """The encoder's output `[B, L, D]` in the compute dtype.

        Args:
          encoder_input_tokens: int32 `[B, L]`; 0 pads, ids from `vocab_size` on are soft-prompt
            placeholders.
          encoder_segment_ids: int32 `[B, L]`, the packed example of each token, 0 for padding.
          enable_dropout: whether to drop units (needs a `dropout` key).
        """
        mask = padding_mask(encoder_input_tokens > 0)
        if encoder_segment_ids is not None:
            mask = mask & segment_mask(encoder_segment_ids, encoder_segment_ids)
        embedded = self.token_embedder(encoder_input_tokens)
        return self.encoder(encoder_input_tokens, embedded, mask, not enable_dropout)

    def __call__(
        self,
        encoder_input_tokens: jax.Array,
        decoder_input_tokens: jax.Array,
        encoder_segment_ids: jax.Array | None = None,
        decoder_segment_ids: jax.Array | None = None,
        enable_dropout: bool = False,
    ) -> jax.Array:
        """Float32 logits `[B, T, V]` for every target position (teacher forcing).

        Args:
          encoder_input_tokens: int32 `[B, L]`, see `encode`.
          decoder_input_tokens: int32 `[B, T]`, the targets shifted right with 0 in front. Padding
            needs no mask: it follows the target, and attention is causal.
          encoder_segment_ids: int32 `[B, L]` when examples are packed.
          decoder_segment_ids: int32 `[B, T]` when examples are packed.
          enable_dropout: whether to drop units (needs a `dropout` key).
        """
        encoded = self.encode(encoder_input_tokens, encoder_segment_ids, enable_dropout)
        length = decoder_input_tokens.shape[1]
        self_mask = jnp.tril(jnp.ones((length, length), bool))[None, None]
        cross_mask = padding_mask(encoder_input_tokens > 0)
        if decoder_segment_ids is not None:
            if encoder_segment_ids is None:
                raise ValueError("decoder_segment_ids need encoder_segment_ids")
            self_mask = self_mask & segment_mask(decoder_segment_ids, decoder_segment_ids)
            cross_mask = cross_mask & segment_mask(decoder_segment_ids, encoder_segment_ids)
        return self.decoder(
            self.token_embedder,
            decoder_input_tokens,
            encoded,
            self_mask,
            cross_mask,
            not enable_dropout,
        )

    def init_cache(
        self, encoded: jax.Array, encoder_mask: jax.Array, max_decode_length: int
    ) -> dict[str, Any]:
        """The decoding cache of `encoded` `[B, L, D]`; every leaf has the batch as axis 0.

        Args:
          encoded: what `encode` returned.
          encoder_mask: bool `[B, L]`, True for real tokens.
          max_decode_length: how many positions can be decoded.
        """
        return {
            "layers": self.decoder.init_cache(encoded, max_decode_length),
            "encoder_mask": encoder_mask,
        }

    def decode_step(
        self, token: jax.Array, position: jax.Array, cache: dict[str, Any]
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Logits `[B, V]` after `token` (int32 `[B]`) at `position` (int32 scalar, from 0).

        Position 0 takes the start token 0. Beams: with N rows of `token` and of the `self_*` leaves
        for each row of the other leaves, side by side, N hypotheses of one input share its
        encoder's keys and values. Decoding runs on unrolled layers; see
        `kaft_promot.models.unrolled` for stacked parameters.
        """
        return self.decoder.step(self.token_embedder, token, position, cache)
