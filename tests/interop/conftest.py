"""A tiny network and its parameters."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from kaft_promot.models import T5Config, abstract_params


@pytest.fixture(scope="session")
def tiny_config() -> T5Config:
    return T5Config(
        vocab_size=384,
        emb_dim=8,
        num_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=3,
        head_dim=3,
        mlp_dim=16,
    )


def random_params(config: T5Config, seed: int = 0) -> Any:
    """Parameters without `init_params`, whose compilation takes longer than all tests here."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda like: rng.standard_normal(like.shape, np.float32), abstract_params(config)
    )


@pytest.fixture(scope="session")
def tiny_params(tiny_config: T5Config) -> Any:
    return random_params(tiny_config)


@pytest.fixture(scope="session")
def prompted_config(tiny_config: T5Config) -> T5Config:
    return dataclasses.replace(tiny_config, prompt_length=3, num_prompts=2)


@pytest.fixture(scope="session")
def prompted_params(prompted_config: T5Config) -> Any:
    return random_params(prompted_config)
