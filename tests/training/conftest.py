"""Lets the training tests import `training_tiny`, and compiles their tiny programs fast."""

import pathlib
import sys

import jax
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


@pytest.fixture(autouse=True)
def quick_compilation():
    """These tests spend their time compiling: leave out XLA's optimizations, not its results."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
