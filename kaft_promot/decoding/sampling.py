"""Drawing tokens: temperature, top-k, top-p (nucleus), as pure functions of logits.

Every row has its own random key, and a draw's key is that key folded with the position: what a row
draws depends on neither the rows beside it nor its place in the batch.
"""

import jax
import jax.numpy as jnp

from kaft_promot.decoding.loop import Choose


def mask_top_p(logits_BxV: jax.Array, p: jax.Array | float) -> jax.Array:
    """Leaves each row's nucleus: the fewest most probable tokens that hold at least p of the mass.

    Holtzman et al. 2020 (arXiv 1904.09751), section 3.1. Tokens that tie with the nucleus' least
    probable member stay as well; the most probable token always stays; p >= 1 leaves everything.
    What does not stay is -inf: below every logit, however small the temperature that divided them.

    The threshold is found by bisection on the probabilities' bit patterns, which for floats that
    are not negative are ordered as the floats are: 31 vectorised sums, exact, in place of a sort
    over the vocabulary (which is slow on CPUs and TPUs alike).
    """
    probs_BxV = jax.nn.softmax(logits_BxV.astype(jnp.float32), axis=-1)
    bits_BxV = jax.lax.bitcast_convert_type(probs_BxV, jnp.int32)

    # Invariant: the tokens at or above `low` hold at least p; those at or above `high` do not.
    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_Bx1, high_Bx1 = bounds
        middle_Bx1 = low_Bx1 + (high_Bx1 - low_Bx1) // 2
        mass_Bx1 = jnp.sum(
            jnp.where(bits_BxV >= middle_Bx1, probs_BxV, 0.0), axis=-1, keepdims=True
        )
        enough_Bx1 = mass_Bx1 >= p
        return (
            jnp.where(enough_Bx1, middle_Bx1, low_Bx1),
            jnp.where(enough_Bx1, high_Bx1, middle_Bx1),
        )

    largest_Bx1 = jnp.max(bits_BxV, axis=-1, keepdims=True)
    low_Bx1, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(largest_Bx1), largest_Bx1 + 1))
    keep_BxV = (bits_BxV >= jnp.minimum(low_Bx1, largest_Bx1)) | (jnp.asarray(p) >= 1.0)
    return jnp.where(keep_BxV, logits_BxV, -jnp.inf)


def sampling_choice(
    keys_B: jax.Array,
    *,
    temperature: jax.Array | float,
    top_k: int,
    top_p: jax.Array | float | None,
) -> Choose:
    """Makes the `choose` function of the decode loop that draws tokens.

    Args:
      keys_B: [B] typed random keys, one a row.
      temperature: logits are divided by it, > 0.
      top_k: draw from this many most probable tokens (static; of equals the lowest ids); 0, or as
        many as there are, draws from all. It also saves the work on all others.
      top_p: draw from the nucleus of this mass, in (0, 1], of what top_k left; None skips the
        computation.

    Returns:
      (logits_BxV, position) -> token_B int32.
    """

    def choose(logits_BxV: jax.Array, position: jax.Array) -> jax.Array:
        ids_BxN, logits_BxN = None, logits_BxV  # N candidates a row
        if 0 < top_k < logits_BxV.shape[-1]:
            logits_BxN, ids_BxN = jax.lax.top_k(logits_BxV, top_k)
        # With 0 as the largest, a tiny temperature sends the others to -inf and none to +inf. Where
        # float32 holds no such temperature it counts as the smallest that it holds: 0 / 0 is NaN.
        logits_BxN = logits_BxN - jnp.max(logits_BxN, axis=-1, keepdims=True)
        logits_BxN = logits_BxN / jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)
        if top_p is not None:
            logits_BxN = mask_top_p(logits_BxN, top_p)
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, position)
        drawn_B = jax.vmap(jax.random.categorical)(keys, logits_BxN).astype(jnp.int32)
        if ids_BxN is None:
            return drawn_B
        return jnp.take_along_axis(ids_BxN, drawn_B[:, None], axis=-1)[:, 0]

    return choose
