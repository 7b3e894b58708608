"""Beam search in T5X's convention, or in Hugging Face's.

The search is the one of Wu et al. 2016 (arXiv 1609.08144, section 7) as T5X runs it: K live and K
finished hypotheses a row. Each turn extends the live ones by every token and takes the best 2K
candidates by plain log probability (2K, so that K remain to go on even if K of them end); those
that end compete for the K finished places by *score*, the best K others live on.

Score = log probability / penalty(n). **n counts the tokens that were made, the end token included,
the start token not** (T5X and Hugging Face agree in this):

* `t5x` (default): penalty(n) = ((5 + n) / 6) ** alpha, alpha = 0.6 by default;
* `hf`: penalty(n) = n ** alpha (Hugging Face's `length_penalty`; their default is 1.0).

What is cut off at the maximal length: `t5x` returns a row's live hypotheses, with their plain log
probability as score, only if nothing of that row has ended; `hf` lets hypotheses that are cut off
compete with the ended ones, as if they had ended there.

The search goes on until no live hypothesis of any row can reach the worst of its K finished ones
even at the maximal length (alpha >= 0, so a longer hypothesis is never penalised less); a row's
result is therefore the same in every batch. Hugging Face's default stops at an estimate that may
miss better ones.

**Order: T5X's; scores increase along the beam axis, so the best hypothesis is the last one.**
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from kaft_promot.decoding.loop import EOS_ID, PAD_ID, Cache, TokensToLogits
from kaft_promot.errors import UserError

Penalty = Literal["t5x", "hf"]
NEG_INF = -1.0e7  # T5X's value for "no hypothesis here"


class BeamDecoded(NamedTuple):
    """The hypotheses of a batch of B rows, K each, in order of increasing score (the last is best).

    Attributes:
      tokens: int32 [B, K, T], T = max_decode_length; the end token is kept, `PAD_ID` follows it.
      scores: float32 [B, K], log probability / penalty(n), see the module; about -1e7 or less where
        fewer than K hypotheses were found.
    """

    tokens: jax.Array
    scores: jax.Array


class _State(NamedTuple):
    position: jax.Array
    live_tokens_BxKxT: jax.Array  # best first
    live_log_probs_BxK: jax.Array
    done_tokens_BxKxT: jax.Array  # best first
    done_scores_BxK: jax.Array
    cache: Cache


def length_penalty(n: jax.Array | int, alpha: jax.Array | float, kind: Penalty) -> jax.Array:
    """What the log probability of a hypothesis of n tokens (end token included) is divided by."""
    n = jnp.asarray(n, jnp.float32)
    return ((5.0 + n) / 6.0) ** alpha if kind == "t5x" else n**alpha


def check_beam_options(num_beams: int, alpha: float, penalty: str) -> None:
    """Raises UserError for a beam search that cannot be run."""
    if num_beams < 1:
        raise UserError(f"num_beams must be at least 1, not {num_beams}")
    if alpha < 0:
        raise UserError(f"alpha (the length penalty's exponent) must not be negative: {alpha}")
    if penalty not in ("t5x", "hf"):
        raise UserError(f"length penalty must be 't5x' or 'hf', not {penalty!r}")


def beam_decode(
    tokens_to_logits: TokensToLogits,
    cache: Cache,
    live_B: jax.Array,
    *,
    max_decode_length: int,
    num_beams: int,
    alpha: jax.Array | float,
    penalty: Penalty = "t5x",
    eos_id: int = EOS_ID,
) -> BeamDecoded:
    """Beam search; conventions in the module's docstring.

    Args:
      tokens_to_logits: the model's step; it is called with B * K rows, the K of one row side by
      side.
      cache: pytree whose leaves lead with B * K rows; what is the same for all K hypotheses of a
        row (the encoder's keys and values) better stays out of it, in `tokens_to_logits`' closure:
        the cache is reordered at each turn.
      live_B: bool [B]; rows that are False only fill the batch and never keep the search going.
      max_decode_length: number of tokens to make at most, the end token included.
      num_beams: K.
      alpha: exponent of the length penalty, >= 0 (0: none).
      penalty: 't5x' or 'hf'.
      eos_id: the token that ends a hypothesis.

    Returns:
      `BeamDecoded`.
    """
    (batch,) = live_B.shape
    beams, length = num_beams, max_decode_length
    rows_Bx1 = jnp.arange(batch)[:, None]

    def can_improve(state: _State) -> jax.Array:
        best_BX = state.live_log_probs_BxK[:, 0] / length_penalty(length, alpha, penalty)
        improvable_B = best_BX >= state.done_scores_BxK[:, -1]
        return (state.position < length) & jnp.any(improvable_B & live_B)

    def step(state: _State) -> _State:
        position = state.position
        previous_BxK = jnp.where(
            position > 0, state.live_tokens_BxKxT[:, :, jnp.maximum(position - 1, 0)], PAD_ID
        )
        logits_BKxV, cache = tokens_to_logits(previous_BxK.reshape(-1), position, state.cache)
        vocab = logits_BKxV.shape[-1]
        log_probs_BxKxV = jax.nn.log_softmax(logits_BKxV).reshape(batch, beams, vocab)
        log_probs_BxKxV += state.live_log_probs_BxK[:, :, None]

        # The best 2K (C) candidates by plain log probability, best first.
        candidates = min(2 * beams, beams * vocab)
        log_probs_BxC, index_BxC = jax.lax.top_k(log_probs_BxKxV.reshape(batch, -1), candidates)
        origin_BxC, token_BxC = index_BxC // vocab, index_BxC % vocab
        tokens_BxCxT = jax.lax.dynamic_update_slice(
            state.live_tokens_BxKxT[rows_Bx1, origin_BxC], token_BxC[:, :, None], (0, 0, position)
        )
        real_BxC = log_probs_BxC > NEG_INF / 2  # not grown from an empty place
        ended_BxC = token_BxC == eos_id
        if penalty == "hf":
            ended_BxC |= position == length - 1

        # Those that ended compete with those that had ended before.
        scores_BxC = log_probs_BxC / length_penalty(position + 1, alpha, penalty)
        scores_BxC = jnp.where(ended_BxC & real_BxC, scores_BxC, NEG_INF)
        done_scores_BxK, kept_BxK = jax.lax.top_k(
            jnp.concatenate([state.done_scores_BxK, scores_BxC], axis=1), beams
        )
        done_tokens_BxKxT = jnp.concatenate([state.done_tokens_BxKxT, tokens_BxCxT], axis=1)
        done_tokens_BxKxT = done_tokens_BxKxT[rows_Bx1, kept_BxK]

        # The others live on. (-inf, not NEG_INF: an ended one never outlives an empty place.)
        live_log_probs_BxK, alive_BxK = jax.lax.top_k(
            jnp.where(ended_BxC, -jnp.inf, log_probs_BxC), beams
        )
        from_BxK = origin_BxC[rows_Bx1, alive_BxK] + rows_Bx1 * beams
        return _State(
            position=position + 1,
            live_tokens_BxKxT=tokens_BxCxT[rows_Bx1, alive_BxK],
            live_log_probs_BxK=live_log_probs_BxK,
            done_tokens_BxKxT=done_tokens_BxKxT,
            done_scores_BxK=done_scores_BxK,
            cache=jax.tree.map(lambda x: x[from_BxK.reshape(-1)], cache),
        )

    nothing_BxKxT = jnp.full((batch, beams, length), PAD_ID, jnp.int32)
    final = jax.lax.while_loop(
        can_improve,
        step,
        _State(
            position=jnp.int32(0),
            live_tokens_BxKxT=nothing_BxKxT,
            # One live hypothesis, the empty one; else all K would start as the same.
            live_log_probs_BxK=jnp.full((batch, beams), NEG_INF, jnp.float32).at[:, 0].set(0.0),
            done_tokens_BxKxT=nothing_BxKxT,
            done_scores_BxK=jnp.full((batch, beams), NEG_INF, jnp.float32),
            cache=cache,
        ),
    )
    some_done_B = final.done_scores_BxK[:, 0] > NEG_INF / 2
    tokens_BxKxT = jnp.where(
        some_done_B[:, None, None], final.done_tokens_BxKxT, final.live_tokens_BxKxT
    )
    scores_BxK = jnp.where(some_done_B[:, None], final.done_scores_BxK, final.live_log_probs_BxK)
    tokens_BxKxT = jnp.where(live_B[:, None, None], tokens_BxKxT, PAD_ID)
    return BeamDecoded(tokens_BxKxT[:, ::-1], scores_BxK[:, ::-1])
