"""Masks and draws on toy distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaft_promot.decoding import sampling

mask_top_p = jax.jit(sampling.mask_top_p)


def kept(masked_BxV):
    return np.isfinite(masked_BxV).tolist()


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.05, [False, True, False, False]),
        (0.5, [False, True, False, False]),
        (0.51, [False, True, True, False]),
        (0.8, [True, True, True, False]),
        (0.96, [True, True, True, True]),
        (1.0, [True, True, True, True]),
    ],
)
def test_top_p_keeps_the_smallest_sufficient_set(p, expected):
    logits = jnp.log(jnp.array([[0.15, 0.5, 0.25, 0.1]]))
    # 0.5 is not exact after the softmax; ask for a hair less.
    assert kept(mask_top_p(logits, p - 1e-4 if p < 1 else p)) == [expected]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.99))
def test_top_p_agrees_with_sorting(seed, p):
    logits = np.random.default_rng(seed).normal(size=(3, 50)).astype(np.float32) * 3
    probs = np.asarray(jax.nn.softmax(logits))
    for row, keep in zip(probs, kept(mask_top_p(jnp.asarray(logits), p)), strict=True):
        mass, size = row[keep].sum(), sum(keep)
        assert row[keep].min() >= row[~np.asarray(keep)].max(initial=0)
        assert mass >= p - 1e-5
        assert size == 1 or mass - row[keep].min() < p + 1e-5


def draw(logits_V, n, **options):
    keys = jax.random.split(jax.random.key(1), n)
    choose = sampling.sampling_choice(keys, **options)
    tokens = jax.jit(choose)(jnp.broadcast_to(logits_V, (n, len(logits_V))), jnp.int32(3))
    return np.bincount(tokens, minlength=len(logits_V)) / n


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature):
    logits = jnp.array([0.0, 1.0, -1.0, 2.0])
    n = 20_000
    share = draw(logits, n, temperature=temperature, top_k=0, top_p=None)
    expected = np.asarray(jax.nn.softmax(logits / temperature))
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / n))


def test_what_is_cut_is_never_drawn_and_the_rest_keeps_its_shares():
    logits = jnp.array([0.0, 1.0, -1.0, 2.0, 1.5])
    n = 4000
    share = draw(logits, n, temperature=5.0, top_k=3, top_p=None)
    expected = np.where([0, 1, 0, 1, 1], np.exp(logits / 5), 0)
    np.testing.assert_allclose(share, expected / expected.sum(), atol=4 * np.sqrt(0.25 / n))
    assert (share > 0).tolist() == [False, True, False, True, True]
    # Of the three that top-k leaves, 3 holds 0.51 and 4 holds 0.31.
    share = draw(logits, n, temperature=1.0, top_k=3, top_p=0.55)
    assert (share > 0).tolist() == [False, False, False, True, True]
    share = draw(logits, n, temperature=1.0, top_k=3, top_p=0.45)
    assert share.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("temperature", [1e-9, 1e-20, 1e-38, 1e-45, 1e-60])
@pytest.mark.parametrize("options", [{"top_p": 0.9}, {"top_p": 0.9, "top_k": 3}, {"top_p": None}])
def test_the_coldest_draw_is_the_most_probable_token(temperature, options):
    """Divided by it, all logits may lie far below or above what a mask would be."""
    options = {"top_k": 0, "temperature": temperature, **options}
    for logits in (
        [-12.0, -11.0, -30.0, -31.0, -33.0],
        [11.0, 12.0, 3.0, -31.0, 0.0],
        [-3e4, 0.0, -1e-3, -3e30, -float("inf")],
        [7.0, 7.5, 0.0, -1e10, -2e10],
    ):
        share = draw(jnp.array(logits), 100, **options)
        assert share.tolist() == [0, 1, 0, 0, 0], logits


def test_masking_makes_no_nan_and_leaves_the_most_probable():
    logits = jnp.array([[1e38, 0.0, -1e38], [-1e30, -2e30, -3e30], [0.0, -jnp.inf, -jnp.inf]])
    for p in (1e-6, 0.5, 0.999):
        assert kept(mask_top_p(logits, p)) == [[True, False, False]] * 3
    for p in (0.5, 1.0):
        assert not np.isnan(mask_top_p(logits, p)).any()


@pytest.mark.parametrize("top_k", [0, 4, 9])
def test_top_k_of_everything_draws_from_all(top_k):
    share = draw(jnp.zeros(4), 400, temperature=1.0, top_k=top_k, top_p=None)
    assert (share > 0.1).all()


def test_top_1_of_equals_is_the_lowest_id():
    assert draw(jnp.zeros(4), 10, temperature=1.0, top_k=1, top_p=None).tolist() == [1, 0, 0, 0]


def test_positions_and_rows_draw_differently():
    keys = jax.random.split(jax.random.key(1), 64)
    choose = sampling.sampling_choice(keys, temperature=1.0, top_k=0, top_p=None)
    logits = jnp.zeros((64, 100))
    first, second = choose(logits, jnp.int32(0)), choose(logits, jnp.int32(1))
    assert (np.asarray(first) != np.asarray(second)).mean() > 0.9
    assert len(set(first.tolist())) > 30
