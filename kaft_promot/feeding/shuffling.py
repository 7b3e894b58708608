"""Random orders that stay the same for ever."""

from __future__ import annotations

import numpy as np


def permutation(count: int, *key: int) -> np.ndarray:
    """A random order of `count` things, int64, the same for a key in every version of numpy.

    numpy keeps the raw output of its bit generators for ever, that of `Generator` methods not.
    """
    raw = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(raw, kind="stable")
