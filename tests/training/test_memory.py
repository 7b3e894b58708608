"""How much a training step keeps."""

import jax
import jax.numpy as jnp

from kaft_promot.models import T5Config, Transformer, abstract_params
from kaft_promot.training.losses import smoothed_cross_entropy


def test_a_training_step_keeps_little_for_its_backward_pass():
    """The benchmark's network and batch: what JAX keeps, without running or compiling anything."""
    config = T5Config(
        vocab_size=8192,
        emb_dim=256,
        num_heads=8,
        num_encoder_layers=4,
        num_decoder_layers=4,
        head_dim=32,
        mlp_dim=1024,
    )
    params = abstract_params(config)
    inputs, targets = (jax.ShapeDtypeStruct((32, n), jnp.int32) for n in (128, 64))

    def pull(params, inputs, targets):
        def loss(params):
            logits = Transformer(config).apply({"params": params}, inputs, targets)
            return jnp.sum(smoothed_cross_entropy(logits, targets, 0.0, 1e-4)[0])

        return jax.vjp(loss, params)[1]

    kept = jax.eval_shape(pull, params, inputs, targets)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))
    assert size < 9e8
