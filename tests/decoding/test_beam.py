"""Beam search against exhaustive search, greedy decoding and its written conventions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaft_promot.decoding import beam_decode, beam_search, decode, greedy, score
from kaft_promot.decoding.beam import NEG_INF, length_penalty
from kaft_promot.decoding.loop import greedy_choice
from kaft_promot.errors import UserError

V, T = 4, 4


def toy_table(seed, batch, scale=2.0):
    """Random log probabilities [B, T, V, V, V] of the next token after the two tokens before."""
    logits = np.random.default_rng(seed).normal(size=(batch, T, V, V, V)) * scale
    return np.array(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))


def toy_search(table, beams, alpha=0.6, penalty="t5x", live=None):
    live = np.ones(len(table), bool) if live is None else np.array(live)
    return _toy_search(table, live, alpha, beams=beams, penalty=penalty)


@functools.partial(jax.jit, static_argnames=("beams", "penalty"))
def _toy_search(table, live, alpha, *, beams, penalty):
    rows = jnp.repeat(jnp.arange(len(table)), beams)

    def tokens_to_logits(token, position, cache):  # the cache holds the token before the last
        return table[rows, position, cache, token], token

    return beam_decode(
        tokens_to_logits,
        jnp.zeros(len(table) * beams, jnp.int32),
        live,
        max_decode_length=T,
        num_beams=beams,
        alpha=alpha,
        penalty=penalty,
    )


def all_sequences(table_row, alpha, penalty):
    """[(score, tokens)] of every sequence that ends, and (for hf) of those that are cut off."""
    found = []
    for length in range(1, T + 1):
        for body in itertools.product([t for t in range(V) if t != 1], repeat=length - 1):
            last = range(V) if penalty == "hf" and length == T else [1]
            for end in last:
                tokens = (*body, end)
                total, before, token = 0.0, 0, 0
                for t, new in enumerate(tokens):
                    total += table_row[t, before, token, new]
                    before, token = token, new
                n = length
                divisor = ((5 + n) / 6) ** alpha if penalty == "t5x" else n**alpha
                found.append((total / divisor, tokens + (0,) * (T - length)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", ["t5x", "hf"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_wide_beam_is_an_exhaustive_search(penalty, alpha):
    table = toy_table(0, 3)
    beams = 60  # 2 * 60 candidates: more than the 27 unfinished sequences times 4 tokens
    tokens, scores = toy_search(table, beams, alpha, penalty)
    for b in range(3):
        expected = all_sequences(table[b], alpha, penalty)[:beams]
        found = scores[b, ::-1][: len(expected)]
        np.testing.assert_allclose(found, [s for s, _ in expected], rtol=1e-4)
        assert tuple(tokens[b, -1].tolist()) == expected[0][1]


@pytest.mark.parametrize("seed", range(4))
def test_scores_increase_and_are_those_of_their_tokens(seed):
    table = toy_table(seed, 4)
    tokens, scores = toy_search(table, 3)
    assert (np.diff(scores, axis=-1) >= 0).all()
    for b in range(4):
        known = {t: s for s, t in all_sequences(table[b], 0.6, "t5x")}
        for k in range(3):
            assert scores[b, k] == pytest.approx(known[tuple(tokens[b, k].tolist())], rel=1e-4)


def test_a_row_is_searched_the_same_in_every_batch():
    table = toy_table(1, 5)
    together = toy_search(table, 2)
    for b in range(5):
        alone = toy_search(table[b : b + 1], 2)
        np.testing.assert_array_equal(together.tokens[b], alone.tokens[0])
        np.testing.assert_allclose(together.scores[b], alone.scores[0], rtol=1e-6)


def test_without_an_end_the_live_hypotheses_come_back_unpenalised():
    table = toy_table(2, 1)
    table[..., 1] = -1e9
    table = np.array(jax.nn.log_softmax(table))
    tokens, scores = toy_search(table, 2)
    assert 1 not in np.asarray(tokens)
    by_total = sorted(
        (
            sum(
                table[0, t, s[t - 2] if t > 1 else 0, s[t - 1] if t > 0 else 0, s[t]]
                for t in range(T)
            )
            for s in itertools.product([0, 2, 3], repeat=T)
        ),
        reverse=True,
    )
    assert scores[0, -1] <= by_total[0] + 1e-5
    assert any(scores[0, -1] == pytest.approx(total, rel=1e-5) for total in by_total)


def test_fewer_hypotheses_than_beams_are_told_by_their_score():
    table = np.full((1, T, V, V, V), -1e9, np.float32)
    table[..., 1] = 0.0  # the end token at once is all there is
    tokens, scores = toy_search(table, 3)
    assert tokens[0, -1].tolist() == [1, 0, 0, 0]
    assert scores[0, -1] == pytest.approx(0, abs=1e-5)
    assert (scores[0, :2] <= NEG_INF / 2).all()


def test_filler_rows_neither_decode_nor_keep_the_search_going():
    table = toy_table(3, 2)
    tokens, _ = toy_search(table, 2, live=[True, False])
    assert not tokens[1].any()
    np.testing.assert_array_equal(tokens[0], toy_search(table[:1], 2).tokens[0])


def test_penalties_count_tokens_as_documented():
    assert length_penalty(7, 0.6, "t5x") == pytest.approx(2**0.6)
    assert length_penalty(1, 0.6, "t5x") == pytest.approx(1)
    assert length_penalty(4, 0.5, "hf") == pytest.approx(2)


@pytest.mark.parametrize("penalty", ["t5x", "hf"])
def test_one_beam_is_greedy_where_the_end_is_never_second(penalty):
    """A T5X beam of one also keeps an end that is second best, which greedy passes by."""
    table = toy_table(5, 40, scale=1.0)
    table[..., 1] = np.where(np.argmax(table, axis=-1) == 1, table[..., 1], -1e4)
    rows = jnp.arange(len(table))

    def tokens_to_logits(token, position, cache):
        return jnp.asarray(table)[rows, position, cache, token], token

    expected = decode(
        tokens_to_logits,
        greedy_choice,
        jnp.zeros(len(table), jnp.int32),
        jnp.ones(len(table), bool),
        max_decode_length=T,
    )
    found = toy_search(table, 1, 0.6, penalty)
    np.testing.assert_array_equal(found.tokens[:, 0], expected.tokens)
    ended = [1 in row for row in expected.tokens.tolist()]
    assert 5 < sum(ended) < 35


def test_beams_of_the_model_score_as_the_scorer_says(config, params, make_inputs):
    inputs = make_inputs(4)
    tokens, scores = (np.asarray(x) for x in beam_search(config, params, inputs, 10, num_beams=3))
    totals = [np.asarray(score(config, params, inputs, tokens[:, k])) for k in range(3)]
    greedily = greedy(config, params, inputs, 10)
    better = checked = 0
    for b, rows in enumerate(tokens.tolist()):
        found = scores[b] > NEG_INF / 2
        assert found[-1]
        for k in np.flatnonzero(found):
            n = rows[k].index(1) + 1 if 1 in rows[k] else 10
            penalty = ((5 + n) / 6) ** 0.6 if 1 in rows[k] else 1
            if 0 not in rows[k][:n]:  # the scorer takes a padding token that was made for padding
                assert scores[b, k] == pytest.approx(totals[k][b] / penalty, abs=1e-4)
                checked += 1
        assert len({tuple(rows[k]) for k in np.flatnonzero(found)}) == found.sum()
        better += rows[-1] != greedily.tokens[b].tolist()
    assert checked > 12
    assert better > 0  # the search finds what greedy misses


def test_bad_beam_options_are_user_errors(config, params):
    inputs = np.ones((1, 2), np.int32)
    for options in ({"num_beams": 0}, {"alpha": -0.1}, {"penalty": "gnmt"}):
        with pytest.raises(UserError):
            beam_search(config, params, inputs, 4, **options)
