"""Where a run's batches come from: `feeding` (tasks, saved tokens, batch files) or any function.

A source is opened into a `Feed`: an iterator over dicts of numpy arrays that can tell its place and
be set back to it. Nothing here imports TensorFlow; to train where there is none, name a saved batch
file in `feeding.DatasetConfig(saved=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models import T5Config

Batch = dict[str, np.ndarray]
Source = Any  # DatasetConfig | function that returns an iterable | iterable


class Feed(Protocol):
    """An iterator over batches with a place that can be saved (`feeding.TrainIterator` is one)."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> bytes:
        """The place after the last batch that was taken."""
        ...

    def set_state(self, state: bytes) -> None:
        """Goes to a place that `get_state` gave."""
        ...


def open_feed(
    source: Source, process_index: int = 0, process_count: int = 1, fill_last: bool = False
) -> Feed:
    """Opens a source of batches.

    Args:
      source: a `feeding.DatasetConfig`; a function without arguments that returns an iterable over
        this process's rows of batches, the same ones each time; or such an iterable itself.
      process_index: this process, of `process_count`.
      process_count: how many processes share each global batch.
      fill_last: see `feeding.train_iterator`; of a `DatasetConfig` alone.

    Raises:
      UserError: if it cannot be opened.
    """
    if hasattr(source, "mixture_or_task_name"):
        from kaft_promot import feeding

        return feeding.train_iterator(
            source,
            process_index=process_index,
            process_count=process_count,
            fill_last=fill_last,
        )
    if hasattr(source, "get_state") and hasattr(source, "__next__"):
        return source
    if callable(source):
        return _Counted(source)
    if isinstance(source, Iterable) and not isinstance(source, str):
        return _Counted(lambda: source)
    raise UserError(
        f"train_dataset_cfg: cannot read batches from {source!r}; give a DatasetConfig or a "
        "function that returns an iterator over batches"
    )


def check_ids(batch: Mapping[str, np.ndarray], config: T5Config) -> None:
    """Refuses token ids that the network has no embedding for.

    JAX would read some other row for them, without a word: a task that was encoded with another
    model's vocabulary would train to nonsense.

    Args:
      batch: int arrays `[B, length]`; the encoder's may hold placeholders of soft prompts.
      config: the network.

    Raises:
      UserError: naming the largest such id.
    """
    for name, rows in (
        ("encoder_input_tokens", config.prompt_rows),
        ("decoder_target_tokens", 0),
    ):
        ids = batch.get(name)
        limit = config.vocab_size + rows
        if ids is None or not np.size(ids) or (np.max(ids) < limit and np.min(ids) >= 0):
            continue
        wrong = int(np.max(ids) if np.max(ids) >= limit else np.min(ids))
        raise UserError(
            f"DatasetConfig: a batch has the token id {wrong} ({name}), but the model has "
            f"embeddings for {config.vocab_size} ids only: the task was encoded with another "
            "vocabulary. Give its features the model's (kaft_promot.feeding.output_features), or "
            "name a model that was trained with it"
        )


def peek(feed: Feed) -> Batch:
    """The batch that comes next, which the feed still gives afterwards; that of all processes.

    Raises:
      UserError: if there is none.
    """
    place = feed.get_state()
    try:
        batch = next(feed)
    except StopIteration:
        raise UserError("train_dataset_cfg: no batch in it") from None
    feed.set_state(place)
    if jax.process_count() == 1:
        return batch
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(batch, tiled=True)


def how_to_go_on(feed: Feed) -> str:
    """What a run can do whose data ended before its steps did."""
    packed = getattr(feed, "packed", None)
    if packed is None:
        return "give more batches or lower train.total_steps"
    if packed:
        return (
            "lower train.total_steps, or train in another model_dir with DatasetConfig.num_epochs "
            "= None (with it other examples share the last packed rows)"
        )
    return "set DatasetConfig.num_epochs = None or lower train.total_steps"


def blank_batch(source: Source, process_count: int = 1) -> Batch | None:
    """Zeros in the shape of the batches that `source` will give; None if only reading tells."""
    lengths = getattr(source, "task_feature_lengths", {})
    rows = getattr(source, "batch_size", 0)
    sizes = (rows, lengths.get("inputs"), lengths.get("targets"))
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return None  # nothing to tell from, or a mistake that `open_feed` explains
    inputs = np.zeros((rows // process_count, lengths["inputs"]), np.int32)
    targets = np.zeros((rows // process_count, lengths["targets"]), np.int32)
    batch = {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": targets,
        "decoder_target_tokens": targets,
        "decoder_loss_weights": targets,
    }
    if source.pack:
        batch |= {"encoder_segment_ids": inputs, "decoder_segment_ids": targets}
    return batch


def eval_batches(
    source: Source, limit: int | None, process_index: int = 0, process_count: int = 1
) -> list[Batch]:
    """The batches that every evaluation reads, in memory: all examples, a short last batch filled.

    Args:
      source: as in `open_feed`; a `DatasetConfig` needs `num_epochs` or a limit.
      limit: take at most so many batches (None: all).
      process_index: this process, of `process_count`.
      process_count: how many processes share each global batch.

    Raises:
      UserError: if there are none, or without end.
    """
    if limit is None and getattr(source, "num_epochs", 1) is None:
        raise UserError(
            "train_eval_dataset_cfg repeats without end: set its num_epochs = 1, or "
            "train.eval_steps to a number of batches"
        )
    kept: list[Batch] = []
    for batch in open_feed(source, process_index, process_count, fill_last=True):
        kept.append(batch)
        if limit is not None and len(kept) >= limit:
            break
    if not kept:
        raise UserError("train_eval_dataset_cfg: no batch to evaluate on")
    return [_pad_rows(batch, len(kept[0]["decoder_target_tokens"])) for batch in kept]


def _pad_rows(batch: Mapping[str, np.ndarray], rows: int) -> Batch:
    """Fills a short last batch with rows of padding, which weigh nothing."""
    return {
        name: np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (np.ndim(x) - 1))
        for name, x in batch.items()
        if np.issubdtype(np.asarray(x).dtype, np.number)
    }


class _Counted:
    """A feed over what a function returns; its place is how many batches were taken."""

    def __init__(self, make: Callable[[], Iterable[Batch]]):
        self._make = make
        self._iterator = iter(make())
        self._taken = 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self._taken += 1
        return batch

    def get_state(self) -> bytes:
        return str(self._taken).encode()

    def set_state(self, state: bytes) -> None:
        self._iterator = iter(self._make())
        self._taken = 0
        for _ in range(int(state)):
            next(self)
