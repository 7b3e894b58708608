"""The decode loop: one token for every row per turn, until every row has ended.

The loop knows nothing of models and text. It is given two pure functions: `tokens_to_logits` turns
the last token and a cache into the logits of the next one, `choose` picks a token from logits.
Greedy decoding and sampling are this loop with two different `choose` functions; beam search
(`beam.py`) runs on the same `tokens_to_logits`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PAD_ID = 0
EOS_ID = 1

Cache = Any
# (token_B int32, position int32 scalar, cache) -> (logits_BxV, cache). At position 0 the token is
# the decoder's start token, `PAD_ID`.
TokensToLogits = Callable[[jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]
# (logits_BxV, position) -> token_B int32
Choose = Callable[[jax.Array, jax.Array], jax.Array]


class Decoded(NamedTuple):
    """What decoding made of a batch of B rows.

    Attributes:
      tokens: int32 [B, T], T = max_decode_length; the end token is kept, `PAD_ID` follows it. A row
        that found no end within T tokens has none. The model may make `PAD_ID` itself before the
        end, as in T5X.
      log_probs: float32 [B], the sum over the row's tokens (the end token too) of their natural log
        probability under the model's own distribution (no temperature, no mask).
    """

    tokens: jax.Array
    log_probs: jax.Array


class _State(NamedTuple):
    position: jax.Array
    token_B: jax.Array
    tokens_BxT: jax.Array
    log_probs_B: jax.Array
    ended_B: jax.Array
    cache: Cache


def argmax_last(x_BxV: jax.Array) -> jax.Array:
    """Index of each row's maximum (the first of equals) as int32 [B].

    Two plain reductions in place of `jnp.argmax`, whose pair-wise reduction XLA does not vectorise
    on CPUs.
    """
    top_Bx1 = jnp.max(x_BxV, axis=-1, keepdims=True)
    # A NaN equals nothing, so a row of NaN would give the index V: stay inside, as argmax does.
    index_BxV = jax.lax.broadcasted_iota(jnp.int32, x_BxV.shape, x_BxV.ndim - 1)
    size = x_BxV.shape[-1]
    return jnp.minimum(jnp.min(jnp.where(x_BxV == top_Bx1, index_BxV, size), axis=-1), size - 1)


def greedy_choice(logits_BxV: jax.Array, position: jax.Array) -> jax.Array:
    """The most probable token of each row, int32 [B]; of equals the lowest id."""
    del position
    return argmax_last(logits_BxV)


def decode(
    tokens_to_logits: TokensToLogits,
    choose: Choose,
    cache: Cache,
    live_B: jax.Array,
    *,
    max_decode_length: int,
    eos_id: int = EOS_ID,
) -> Decoded:
    """Decodes token by token until every row has ended or `max_decode_length` tokens are made.

    Args:
      tokens_to_logits: the model's step, see `TokensToLogits`.
      choose: picks the next tokens, see `Choose`.
      cache: the first cache; any pytree.
      live_B: bool [B]; rows that are False only fill the batch: they count as ended from the start,
        so they never keep the loop going, and come back as all `PAD_ID` with log probability 0.
      max_decode_length: number of tokens to make at most, the end token included.
      eos_id: the token that ends a row.

    Returns:
      `Decoded`, with tokens int32 [B, max_decode_length].
    """
    (batch,) = live_B.shape

    def unfinished(state: _State) -> jax.Array:
        return (state.position < max_decode_length) & ~jnp.all(state.ended_B)

    def step(state: _State) -> _State:
        logits_BxV, cache = tokens_to_logits(state.token_B, state.position, state.cache)
        token_B = jnp.where(state.ended_B, PAD_ID, choose(logits_BxV, state.position))
        logit_B = jnp.take_along_axis(logits_BxV, token_B[:, None], axis=-1)[:, 0]
        log_prob_B = logit_B - jax.nn.logsumexp(logits_BxV, axis=-1)
        return _State(
            position=state.position + 1,
            token_B=token_B,
            tokens_BxT=jax.lax.dynamic_update_slice(
                state.tokens_BxT, token_B[:, None], (0, state.position)
            ),
            log_probs_B=state.log_probs_B + jnp.where(state.ended_B, 0.0, log_prob_B),
            ended_B=state.ended_B | (token_B == eos_id),
            cache=cache,
        )

    final = jax.lax.while_loop(
        unfinished,
        step,
        _State(
            position=jnp.int32(0),
            token_B=jnp.full((batch,), PAD_ID, jnp.int32),
            tokens_BxT=jnp.full((batch, max_decode_length), PAD_ID, jnp.int32),
            log_probs_B=jnp.zeros((batch,), jnp.float32),
            ended_B=~live_B,
            cache=cache,
        ),
    )
    return Decoded(final.tokens_BxT, final.log_probs_B)
