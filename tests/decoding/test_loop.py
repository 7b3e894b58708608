"""The decode loop on toy logits: early stop, filler rows, the choice of the maximum."""

import jax
import jax.numpy as jnp
import numpy as np

from kaft_promot.decoding import loop


def counting_step(ends_B):
    """Row b repeats token 2 and ends at position ends_B[b]; the cache counts the calls."""

    def tokens_to_logits(token_B, position, cache):
        next_B = jnp.where(position == jnp.asarray(ends_B), 1, 2)
        return jax.nn.one_hot(next_B, 4) * 5.0, cache + 1

    return tokens_to_logits


def run(ends_B, live_B, length):
    calls = []

    def tokens_to_logits(token_B, position, cache):
        jax.debug.callback(lambda p: calls.append(int(p)), position)
        return counting_step(ends_B)(token_B, position, cache)

    decoded = loop.decode(
        tokens_to_logits,
        loop.greedy_choice,
        jnp.int32(0),
        jnp.asarray(live_B),
        max_decode_length=length,
    )
    jax.effects_barrier()
    return decoded, len(calls)


def test_stops_when_every_live_row_has_ended():
    decoded, calls = run([0, 3, 9], [True, True, False], 8)
    assert calls == 4
    expected = np.zeros((3, 8), int)
    expected[0, :1] = [1]
    expected[1, :4] = [2, 2, 2, 1]
    np.testing.assert_array_equal(decoded.tokens, expected)
    one = 5.0 - np.log(np.exp(5.0) + 3)
    np.testing.assert_allclose(decoded.log_probs, [one, 4 * one, 0], rtol=1e-5)


def test_stops_at_the_maximal_length():
    decoded, calls = run([9, 0], [True, True], 5)
    assert calls == 5
    assert decoded.tokens[0].tolist() == [2] * 5


def test_runs_not_at_all_without_live_rows():
    _, calls = run([9, 0], [False, False], 5)
    assert calls == 0


def test_the_start_token_and_then_the_last_token_are_fed():
    fed = []

    def tokens_to_logits(token_B, position, cache):
        jax.debug.callback(lambda p, t: fed.append((int(p), t.tolist())), position, token_B)
        return jax.nn.one_hot(token_B + 2, 9), cache

    loop.decode(tokens_to_logits, loop.greedy_choice, (), jnp.ones(2, bool), max_decode_length=3)
    jax.effects_barrier()
    assert sorted(fed) == [(0, [0, 0]), (1, [2, 2]), (2, [4, 4])]


def test_argmax_takes_the_first_of_equals_and_stays_inside():
    x = jnp.array([[0.0, 2.0, 2.0], [-1.0, -5.0, -1.0], [jnp.nan] * 3])
    best = loop.argmax_last(x)
    assert best[:2].tolist() == [1, 0]
    assert 0 <= int(best[2]) <= 2
