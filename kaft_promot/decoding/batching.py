"""Few shapes for many lengths: sorting, bucketing and padding token lists.

A compiled program belongs to one shape, so lengths are rounded up to few buckets. Longest first:
the batch that needs the most memory comes at once, and neighbours waste little padding.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

MIN_LENGTH = 32
MIN_BATCH = 8


def bucket_length(length: int, *, smallest: int = MIN_LENGTH, largest: int | None = None) -> int:
    """The least power of two that is at least `length` and `smallest`, but `largest` at most.

    >>> [bucket_length(n, largest=100) for n in (3, 32, 33, 70)]
    [32, 32, 64, 100]
    """
    size = smallest
    while size < length:
        size *= 2
    return size if largest is None else min(size, largest)


class Group(NamedTuple):
    """Rows that run as one batch.

    Attributes:
      rows: positions of the batch's rows in the caller's sequence.
      batch_size: rows of the padded batch, >= len(rows).
    """

    rows: np.ndarray
    batch_size: int


def group_by_length(lengths: Sequence[int], batch_size: int, parts: int = 1) -> Iterator[Group]:
    """Cuts rows, longest first (of equals in their order), into batches.

    Every batch has `batch_size` rows, the last one padded; where all rows fit into one, that one
    has the least power of two (8 at least) that holds them, so that one question costs no full
    batch. Either is rounded up to a multiple of `parts`.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    if len(order) < batch_size:
        batch_size = bucket_length(len(order), smallest=MIN_BATCH, largest=batch_size)
    batch_size += -batch_size % parts
    for start in range(0, len(order), batch_size):
        yield Group(order[start : start + batch_size], batch_size)


def pad(tokens: Sequence[Sequence[int]], batch_size: int, length: int) -> np.ndarray:
    """int32 [batch_size, length] with `tokens` in its first rows and 0 elsewhere."""
    padded = np.zeros((batch_size, length), np.int32)
    for row, ids in zip(padded, tokens, strict=False):
        row[: len(ids)] = ids
    return padded
