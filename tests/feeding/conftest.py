"""Token examples for the feeding tests, as stores and as saved mixtures (no TensorFlow)."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from kaft_promot.feeding import DatasetConfig
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.saved import write_tokens
from kaft_promot.feeding.token_store import TokenStore

LENGTHS = {"inputs": 24, "targets": 10}


def numbered_examples(count: int, first: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Examples that can be told apart: every input begins with its own number."""
    rng = np.random.default_rng(seed)
    return [
        {
            "inputs": [first + i, *rng.integers(3, 90, rng.integers(1, 20)).tolist(), 1],
            "targets": [*rng.integers(3, 90, rng.integers(0, 8)).tolist(), 1],
        }
        for i in range(count)
    ]


@pytest.fixture
def mixture(tmp_path: pathlib.Path) -> Callable[..., DatasetConfig]:
    """Saves a mixture of two tasks (rates 3 and 1) and returns a configuration that reads it."""

    def make(**settings: object) -> DatasetConfig:
        folder = tmp_path / "tokens"
        cfg = DatasetConfig(
            **{  # type: ignore[arg-type]
                "mixture_or_task_name": "both",
                "task_feature_lengths": LENGTHS,
                "batch_size": 8,
                "saved": str(folder),
                "prefetch": 0,
                **settings,
            }
        )
        if not folder.exists():
            sources = [
                Source(name=name, rate=rate, store=TokenStore.from_examples(examples))
                for name, rate, examples in (
                    ("a", 3.0, numbered_examples(60, 1000)),
                    ("b", 1.0, numbered_examples(30, 2000)),
                )
            ]
            write_tokens(sources, cfg, folder)
        return cfg

    return make
