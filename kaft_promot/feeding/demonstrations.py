"""One solved example of the task in front of each training input (ProMoT's `+1-shot`).

Training on inputs that begin with a demonstration keeps the model used to reading a task from its
prompt (Wang et al., ICLR 2024, arXiv 2211.00635, section 3). The demonstration is another example
of the same task and split: its inputs, its targets, then the example's own inputs.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import gin
import numpy as np
from absl import logging

from kaft_promot.errors import UserError
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.token_store import TokenStore
from kaft_promot.feeding.vocabulary import EOS_ID

_TRIES = 8  # draws for an example before it goes without a demonstration


@gin.configurable(module="kaft_promot.feeding")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Which demonstration stands in front of an example, and how it is joined.

    Attributes:
        seed: with the task's name it decides which example demonstrates which; never itself.
        separator: token ids behind the demonstration's inputs and behind its targets. SentencePiece
            pieces begin with their space, so that none are needed; for bytes, (35,) is a space.
    """

    seed: int = 0
    separator: tuple[int, ...] = ()


class DemonstratedStore(TokenStore):
    """A token store whose inputs begin with another example of it.

    Where the longer inputs would not fit, another demonstration is drawn, and after some draws the
    example goes without: `without` counts these.

    Args:
        store: the examples, at least two.
        name: the task's name.
        settings: see `Demonstrations`.
        room: tokens that inputs may have.
    """

    def __init__(self, store: TokenStore, name: str, settings: Demonstrations, room: int):
        count = len(store)
        self._store, self._separator = store, np.asarray(settings.separator, np.int32)
        inputs_N, targets_N = store.lengths("inputs"), store.lengths("targets")
        rng = np.random.default_rng([settings.seed, zlib.crc32(name.encode())])
        own_N = np.arange(count)
        self._other_N = np.full(count, -1)
        for _ in range(_TRIES):
            drawn_N = (own_N + rng.integers(1, count, count)) % count
            # End tokens are left out of a demonstration; counted here, they are two to spare.
            whole_N = inputs_N + inputs_N[drawn_N] + targets_N[drawn_N] + 2 * len(self._separator)
            self._other_N = np.where(
                (self._other_N < 0) & (whole_N <= room), drawn_N, self._other_N
            )
        self.without = int((self._other_N < 0).sum())

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        example = self._store[index]
        other = int(self._other_N[index])
        if other < 0:
            return example
        shown = self._store[other]
        parts = [_open_end(shown["inputs"]), self._separator, _open_end(shown["targets"])]
        parts += [self._separator, example["inputs"]]
        return {**example, "inputs": np.concatenate(parts, dtype=np.int32)}

    @property
    def features(self) -> tuple[str, ...]:
        return self._store.features

    def lengths(self, feature: str) -> np.ndarray:
        return np.array([len(self[i][feature]) for i in range(len(self))])

    def __repr__(self) -> str:
        return f"DemonstratedStore({len(self)} examples)"


def _open_end(ids: np.ndarray) -> np.ndarray:
    """Ids without their end token."""
    return ids[:-1] if len(ids) and ids[-1] == EOS_ID else ids


def with_demonstrations(
    sources: Sequence[Source], settings: Demonstrations, room: int
) -> list[Source]:
    """Sources whose examples begin with a demonstration of their own task.

    Args:
        sources: tasks of at least two examples.
        settings: see `Demonstrations`.
        room: tokens that inputs may have, a soft prompt's apart.

    Raises:
        UserError: a task has one example only, or no demonstration fits anywhere.
    """
    found = []
    for source in sources:
        if len(source.store) < 2:
            raise UserError(
                f"task {source.name!r} has one example, which nothing else can demonstrate"
            )
        store = DemonstratedStore(source.store, source.name, settings, room)
        if store.without == len(store):
            raise UserError(
                f"task {source.name!r}: no demonstration fits in front of any input; raise "
                f"TASK_FEATURE_LENGTHS (its inputs have room for {room} tokens)"
            )
        if store.without:
            logging.warning(
                "task %s: %d of %d inputs have no room for a demonstration and go without",
                source.name,
                store.without,
                len(store),
            )
        found.append(dataclasses.replace(source, store=store))
    return found
