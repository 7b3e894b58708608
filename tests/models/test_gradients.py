"""Gradients that are written out against those that JAX derives from the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaft_promot.models import gradients

pytestmark = pytest.mark.usefixtures("quick_compilation")


def plain_norm(x, scale):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + gradients.EPSILON) * scale


CASES = {
    "matmul to more": (gradients.matmul, jnp.dot, [(2, 3, 4), (4, 7)]),
    "matmul to fewer": (gradients.matmul, jnp.dot, [(2, 3, 7), (7, 4)]),
    "matmul of rows": (gradients.matmul, jnp.dot, [(5, 4), (4, 4)]),
    "norm": (lambda x, s: gradients.rms_norm(x, s, x.dtype), plain_norm, [(2, 3, 6), (6,)]),
    "gate": (gradients.gated_gelu, lambda x, g: jax.nn.gelu(x) * g, [(2, 3, 6), (2, 3, 6)]),
    "softmax": (gradients.softmax, lambda x: jax.nn.softmax(x), [(2, 2, 3, 5)]),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_equal_those_of_the_plain_formula(name):
    ours, plain, shapes = CASES[name]
    rng = np.random.default_rng(0)
    inputs = [rng.normal(0, 3, shape).astype(np.float32) for shape in shapes]
    out, pull = jax.vjp(ours, *inputs)
    expected, expected_pull = jax.vjp(plain, *inputs)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    cotangent = rng.normal(size=out.shape).astype(np.float32)
    for found, wanted in zip(pull(cotangent), expected_pull(cotangent), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", [name for name in CASES if name != "softmax"])
def test_bfloat16_gradients_have_the_inputs_types_and_are_close(name):
    ours, plain, shapes = CASES[name]
    rng = np.random.default_rng(1)
    wide = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    inputs = [jnp.asarray(x, jnp.bfloat16) for x in wide]
    if name == "norm":
        inputs[1] = jnp.asarray(wide[1])  # parameters are float32
    out, pull = jax.vjp(ours, *inputs)
    assert out.dtype == jnp.bfloat16
    _, expected_pull = jax.vjp(plain, *(jnp.float32(x) for x in inputs))
    cotangent = jnp.asarray(rng.normal(size=out.shape), jnp.bfloat16)
    for given, found, wanted in zip(
        inputs, pull(cotangent), expected_pull(jnp.float32(cotangent)), strict=True
    ):
        assert found.dtype == given.dtype
        np.testing.assert_allclose(jnp.float32(found), wanted, atol=0.03 * np.abs(wanted).max())


def test_a_row_with_nothing_to_attend_to_has_no_nan():
    scores = jnp.full((1, 4), -1e10)
    y, pull = jax.vjp(gradients.softmax, scores)
    np.testing.assert_allclose(y, 0.25)
    assert np.isfinite(pull(jnp.ones((1, 4)))[0]).all()


def test_what_the_gate_and_the_softmax_keep_is_small():
    """The point of writing them out: two arrays of the gate, one of the softmax."""
    x = jnp.ones((3, 8))
    for function, inputs, arrays in (
        (gradients.gated_gelu, (x, x), 2),
        (gradients.softmax, (x,), 1),
    ):
        _, pull = jax.vjp(function, *inputs)
        assert sum(leaf.size for leaf in jax.tree.leaves(pull)) == arrays * x.size


def test_what_all_rows_share_gets_the_sum_of_their_gradients():
    rng = np.random.default_rng(2)
    rows = jnp.where(rng.random((5, 1, 3, 4)) < 0.3, -1e10, 0.0)
    shared = jnp.asarray(rng.normal(size=(1, 2, 3, 4)), jnp.float32)
    out, pull = jax.vjp(lambda shared: gradients.add_to_rows(rows, shared), shared)
    np.testing.assert_array_equal(out, rows + shared)
    cotangent = jnp.asarray(rng.normal(size=out.shape), jnp.float32)
    (found,) = pull(cotangent)
    np.testing.assert_allclose(found, cotangent.sum(0, keepdims=True), rtol=1e-5, atol=1e-6)
