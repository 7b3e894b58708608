"""Greedy decoding, sampling and scoring against the whole network without a cache."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaft_promot.decoding import greedy, programs, sample, score, trace_counts
from kaft_promot.errors import UserError
from kaft_promot.models import stack_layers

T = 10


def greedy_without_cache(config, params, inputs, reference):
    tokens = np.zeros((len(inputs), T), np.int32)
    ended = np.zeros(len(inputs), bool)
    for t in range(T):
        best = np.argmax(reference(config, params, inputs, tokens)[:, t], axis=-1)
        tokens[:, t] = np.where(ended, 0, best)
        ended |= tokens[:, t] == 1
    return tokens


def lengths_of(tokens):
    return [list(row).index(1) + 1 if 1 in row else len(row) for row in tokens]


@pytest.mark.parametrize("seed", range(3))
def test_greedy_equals_uncached_argmax(config, params, reference, seed, make_inputs):
    inputs = make_inputs(seed, [1, 3, 9, 12, 5, 7, 2, 12], 12)
    decoded = greedy(config, params, inputs, T)
    expected = greedy_without_cache(config, params, inputs, reference)
    np.testing.assert_array_equal(decoded.tokens, expected)
    assert len(set(map(tuple, expected))) > 2  # outputs vary
    log_probs = reference(config, params, inputs, expected)
    for b, n in enumerate(lengths_of(expected)):
        total = sum(log_probs[b, t, expected[b, t]] for t in range(n))
        assert decoded.log_probs[b] == pytest.approx(total, abs=1e-4)


def test_rows_do_not_depend_on_padding_or_neighbours(config, params, make_inputs):
    inputs = make_inputs(5, [4, 8, 6], 8)
    together = greedy(config, params, np.pad(inputs, ((0, 2), (0, 5))), T)
    for b, row in enumerate(inputs):
        alone = greedy(config, params, row[None], T)
        np.testing.assert_array_equal(together.tokens[b], alone.tokens[0])


def test_stacked_parameters_decode_the_same(config, params, make_inputs):
    inputs = make_inputs(5, [4, 8, 6], 8)
    scanned = dataclasses.replace(config, scan_layers=True)
    expected = greedy(config, params, inputs, T).tokens
    np.testing.assert_array_equal(greedy(scanned, stack_layers(params), inputs, T).tokens, expected)


def test_filler_rows_decode_to_nothing(config, params, make_inputs):
    inputs = make_inputs(1, [5, 5, 5], 5)
    inputs[1] = 0
    decoded = greedy(config, params, inputs, T)
    assert not decoded.tokens[1].any()
    assert decoded.log_probs[1] == 0


def test_sampled_rows_do_not_depend_on_the_batch(config, params, make_inputs):
    inputs = make_inputs(2, [4, 8, 6, 3, 8, 7], 8)
    keys = jax.random.split(jax.random.key(0), 6)
    options = {"temperature": 1.5, "top_k": 9, "top_p": 0.9}
    together = sample(config, params, inputs, T, key=keys, **options).tokens
    order = np.array([4, 2, 0])
    some = sample(config, params, inputs[order], T, key=keys[order], **options).tokens
    np.testing.assert_array_equal(some, together[order])
    others = sample(config, params, inputs, T, key=jax.random.key(7), **options).tokens
    assert (others != together).any()


def test_top_1_and_tiny_nucleus_are_greedy(config, params, make_inputs):
    inputs = make_inputs(2, [4, 8, 6, 3], 8)
    expected = greedy(config, params, inputs, T)
    key = jax.random.key(0)
    for options in ({"top_k": 1}, {"top_p": 1e-6}):
        sampled = sample(config, params, inputs, T, key=key, **options)
        np.testing.assert_array_equal(sampled.tokens, expected.tokens)
        np.testing.assert_allclose(sampled.log_probs, expected.log_probs, atol=1e-5)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": -1}, {"top_p": 0}, {"top_p": 2}])
def test_bad_sampling_options_are_user_errors(config, params, options):
    with pytest.raises(UserError, match=next(iter(options))):
        sample(config, params, np.ones((1, 2)), T, key=jax.random.key(0), **options)


def test_score_is_the_sum_of_log_softmax(config, params, reference, make_inputs):
    inputs = make_inputs(3, [4, 8, 6], 8)
    targets = make_inputs(4, [5, 1, 3], 5)
    scores = score(config, params, inputs, targets)
    log_probs = reference(config, params, inputs, targets)
    for b, n in enumerate(lengths_of(targets)):
        total = sum(log_probs[b, t, targets[b, t]] for t in range(n))
        assert scores[b] == pytest.approx(total, abs=1e-5)


def test_score_of_the_greedy_output_is_its_log_probability(config, params, make_inputs):
    inputs = make_inputs(6, [4, 8, 6, 2, 7], 8)
    decoded = greedy(config, params, inputs, T)
    scores = score(config, params, inputs, decoded.tokens)
    np.testing.assert_allclose(scores, decoded.log_probs, atol=1e-4)


def test_a_repeated_shape_compiles_nothing_and_arms_share_programs(config, params, make_inputs):
    other = jax.tree.map(lambda x: x * 0.5, params)
    inputs = make_inputs(1, [5, 4], 6)
    key = jax.random.key(0)
    for options in ({"top_p": 0.5, "temperature": 2.0}, {"top_p": 0.7, "temperature": 0.3}):
        for p in (params, other):
            greedy(config, p, inputs, 4)
            sample(config, p, inputs, 4, key=key, **options)
            score(config, p, inputs, inputs)
        before = trace_counts() if p is other and options["top_p"] == 0.5 else before  # noqa: F821
    assert trace_counts() == before
    assert programs._greedy._cache_size() >= 1
    greedy(config, params, inputs, 5)
    assert trace_counts()["greedy"] == before["greedy"] + 1


def test_programs_take_jax_arrays_too(config, params, make_inputs):
    inputs = make_inputs(1, [5, 4], 6)
    np.testing.assert_array_equal(
        greedy(config, params, jnp.asarray(inputs), 4).tokens,
        greedy(config, params, inputs, 4).tokens,
    )
