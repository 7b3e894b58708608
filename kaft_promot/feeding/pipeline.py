"""Token stores to batches with Grain: shuffle, repeat, mix, pack, batch, share among processes.

Everything here is a pure function of (stores, rates, settings, seed), so a step is reached again
by its position alone, and N processes see the rows that one process would see.
"""

from __future__ import annotations

import dataclasses
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from kaft_promot.feeding import features, mixing, packing
from kaft_promot.feeding.shuffling import permutation
from kaft_promot.feeding.token_store import TokenStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One task of a mixture: its name, its rate among the others, its tokens."""

    name: str
    rate: float
    store: TokenStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What a batch looks like and which of its rows this process holds.

    Attributes:
        feature_lengths: length of each feature in a row.
        batch_size: rows of a global batch.
        pack: put several examples in a row.
        fill_last: fill a last batch that is short with rows of padding; False leaves it out.
        process_index: this process.
        process_count: how many processes share each batch.
    """

    feature_lengths: Mapping[str, int]
    batch_size: int
    pack: bool = False
    fill_last: bool = False
    process_index: int = 0
    process_count: int = 1

    @property
    def rows(self) -> slice:
        """This process's rows of the global batch."""
        share = self.batch_size // self.process_count
        return slice(self.process_index * share, (self.process_index + 1) * share)


class Examples(grain.MapDataset):
    """A store's examples, shuffled anew in every epoch; indices beyond the end are later epochs.

    `grain.MapDataset.source(store).shuffle(seed)` does the same in more time: its monitoring of
    every element takes two thirds of what reading takes, and its shuffle, made for orders that do
    not fit in memory, takes 16 bits' worth of tries for an element of a small task.

    Args:
        store: the examples.
        seed: None keeps the store's order.
    """

    def __init__(self, store: TokenStore, seed: int | None):
        super().__init__()
        self._store, self._seed = store, seed
        self._current: tuple[int, np.ndarray] | None = None  # replaced whole: threads may share it

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, len(self._store))
        if self._seed is None:
            return self._store[place]
        current = self._current
        if current is None or current[0] != epoch:
            current = self._current = epoch, permutation(len(self._store), self._seed, epoch)
        return self._store[current[1][place]]


class _OwnRows(grain.MapDataset):
    """Of every global batch of examples, those in this process's rows."""

    def __init__(self, parent: grain.MapDataset, layout: Layout):
        super().__init__(parent)
        self._layout = layout
        self._share = layout.batch_size // layout.process_count
        self._end = len(parent)
        count, rest = divmod(self._end, layout.batch_size)
        count += bool(rest) and layout.fill_last
        self._length = min(sys.maxsize, count * self._share)  # endless data have the largest length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self._share)
        place = batch * self._layout.batch_size + self._layout.rows.start + row
        return self._parent[place] if place < self._end else features.PADDING


def task_seed(seed: int, name: str) -> int:
    """A task's own shuffling seed, 32 bits: mixtures shuffle their tasks independently."""
    return zlib.crc32(f"{seed}/{name}".encode())


def examples(
    sources: Sequence[Source], *, seed: int | None, num_epochs: int | None
) -> grain.MapDataset:
    """The mixture as one long sequence of examples.

    Args:
        sources: its tasks; rates are positive, stores are not empty.
        seed: reshuffles every task in every epoch; None keeps the tasks' order.
        num_epochs: how often each task is repeated, the mixture ending with the first task that
            ends; None for ever.
    """
    parts: list[grain.MapDataset] = []
    for source in sources:
        task = None if seed is None else task_seed(seed, source.name)
        parts.append(Examples(source.store, task).repeat(num_epochs))
    return parts[0] if len(parts) == 1 else mixing.Mix(parts, [s.rate for s in sources])


def first_rows(data: grain.MapDataset, layout: Layout) -> int:
    """How many rows there are for the first batch; as many as it has, or more, are enough."""
    if not layout.pack:
        return len(data)
    rows, _ = packing.first_fit(data, 0, layout.feature_lengths, layout.batch_size)
    return len(rows)


def batches(data: grain.MapDataset, layout: Layout, *, seed: int, prefetch: int) -> Any:
    """Batches of this process, prefetched by one thread.

    Unpacked batches have random access; packed ones are found one after another.

    Args:
        data: examples, each a dict of int32 arrays no longer than the layout's lengths.
        layout: shape and share of a batch.
        seed: orders packed rows.
        prefetch: batches to prepare ahead; 0 prepares each when it is asked for.
    """
    if not layout.pack:
        lengths = dict(layout.feature_lengths)
        own = _OwnRows(data, layout)
        batched = own.batch(
            layout.batch_size // layout.process_count,
            drop_remainder=True,
            batch_fn=lambda rows: features.pad_examples(rows, lengths),
        )
        threads = grain.ReadOptions(num_threads=min(1, prefetch), prefetch_buffer_size=prefetch)
        return batched.to_iter_dataset(threads)
    return packing.packed_batches(
        data,
        prefetch,
        feature_lengths=layout.feature_lengths,
        batch_size=layout.batch_size,
        own=layout.rows,
        seed=seed,
        fill_last=layout.fill_last,
    )
