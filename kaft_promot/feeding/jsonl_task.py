"""A SeqIO task on JSONL files in one call. Needs TensorFlow."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from kaft_promot.errors import UserError
from kaft_promot.feeding.features import FEATURES
from kaft_promot.feeding.fingerprint import code_fingerprint, file_fingerprint
from kaft_promot.feeding.seqio_door import output_features

PathFn = Callable[[str], "str | Path"]
Row = Mapping[str, Any]
# What turns text into tokens at the end of a task, in SeqIO's usual order.
TOKENIZE: tuple[Callable[..., tf.data.Dataset], ...] = (
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos_after_trim,
)
# Type of a field -> what a missing one becomes, the JSON types that are taken, the array's type.
_KINDS: dict[type, tuple[Any, tuple[type, ...], Any]] = {
    str: ("", (str, int, float), None),
    int: (0, (int,), np.int64),
    float: (0.0, (int, float), np.float32),
    bool: (False, (bool,), np.bool_),
    list: ([], (list,), None),
}


class _JsonlSource(seqio.FunctionDataSource):
    """A function source that can count, for mixing rates by number of examples."""

    def __init__(
        self,
        dataset_fn: Callable[..., tf.data.Dataset],
        splits: Sequence[str],
        count: Callable[[str], int],
    ):
        super().__init__(dataset_fn, splits=splits)
        self._count = count

    def num_input_examples(self, split: str) -> int:
        return self._count(split)


def register_jsonl_task(
    name: str,
    path: PathFn,
    *,
    fields: Mapping[str, type],
    select: Callable[[Row], Row | None] | None = None,
    splits: Sequence[str] = ("train", "validation", "test"),
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
    features: Mapping[str, seqio.Feature] | None = None,
    replace: bool = False,
    **task_arguments: Any,
) -> seqio.Task:
    """Register a task that reads one JSON object a line.

    With `select`, most tasks need no TensorFlow code: it returns what an example is, in Python.

        register_jsonl_task(
            "capitals", lambda split: f"/data/capitals.{split}.jsonl",
            fields={"inputs": str, "targets": str, "id": str},
            select=lambda row: {"inputs": f"question: capital of {row['country']}?",
                                "targets": row["capital"], "id": row["id"]})

    Args:
        name: the task's name.
        path: file of a split, `.jsonl` or `.jsonl.gz`; called when the task is used, so that gin
            may decide it.
        fields: the fields that go on and their types (str, int, float, bool, or `list` for a
            list of str); a null field becomes empty, and so does a missing one, other than `inputs`
            and `targets`. These are among them, or are made by `preprocessors`.
        select: from a line's object to an example; None to leave the line out. Default: the line.
        splits: names of the splits.
        preprocessors: SeqIO preprocessors that run before tokenizing. Tokenizing and
            `append_eos_after_trim` follow.
        features: output features; None for `output_features()`.
        replace: whether a task of this name gives way, as in a notebook whose cells run twice.
        **task_arguments: to `seqio.TaskRegistry.add`, such as `metric_fns`.

    Raises:
        UserError: when the task is used, and a file is missing, a line is no JSON object or lacks
            `inputs` or `targets`, or `select` fails on it.
        ValueError: a field's type is none of those above; or there is a task of this name, and
            `replace` is not set.
    """
    for field, kind in fields.items():
        if kind not in _KINDS:
            raise ValueError(f"task {name!r}: field {field!r} cannot be of {kind}")

    def dataset_fn(
        split: str, shuffle_files: bool = False, seed: int | None = None
    ) -> tf.data.Dataset:
        file = path(split)
        return tf.data.Dataset.from_tensor_slices(_columns(read_rows(file, select), fields, file))

    dataset_fn.fingerprint = lambda split: json.dumps(  # type: ignore[attr-defined]
        [
            file_fingerprint(str(path(split))),
            sorted((k, v.__name__) for k, v in fields.items()),
            code_fingerprint(select),
        ]
    )
    if replace and name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=_JsonlSource(dataset_fn, splits, lambda split: len(read_rows(path(split), select))),
        preprocessors=[*preprocessors, *TOKENIZE],
        output_features=output_features() if features is None else features,
        **task_arguments,
    )


def read_rows(
    path: str | Path, select: Callable[[Row], Row | None] | None = None
) -> list[tuple[int, Row]]:
    """Objects of a JSONL file, `.gz` or plain, mapped by `select`, with their line numbers from 1.

    Raises:
        UserError: the file cannot be read, or a line is no JSON object; names file and line.
    """
    rows: list[tuple[int, Row]] = []
    line_number = 0
    try:
        with gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb") as file:
            for line_number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8"))
                if not isinstance(row, dict):
                    raise UserError(f"{path}:{line_number}: not a JSON object")
                chosen = row if select is None else _selected(select, row, f"{path}:{line_number}")
                if chosen is not None:
                    rows.append((line_number, chosen))
    except UnicodeDecodeError as e:
        raise UserError(f"{path}:{line_number}: not valid UTF-8: {e.reason}") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{path}:{line_number}: not valid JSON: {e.msg}") from e
    except (OSError, EOFError) as e:
        raise UserError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
    return rows


def _selected(select: Callable[[Row], Row | None], row: Row, place: str) -> Row | None:
    try:
        chosen = select(row)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    except KeyError as error:
        raise UserError(f"{place}: the line has no field {error}") from error
    except Exception as error:
        raise UserError(
            f"{place}: the task's `select` fails: {type(error).__name__}: {error}"
        ) from error
    if chosen is not None and not isinstance(chosen, Mapping):
        raise UserError(
            f"{place}: the task's `select` gives {chosen!r}; it must give a dict, or None to leave "
            "the line out"
        )
    return chosen


def _columns(
    rows: list[tuple[int, Row]], fields: Mapping[str, type], path: object
) -> dict[str, Any]:
    """One tensor or array a field, [number of rows], ragged for lists."""
    columns: dict[str, Any] = {}
    for name, kind in fields.items():
        empty, taken, dtype = _KINDS[kind]
        values: list[Any] = []
        for line, row in rows:
            if name in FEATURES and name not in row:
                raise UserError(
                    f"{path}:{line}: there is no {name!r} among {', '.join(map(repr, row))}, which "
                    "the line, or the task's `select`, gives"
                )
            value = row.get(name)
            value = empty if value is None else value
            value = list(value) if isinstance(value, tuple) else value
            if not isinstance(value, taken) or (isinstance(value, bool) and kind in (int, float)):
                raise UserError(
                    f"{path}:{line}: field {name!r} is {value!r}, which is no {kind.__name__}"
                )
            values.append([str(v) for v in value] if isinstance(value, list) else kind(value))
        if kind is list:
            columns[name] = tf.RaggedTensor.from_row_lengths(
                tf.constant([v for row_values in values for v in row_values], tf.string),
                tf.constant([len(row_values) for row_values in values], tf.int64),
            )
        elif kind is str:
            columns[name] = tf.constant(values, tf.string, shape=[len(rows)])
        else:
            columns[name] = np.array(values, dtype)
    return columns
