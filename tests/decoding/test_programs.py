"""Greedy decoding, sampling and scoring against the whole network without a cache."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaft_promot.decoding import greedy, sample, score, trace_counts
from kaft_promot.errors import UserError
from kaft_promot.models import stack_layers

T = 10
SAMPLING = {"top_k": 9, "top_p": 0.9}


def greedy_without_cache(config, params, inputs, reference):
    tokens = np.zeros((len(inputs), T), np.int32)
    ended = np.zeros(len(inputs), bool)
    for t in range(T):
        best = np.argmax(reference(config, params, inputs, tokens)[:, t], axis=-1)
        tokens[:, t] = np.where(ended, 0, best)
        ended |= tokens[:, t] == 1
    return tokens


def lengths_of(tokens):
    return [row.index(1) + 1 if 1 in row else len(row) for row in np.asarray(tokens).tolist()]


@pytest.mark.parametrize("seed", range(4))
def test_greedy_equals_uncached_argmax(config, params, reference, make_inputs, seed):
    rng = np.random.default_rng(seed)
    inputs = make_inputs(seed, rng.integers(1, 13, 8))
    decoded = greedy(config, params, inputs, T)
    expected = greedy_without_cache(config, params, inputs, reference)
    np.testing.assert_array_equal(decoded.tokens, expected)
    assert len(set(map(tuple, expected.tolist()))) > 3  # the outputs vary
    log_probs = reference(config, params, inputs, expected)
    for b, n in enumerate(lengths_of(expected)):
        total = sum(log_probs[b, t, expected[b, t]] for t in range(n))
        assert decoded.log_probs[b] == pytest.approx(total, abs=1e-4)


def test_rows_do_not_depend_on_padding_or_neighbours(config, params, make_inputs):
    inputs = make_inputs(5)
    together = greedy(config, params, inputs, T)
    for b in (1, 2, 4):
        alone = greedy(config, params, inputs[b : b + 1, :9], T)
        np.testing.assert_array_equal(together.tokens[b], alone.tokens[0])
        assert together.log_probs[b] == pytest.approx(float(alone.log_probs[0]), abs=1e-4)


def test_stacked_parameters_decode_the_same(config, params, make_inputs):
    inputs = make_inputs(5)
    scanned = dataclasses.replace(config, scan_layers=True)
    expected = greedy(config, params, inputs, T).tokens
    np.testing.assert_array_equal(greedy(scanned, stack_layers(params), inputs, T).tokens, expected)


def test_filler_rows_decode_to_nothing(config, params, make_inputs):
    inputs = make_inputs(1)
    inputs[1] = 0
    decoded = greedy(config, params, inputs, T)
    assert not decoded.tokens[1].any()
    assert decoded.log_probs[1] == 0


def test_sampled_rows_do_not_depend_on_the_batch(config, params, make_inputs):
    inputs = make_inputs(2)
    keys = jax.random.split(jax.random.key(0), 8)
    together = sample(config, params, inputs, T, key=keys, temperature=1.5, **SAMPLING)
    order = np.array([4, 2, 0, 7, 6, 1, 3, 5])
    inputs[3] = inputs[0]  # row 0 has another neighbour
    again = sample(config, params, inputs[order], T, key=keys[order], temperature=1.5, **SAMPLING)
    same = order != 3
    np.testing.assert_array_equal(again.tokens[same], together.tokens[order[same]])
    np.testing.assert_allclose(again.log_probs[same], together.log_probs[order[same]], atol=1e-4)
    others = sample(config, params, inputs, T, key=jax.random.key(7), temperature=1.5, **SAMPLING)
    assert (others.tokens != together.tokens).any()


def test_a_cold_sample_is_greedy(config, params, make_inputs):
    inputs = make_inputs(2)
    expected = greedy(config, params, inputs, T)
    sampled = sample(config, params, inputs, T, key=jax.random.key(0), temperature=1e-5, **SAMPLING)
    np.testing.assert_array_equal(sampled.tokens, expected.tokens)
    # Log probabilities are the model's own, whatever the temperature.
    np.testing.assert_allclose(sampled.log_probs, expected.log_probs, atol=1e-4)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": -1}, {"top_p": 0}, {"top_p": 2}])
def test_bad_sampling_options_are_user_errors(config, params, options):
    with pytest.raises(UserError, match=next(iter(options))):
        sample(config, params, np.ones((1, 2)), T, key=jax.random.key(0), **options)


def test_score_is_the_sum_of_log_softmax(config, params, reference, make_inputs):
    inputs = make_inputs(3)
    targets = make_inputs(4, [5, 1, 3, 10, 2, 2, 7, 4], T)
    scores = score(config, params, inputs, targets)
    log_probs = reference(config, params, inputs, targets)
    for b, n in enumerate(lengths_of(targets)):
        total = sum(log_probs[b, t, targets[b, t]] for t in range(n))
        assert scores[b] == pytest.approx(total, abs=1e-4)


def test_score_of_the_greedy_output_is_its_log_probability(config, params, make_inputs):
    inputs = make_inputs(6)
    decoded = greedy(config, params, inputs, T)
    scores = score(config, params, inputs, decoded.tokens)
    for b, n in enumerate(lengths_of(decoded.tokens)):
        if decoded.tokens[
            b, :n
        ].all():  # the scorer takes a padding token that was made for padding
            assert scores[b] == pytest.approx(float(decoded.log_probs[b]), abs=1e-4)


def test_a_repeated_shape_compiles_nothing_and_arms_share_programs(config, params, make_inputs):
    other = jax.tree.map(lambda x: x * 0.5, params)
    key = jax.random.key(0)

    def use_all(params, seed, temperature):
        inputs = make_inputs(seed)
        greedy(config, params, inputs, T)
        sample(config, params, inputs, T, key=key, temperature=temperature, **SAMPLING)
        score(config, params, inputs, inputs[:, :T])

    use_all(params, 0, 1.0)
    before = trace_counts()
    use_all(other, 1, 0.5)
    # What only training reads is no part of a program's identity.
    greedy(dataclasses.replace(config, dropout_rate=0.1, remat="full"), other, make_inputs(0), T)
    greedy(config, params, jnp.asarray(make_inputs(2)), T)
    assert trace_counts() == before
    greedy(config, params, make_inputs(0), T + 1)
    assert trace_counts()["greedy"] == before["greedy"] + 1
