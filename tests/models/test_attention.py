"""Attention drops values, which is what T5X does when it drops weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from kaft_promot.models import T5Config
from kaft_promot.models.attention import Attention

ROWS, HEADS, QUERIES, KEYS, WIDTH = 2, 3, 5, 7, 8
CONFIG = T5Config(
    vocab_size=64,
    emb_dim=16,
    num_heads=HEADS,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=WIDTH,
    mlp_dim=32,
    dropout_rate=0.5,
)


class DropsWeights(Attention):
    """Written as in T5X: weights are dropped, with one mask `[B, H, 1, K]` for all queries."""

    def attend(self, x, key, value, bias, deterministic=True):
        assert not deterministic
        weights = nn.softmax(self._heads_first(self.query(x)) @ key.swapaxes(-1, -2) + bias)
        # What the module draws, one number a row, head and key, in the shape that T5X draws it in.
        mask = self.drop(jnp.ones_like(value), deterministic=False)[..., 0]
        context = (weights * mask[:, :, None]) @ value
        return self.out(context.swapaxes(1, 2).reshape(*x.shape[:-1], -1))


def test_dropping_a_keys_values_is_dropping_its_weights():
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (ROWS, QUERIES, CONFIG.emb_dim))
    memory = jax.random.normal(keys[1], (ROWS, KEYS, CONFIG.emb_dim))
    bias = jax.random.normal(keys[2], (ROWS, HEADS, QUERIES, KEYS))
    variables = Attention(CONFIG).init(keys[3], x, memory, bias, True)

    def output(module, variables, memory):
        return module.apply(variables, x, memory, bias, False, rngs={"dropout": keys[0]})

    for module in (Attention, DropsWeights):
        assert not np.allclose(
            output(module(CONFIG), variables, memory),
            Attention(CONFIG).apply(variables, x, memory, bias, True),
            atol=1e-2,
        )
    np.testing.assert_allclose(
        output(Attention(CONFIG), variables, memory),
        output(DropsWeights(CONFIG), variables, memory),
        atol=1e-5,
    )

    def slopes(module):
        return jax.grad(lambda *at: jnp.sum(output(module, *at) ** 2), (0, 1))(variables, memory)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
        slopes(Attention(CONFIG)),
        slopes(DropsWeights(CONFIG)),
    )


def test_a_mask_is_drawn_as_t5x_draws_it():
    """Attention's mask of values is, number for number, T5X's of weights from the same key."""

    def mask(drop, shape):
        ones = jnp.ones(shape)
        return drop.apply({}, ones, deterministic=False, rngs={"dropout": jax.random.key(1)})

    bound = Attention(CONFIG).bind({})
    of_values = mask(bound.drop.clone(parent=None), (ROWS, HEADS, KEYS, WIDTH))
    t5x = nn.Dropout(CONFIG.dropout_rate, broadcast_dims=(-2,))
    of_weights = mask(t5x, (ROWS, HEADS, QUERIES, KEYS))
    assert set(np.unique(of_weights)) == {0, 2}
    np.testing.assert_array_equal(of_weights[:, :, 0], of_values[..., 0])
    # ... and every query, every number of a value, has its key's.
    assert (of_weights == of_weights[:, :, :1]).all() and (of_values == of_values[..., :1]).all()
