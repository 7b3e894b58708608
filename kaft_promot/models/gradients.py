"""The functions of a layer whose gradients are written out: training then keeps or computes less.

Derived by JAX, their backward passes keep what is cheap to make again: both exponentials and
quotients of a softmax, every step of a GELU, and the broadcasts of a norm. On a CPU, where XLA
undoes rematerialisation (it finds the second computation equal to the first), that took half of the
memory of a training step. Each gradient here is a formula of the inputs or of the output alone, and
takes another form than the forward pass, so that there is nothing to find equal. The tests compare
them with JAX's own. Shapes: ... any leading axes, D and F the last ones.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

EPSILON = 1e-6
# The tanh approximation of GELU (Hendrycks and Gimpel, arXiv 1606.08415).
_SLOPE, _CUBE = float(np.sqrt(2 / np.pi)), 0.044715


@jax.custom_vjp
def matmul(x_D: jax.Array, kernel_DxF: jax.Array) -> jax.Array:
    """`x @ kernel`, `[..., F]`."""
    return jnp.dot(x_D, kernel_DxF)


def _matmul_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    return jnp.dot(x, kernel), (x, kernel)


def _matmul_backward(kept: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    rows = tuple(range(x.ndim - 1))
    # XLA lays the first operand out anew: let it be the narrower one, which for logits is x,
    # and of equals x, whose new layout the kernels that read the same x can share.
    first, second = (x, g) if x.shape[-1] <= g.shape[-1] else (g, x)
    slope = jax.lax.dot_general(first, second, ((rows, rows), ((), ())))
    return jnp.dot(g, kernel.T), slope if first is x else slope.T


matmul.defvjp(_matmul_forward, _matmul_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x_D: jax.Array, scale_D: jax.Array, dtype: Any) -> jax.Array:
    """`x / sqrt(mean(x^2) + EPSILON) * scale` over the last axis, in `dtype`.

    The statistics are float32 (Zhang and Sennrich, arXiv 1910.07467).
    """
    return _norm_forward(x_D, scale_D, dtype)[0]


def _norm_forward(x: jax.Array, scale: jax.Array, dtype: Any) -> tuple[jax.Array, Any]:
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + EPSILON)
    return (wide * inverse).astype(dtype) * scale.astype(dtype), (x, scale, inverse)


def _norm_backward(dtype: Any, kept: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, scale, inverse = kept
    wide, g = x.astype(jnp.float32), g.astype(jnp.float32)
    rounded = scale.astype(dtype).astype(jnp.float32)
    product = g * wide
    rows = tuple(range(x.ndim - 1))
    slope = jax.lax.dot_general(product, inverse[..., 0], ((rows, rows), ((), ())))
    # d inverse / dx = -inverse^3 x / D
    drift = jnp.dot(product, rounded)[..., None] / x.shape[-1] * inverse**3
    return (g * rounded * inverse - wide * drift).astype(x.dtype), slope.astype(scale.dtype)


rms_norm.defvjp(_norm_forward, _norm_backward)


@jax.custom_vjp
def gated_gelu(x_F: jax.Array, gate_F: jax.Array) -> jax.Array:
    """`gelu(x) * gate` with the tanh approximation, as T5X and Hugging Face's `gelu_new`."""
    return jax.nn.gelu(x_F) * gate_F


def _gate_forward(x: jax.Array, gate: jax.Array) -> tuple[jax.Array, Any]:
    return jax.nn.gelu(x) * gate, (x, gate)


def _gate_backward(kept: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, gate = (value.astype(jnp.float32) for value in kept)
    wide = g.astype(jnp.float32)
    # gelu(x) = x sigmoid(z): the same function as with tanh, written differently. Each gradient has
    # a sigmoid of its own: one for both XLA would make as soon as x is there, and keep until now.
    z = 2 * _SLOPE * (x + _CUBE * x * x * x)
    share, rest = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    slope = share + x * share * (1 - share) * (2 * _SLOPE) * (1 + 3 * _CUBE * x * x)
    return (wide * gate * slope).astype(g.dtype), (wide * (x - x * rest)).astype(g.dtype)


gated_gelu.defvjp(_gate_forward, _gate_backward)


@jax.custom_vjp
def softmax(x: jax.Array) -> jax.Array:
    """Softmax over the last axis."""
    return jax.nn.softmax(x, axis=-1)


def _softmax_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jax.nn.softmax(x, axis=-1)
    return y, y


def _softmax_backward(y: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (y * (g - jnp.sum(g * y, axis=-1, keepdims=True)),)


softmax.defvjp(_softmax_forward, _softmax_backward)


@jax.custom_vjp
def add_to_rows(rows_BxHxQxK: jax.Array, shared_1xHxQxK: jax.Array) -> jax.Array:
    """`rows + shared`, `[B, H, Q, K]`: what all rows share, added to each. B is that of `rows`.

    Only `shared` has a gradient. It is a sum over the rows, here a product with ones: XLA's own sum
    over the first axis is many times slower on a CPU.
    """
    return rows_BxHxQxK + shared_1xHxQxK


def _add_forward(rows: jax.Array, shared: jax.Array) -> tuple[jax.Array, None]:
    return rows + shared, None


def _add_backward(_: None, g: jax.Array) -> tuple[None, jax.Array]:
    return None, jnp.einsum("b,bhqk->hqk", jnp.ones(g.shape[0], g.dtype), g)[None]


add_to_rows.defvjp(_add_forward, _add_backward)
