"""Soft prompts as a property of the data: placeholder ids in front of an example's inputs.

An example that uses a prompt of P rows starts with P placeholder ids, which the model replaces by
the prompt's rows. They are tokens like others: they take room in a row, and masks, positions,
packing and decoding need no special case. Examples of several tasks, each with its own prompt, may
share a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import gin
import numpy as np
from absl import logging

from kaft_promot.errors import UserError
from kaft_promot.feeding.pipeline import Source
from kaft_promot.feeding.token_store import TokenStore
from kaft_promot.feeding.vocabulary import EOS_ID

LONG_INPUTS = ("error", "truncate")


@gin.configurable(module="kaft_promot.feeding")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptIds:
    """Which placeholder ids stand in front of which task's inputs.

    >>> ids = PromptIds(first_id=32128, length=3, by_task={"rte": 0, "wic": 1})
    >>> ids.of("wic").tolist()
    [32131, 32132, 32133]

    Attributes:
        first_id: the model's `T5Config.vocab_size`; row r of prompt k is `first_id + k * P + r`.
        length: P, rows of a prompt.
        by_task: number of each task's prompt; None gives every task prompt 0.
        long_inputs: what to do with inputs that leave no room for their prompt. 'error' refuses
            them, saying which and by how many tokens; 'truncate' cuts their ends (an end token is
            kept) and logs how many were cut.
        all_used: whether a prompt that no task of the training data uses is an error.

    Raises:
        UserError: for a value that makes no sense.
    """

    first_id: int
    length: int
    by_task: Mapping[str, int] | None = None
    long_inputs: str = "error"
    all_used: bool = False

    def __post_init__(self) -> None:
        if self.first_id < 1:
            raise UserError(f"PromptIds.first_id = {self.first_id}: must be at least 1")
        if self.length < 1:
            raise UserError(f"PromptIds.length = {self.length}: must be at least 1")
        if self.long_inputs not in LONG_INPUTS:
            raise UserError(
                f"PromptIds.long_inputs = {self.long_inputs!r}: choose from "
                f"{', '.join(LONG_INPUTS)}"
            )
        if any(number < 0 for number in (self.by_task or {}).values()):
            raise UserError(f"PromptIds.by_task = {self.by_task}: prompts count from 0")

    def of(self, task: str) -> np.ndarray:
        """The placeholder ids of a task's prompt, int32 `[P]`.

        Raises:
            UserError: the task has no prompt.
        """
        number = 0 if self.by_task is None else self.by_task.get(task)
        if number is None:
            raise UserError(
                f"task {task!r} has no soft prompt; there are prompts for "
                f"{', '.join(sorted(self.by_task or {}))}: give every task of the mixture one"
            )
        start = self.first_id + number * self.length
        return np.arange(start, start + self.length, dtype=np.int32)

    def check_used(self, tasks: Collection[str]) -> None:
        """Raises UserError for a prompt that none of the training `tasks` uses."""
        unused = sorted(set(self.by_task or {}) - set(tasks)) if self.all_used else []
        if unused:
            raise UserError(
                f"SoftPrompts.tasks names {', '.join(unused)}, of which the training data has no "
                f"example; its tasks are {', '.join(sorted(tasks))}"
            )

    def room(self, feature_lengths: Mapping[str, int]) -> int:
        """Tokens that are left for an example's own inputs.

        Raises:
            UserError: there is none.
        """
        room = int(feature_lengths["inputs"]) - self.length
        if room < 1:
            raise UserError(
                f"a soft prompt of {self.length} leaves no room in TASK_FEATURE_LENGTHS' "
                f"{feature_lengths['inputs']} input tokens, which count the prompt: raise it to "
                f"the inputs' own length + {self.length}"
            )
        return room


class PromptedStore(TokenStore):
    """A token store whose inputs start with a prompt's placeholders.

    Args:
        store: the examples without a prompt.
        prompt_P: placeholder ids.
        room: tokens that an example's own inputs may have; longer ones lose their ends.
    """

    def __init__(self, store: TokenStore, prompt_P: np.ndarray, room: int):
        self._store, self._prompt, self._room = store, prompt_P, room
        self.truncated = int((store.lengths("inputs") > room).sum())

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        example = self._store[index]
        return {**example, "inputs": prepend(self._prompt, example["inputs"], self._room)}

    @property
    def features(self) -> tuple[str, ...]:
        return self._store.features

    def lengths(self, feature: str) -> np.ndarray:
        lengths = self._store.lengths(feature)
        return (
            lengths if feature != "inputs" else np.minimum(lengths, self._room) + len(self._prompt)
        )

    def __repr__(self) -> str:
        return f"PromptedStore({len(self)} examples, prompt of {len(self._prompt)})"


def prepend(prompt_P: np.ndarray, inputs: np.ndarray, room: int) -> np.ndarray:
    """Inputs behind their placeholders, int32; beyond `room` cut, an end token kept."""
    if len(inputs) > room:
        kept = np.array(inputs[:room])
        if inputs[-1] == EOS_ID:
            kept[-1] = EOS_ID
        inputs = kept
    return np.concatenate([prompt_P, inputs], dtype=np.int32)


def with_prompts(
    sources: Sequence[Source], prompts: PromptIds, feature_lengths: Mapping[str, int]
) -> list[Source]:
    """Sources whose examples start with their task's prompt.

    Raises:
        UserError: a task without a prompt, or inputs too long behind one.
    """
    room = prompts.room(feature_lengths)
    found = []
    for source in sources:
        prompt_P = prompts.of(source.name)
        check_room(source.name, source.store.lengths("inputs"), prompts, feature_lengths)
        store = PromptedStore(source.store, prompt_P, room)
        found.append(dataclasses.replace(source, store=store))
    return found


def check_room(
    task: str, lengths_N: np.ndarray, prompts: PromptIds, feature_lengths: Mapping[str, int]
) -> None:
    """Refuses, or logs, inputs of a task that leave no room for its prompt.

    Args:
        task: its name.
        lengths_N: tokens of each example's inputs, already cut to the feature's length.
        prompts: the prompt's length, and what to do.
        feature_lengths: length of each feature, the prompt included.
    """
    limit, room = int(feature_lengths["inputs"]), prompts.room(feature_lengths)
    long = np.flatnonzero(lengths_N > room)
    if not len(long):
        return
    worst = int(lengths_N.argmax())
    over = int(lengths_N[worst]) - room
    more = " or more" if lengths_N[worst] >= limit else ""
    counted = (
        f"task {task!r}: {len(long)} of {len(lengths_N)} inputs do not fit behind their soft "
        f"prompt: TASK_FEATURE_LENGTHS gives {limit} tokens, of which the prompt takes "
        f"{prompts.length}; the first is example {int(long[0])}, the longest example {worst} with "
        f"{int(lengths_N[worst])} tokens, {over}{more} too many"
    )
    if prompts.long_inputs == "error":
        raise UserError(
            f"{counted}. Raise TASK_FEATURE_LENGTHS, or cut them with "
            "--gin.SoftPrompts.long_inputs=truncate"
        )
    logging.warning("%s; their ends are cut", counted)


def check_batches(encoder_tokens: np.ndarray, prompts: PromptIds, path: str) -> None:
    """Refuses saved batches whose rows do not start with one of the prompts.

    Args:
        encoder_tokens: int `[steps, B, L]`.
        prompts: what they should start with.
        path: the batches' file.
    """
    first = encoder_tokens[..., 0]
    numbers = {0} if prompts.by_task is None else set(prompts.by_task.values())
    starts = [prompts.first_id + number * prompts.length for number in numbers]
    if not np.isin(first[first > 0], starts).all():
        raise UserError(
            f"DatasetConfig.saved: rows in {path} do not start with the run's soft prompt: save "
            "the batches with the same prompts"
        )
