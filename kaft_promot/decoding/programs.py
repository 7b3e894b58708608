"""The compiled programs: greedy, sampling, beam search and scoring, from tokens to tokens.

Each is one `jax.jit` at module level whose static arguments are the model's configuration and the
options that change shapes; parameters are an argument. One program therefore serves every set of
parameters of a configuration (all arms of a comparison) at one input shape, and a repeated shape
never compiles again (`trace_counts` counts).

Encoder inputs are int32 [B, L] with the end token where the task has one; 0 pads. A row of nothing
but
padding only fills the batch: it decodes to padding and never keeps the loop going.
"""

import collections
import dataclasses
import functools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from kaft_promot.decoding import beam as beam_lib
from kaft_promot.decoding import loop, sampling
from kaft_promot.decoding.beam import BeamDecoded, Penalty
from kaft_promot.decoding.loop import Cache, Decoded, TokensToLogits
from kaft_promot.errors import UserError
from kaft_promot.models import T5Config, Transformer, unrolled

Params: TypeAlias = Any
Tokens: TypeAlias = jax.Array | np.ndarray

_traces: collections.Counter[str] = collections.Counter()


def trace_counts() -> dict[str, int]:
    """How often each program was traced (so: compiled) in this process."""
    return dict(_traces)


def _start(
    config: T5Config, params: Params, encoder_tokens_BxL: jax.Array, max_decode_length: int
) -> tuple[TokensToLogits, Cache, jax.Array]:
    """Runs the encoder; returns the decoder's step, the cache that it changes, and the live rows.

    The keys and values of the encoder's output are computed here, once, and stay in the step's
    closure: only the self-attention's cache goes round the loop.
    """
    config, params = unrolled(config, params)
    model = Transformer(config)
    variables = {"params": params}
    mask_BxL = encoder_tokens_BxL > 0
    encoded_BxLxD = model.apply(variables, encoder_tokens_BxL, method="encode")
    full_cache = model.apply(
        variables, encoded_BxLxD, mask_BxL, max_decode_length, method="init_cache"
    )
    leaves, tree = jax.tree_util.tree_flatten_with_path(full_cache)
    changing = [_is_self_attention(path) for path, _ in leaves]
    fixed = [leaf for _, leaf in leaves]

    def tokens_to_logits(
        token_B: jax.Array, position: jax.Array, cache: Cache
    ) -> tuple[jax.Array, Cache]:
        given = iter(cache)
        merged = [next(given) if c else leaf for c, leaf in zip(changing, fixed, strict=True)]
        logits_BxV, full = model.apply(
            variables, token_B, position, tree.unflatten(merged), method="decode_step"
        )
        return logits_BxV, [x for c, x in zip(changing, jax.tree.leaves(full), strict=True) if c]

    cache = [leaf for c, leaf in zip(changing, fixed, strict=True) if c]
    return tokens_to_logits, cache, jnp.any(mask_BxL, axis=-1)


def _is_self_attention(path: tuple[Any, ...]) -> bool:
    return any(str(getattr(key, "key", "")).startswith("self_") for key in path)


@functools.partial(jax.jit, static_argnames=("config", "max_decode_length", "eos_id"))
def _greedy(
    params: Params, tokens_BxL: jax.Array, *, config: T5Config, max_decode_length: int, eos_id: int
) -> Decoded:
    _traces["greedy"] += 1
    step, cache, live_B = _start(config, params, tokens_BxL, max_decode_length)
    return loop.decode(
        step,
        loop.greedy_choice,
        cache,
        live_B,
        max_decode_length=max_decode_length,
        eos_id=eos_id,
    )


def greedy(
    config: T5Config,
    params: Params,
    encoder_input_tokens: Tokens,
    max_decode_length: int,
    *,
    eos_id: int = loop.EOS_ID,
) -> Decoded:
    """Takes the most probable token at each position.

    Args:
      config: the model's configuration.
      params: its parameters.
      encoder_input_tokens: int32 [B, L].
      max_decode_length: T, number of tokens to make at most, the end token included.
      eos_id: the token that ends a row.

    Returns:
      `Decoded`: tokens int32 [B, T] and their log probability float32 [B].
    """
    return _greedy(
        params,
        _tokens(encoder_input_tokens),
        config=_key(config),
        max_decode_length=max_decode_length,
        eos_id=eos_id,
    )


@functools.partial(
    jax.jit, static_argnames=("config", "max_decode_length", "eos_id", "top_k", "nucleus")
)
def _sample(
    params: Params,
    tokens_BxL: jax.Array,
    keys_B: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
    *,
    config: T5Config,
    max_decode_length: int,
    eos_id: int,
    top_k: int,
    nucleus: bool,
) -> Decoded:
    _traces["sample"] += 1
    step, cache, live_B = _start(config, params, tokens_BxL, max_decode_length)
    choose = sampling.sampling_choice(
        keys_B, temperature=temperature, top_k=top_k, top_p=top_p if nucleus else None
    )
    return loop.decode(
        step, choose, cache, live_B, max_decode_length=max_decode_length, eos_id=eos_id
    )


def sample(
    config: T5Config,
    params: Params,
    encoder_input_tokens: Tokens,
    max_decode_length: int,
    *,
    key: jax.Array,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    eos_id: int = loop.EOS_ID,
) -> Decoded:
    """Draws each token from the model's distribution, sharpened or cut as told.

    Args:
      config: the model's configuration.
      params: its parameters.
      encoder_input_tokens: int32 [B, L].
      max_decode_length: T, number of tokens to make at most, the end token included.
      key: typed random keys [B], one a row: a row then draws the same in every batch. Or one key,
        which is folded with the row's index.
      temperature: > 0; below 1 sharpens.
      top_k: draw from this many most probable tokens; 0: from all.
      top_p: draw from the nucleus of this mass, in (0, 1]; 1: from all. Applied after `top_k`.
      eos_id: the token that ends a row.

    Returns:
      `Decoded`; log probabilities are of the model's own distribution.

    Raises:
      UserError: if an option is outside its range.
    """
    check_sampling_options(temperature, top_k, top_p)
    tokens_BxL = _tokens(encoder_input_tokens)
    if key.ndim == 0:
        key = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(len(tokens_BxL)))
    return _sample(
        params,
        tokens_BxL,
        key,
        jnp.float32(temperature),
        jnp.float32(top_p),
        config=_key(config),
        max_decode_length=max_decode_length,
        eos_id=eos_id,
        top_k=top_k,
        nucleus=top_p < 1.0,
    )


def check_sampling_options(temperature: float, top_k: int, top_p: float) -> None:
    """Raises UserError for sampling options outside their range."""
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, not {temperature}; for the limit use greedy")
    if top_k < 0:
        raise UserError(f"top_k must be 0 (all tokens) or more, not {top_k}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p must be above 0 and at most 1, not {top_p}")


@functools.partial(
    jax.jit, static_argnames=("config", "max_decode_length", "num_beams", "penalty", "eos_id")
)
def _beam_search(
    params: Params,
    tokens_BxL: jax.Array,
    alpha: jax.Array,
    *,
    config: T5Config,
    max_decode_length: int,
    num_beams: int,
    penalty: Penalty,
    eos_id: int,
) -> BeamDecoded:
    _traces["beam_search"] += 1
    step, cache, live_B = _start(config, params, tokens_BxL, max_decode_length)
    return beam_lib.beam_decode(
        step,
        jax.tree.map(lambda x: jnp.repeat(x, num_beams, axis=0), cache),
        live_B,
        max_decode_length=max_decode_length,
        num_beams=num_beams,
        alpha=alpha,
        penalty=penalty,
        eos_id=eos_id,
    )


def beam_search(
    config: T5Config,
    params: Params,
    encoder_input_tokens: Tokens,
    max_decode_length: int,
    *,
    num_beams: int = 4,
    alpha: float = 0.6,
    penalty: Penalty = "t5x",
    eos_id: int = loop.EOS_ID,
) -> BeamDecoded:
    """Searches for the best-scoring sequences; conventions (T5X's) in `kaft_promot.decoding.beam`.

    Args:
      config: the model's configuration.
      params: its parameters.
      encoder_input_tokens: int32 [B, L].
      max_decode_length: T, number of tokens to make at most, the end token included.
      num_beams: K.
      alpha: exponent of the length penalty; 0: none.
      penalty: 't5x', ((5 + n) / 6) ** alpha, or 'hf', n ** alpha; n counts the end token.
      eos_id: the token that ends a hypothesis.

    Returns:
      `BeamDecoded`: tokens int32 [B, K, T] and scores float32 [B, K], scores increasing along K:
      the best is `tokens[:, -1]`.

    Raises:
      UserError: if an option is outside its range.
    """
    beam_lib.check_beam_options(num_beams, alpha, penalty)
    return _beam_search(
        params,
        _tokens(encoder_input_tokens),
        jnp.float32(alpha),
        config=_key(config),
        max_decode_length=max_decode_length,
        num_beams=num_beams,
        penalty=penalty,
        eos_id=eos_id,
    )


@functools.partial(jax.jit, static_argnames=("config",))
def _score(
    params: Params, inputs_BxL: jax.Array, targets_BxT: jax.Array, *, config: T5Config
) -> jax.Array:
    _traces["score"] += 1
    shifted_BxT = jnp.pad(targets_BxT, ((0, 0), (1, 0)))[:, :-1]
    logits_BxTxV = Transformer(config).apply({"params": params}, inputs_BxL, shifted_BxT)
    logit_BxT = jnp.take_along_axis(logits_BxTxV, targets_BxT[..., None], axis=-1)[..., 0]
    log_prob_BxT = logit_BxT - jax.nn.logsumexp(logits_BxTxV, axis=-1)
    return jnp.sum(jnp.where(targets_BxT > 0, log_prob_BxT, 0.0), axis=-1)


def score(
    config: T5Config,
    params: Params,
    encoder_input_tokens: Tokens,
    decoder_target_tokens: Tokens,
) -> jax.Array:
    """The log-likelihood of given targets.

    Args:
      config: the model's configuration.
      params: its parameters.
      encoder_input_tokens: int32 [B, L].
      decoder_target_tokens: int32 [B, T], with the end token where it is to count; 0 pads.

    Returns:
      float32 [B]: the sum over target tokens (end token included, padding not) of the natural log
      probability of each given the input and the tokens before it.
    """
    return _score(
        params, _tokens(encoder_input_tokens), _tokens(decoder_target_tokens), config=_key(config)
    )


def _key(config: T5Config) -> T5Config:
    """`config` without what only training reads, so that it makes no second program."""
    return dataclasses.replace(config, dropout_rate=0.0, remat="none")


def _tokens(tokens: Tokens) -> jax.Array:
    return jnp.asarray(tokens, jnp.int32)
