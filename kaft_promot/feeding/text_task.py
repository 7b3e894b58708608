"""A SeqIO task on examples that Python makes, in one call. Needs TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from kaft_promot.feeding.fingerprint import code_fingerprint
from kaft_promot.feeding.jsonl_task import TOKENIZE
from kaft_promot.feeding.seqio_door import output_features

Examples = Sequence[Mapping[str, Any]]
FIELDS = ("inputs", "targets", "id", "source_id")


def text_dataset(examples: Examples, fields: Sequence[str] | None = None) -> tf.data.Dataset:
    """Examples as a dataset.

    Args:
      examples: each a str for every field, or each a list of as many str.
      fields: the ones that go on; None for the first example's.

    Returns:
      The examples in their order; every field a string tensor, [] or [number of str].
    """
    if fields is None:
        fields = tuple(examples[0])
    columns = {name: [example[name] for example in examples] for name in fields}
    return tf.data.Dataset.from_tensor_slices(
        {name: tf.constant(column, tf.string) for name, column in columns.items()}
    )


class TextSource(seqio.FunctionDataSource):
    """Examples by split, looked up when they are used; knows their number and what decides them.

    Args:
      examples: split -> examples, see `text_dataset`.
      splits: names of the splits.
      decided_by: split -> what the examples depend on besides code (files, values of bindings), as
        JSON: the key under which their tokens are kept.
      fields: the fields that go on; None for those of a split's first example.
    """

    def __init__(
        self,
        examples: Callable[[str], Examples],
        splits: Sequence[str],
        decided_by: Callable[[str], Any],
        fields: Sequence[str] | None = None,
    ):
        def dataset_fn(
            split: str, shuffle_files: bool = False, seed: int | None = None
        ) -> tf.data.Dataset:
            return text_dataset(examples(split), fields)

        super().__init__(dataset_fn, splits=splits)
        self._examples, self._fields, self._decided_by = examples, fields, decided_by

    def get_dataset(
        self, split: str = "train", shuffle: bool = True, *args: Any, **kwargs: Any
    ) -> tf.data.Dataset:
        # There are no files whose order could be shuffled; SeqIO would warn of that.
        return super().get_dataset(split, False, *args, **kwargs)

    def num_input_examples(self, split: str) -> int:
        return len(self._examples(split))

    def fingerprint(self, split: str) -> str:
        return json.dumps(
            [self._decided_by(split), self._fields, code_fingerprint(self._examples)], default=str
        )


def register_text_task(
    name: str,
    examples: Callable[[str], Examples],
    *,
    decided_by: Callable[[str], Any],
    splits: Sequence[str] = ("train", "validation", "test"),
    fields: Sequence[str] = FIELDS,
    **task_arguments: Any,
) -> seqio.Task:
    """Registers a task whose examples are made by a function.

        register_text_task(
            "doubles", lambda split: [{"inputs": "one", "targets": "one one"}],
            fields=("inputs", "targets"), decided_by=lambda split: None)

    Args:
      name: the task's name.
      examples: split -> examples, each a str for every field; called when the task is used.
      decided_by: see `TextSource`.
      splits: names of the splits.
      fields: the fields that go on; `inputs` and `targets` are tokenized. `id` names the example,
        and examples of equal `source_id` are kept together by intervals.
      **task_arguments: to `seqio.TaskRegistry.add`, such as `metric_fns`.
    """
    return seqio.TaskRegistry.add(
        name,
        source=TextSource(examples, splits, decided_by, fields),
        preprocessors=[*TOKENIZE],
        output_features=output_features(),
        **task_arguments,
    )
