"""Lets the training tests import `training_tiny`, and compiles their tiny programs fast."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


@pytest.fixture(scope="module", autouse=True)
def quick_training_tests(quick_compilation):
    """All of these tests compile tiny programs."""


@pytest.fixture(scope="module")
def base():
    """Random parameters of the tiny network."""
    from training_tiny import CONFIG, numpy_params

    return numpy_params(CONFIG)
