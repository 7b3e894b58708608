"""A tiny random network over bytes, the base model of the tests that run verbs."""

import pathlib

import jax
import numpy as np

from kaft_promot.interop import write_native
from kaft_promot.models import Params, T5Config, abstract_params

CONFIG = T5Config(
    vocab_size=384,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=16,
)


def write_byte_model(folder: str | pathlib.Path) -> Params:
    """Writes the checkpoint with its configuration and vocabulary; returns its parameters."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda like: 0.3 * rng.standard_normal(like.shape, np.float32), abstract_params(CONFIG)
    )
    write_native(folder, params, CONFIG, vocabulary="bytes")
    return params
