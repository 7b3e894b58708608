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
from kaft_promot.feeding.fingerprint import file_fingerprint
from kaft_promot.feeding.seqio_door import output_features

PathFn = Callable[[str], "str | Path"]
Row = Mapping[str, Any]
# What turns text into tokens at the end of a task, in SeqIO's usual order.
TOKENIZE: tuple[Callable[..., tf.data.Dataset], ...] = (
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos_after_trim,
)
_EMPTY = {str: "", int: 0, float: 0.0, bool: False}


def register_jsonl_task(
    name: str,
    path: PathFn,
    *,
    fields: Mapping[str, type],
    select: Callable[[Row], Row | None] | None = None,
    splits: Sequence[str] = ("train", "validation", "test"),
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
    features: Mapping[str, seqio.Feature] | None = None,
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
            list of str); a missing or null field becomes empty.
        select: from a line's object to an example; None to leave the line out. Default: the line.
        splits: names of the splits.
        preprocessors: SeqIO preprocessors that run before tokenizing. Tokenizing and
            `append_eos_after_trim` follow.
        features: output features; None for `output_features()`.
        **task_arguments: to `seqio.TaskRegistry.add`, such as `metric_fns`.

    Raises:
        UserError: when the task is used, and a file is missing or a line is no JSON object.
    """

    def dataset_fn(
        split: str, shuffle_files: bool = False, seed: int | None = None
    ) -> tf.data.Dataset:
        rows = read_rows(path(split), select)
        return tf.data.Dataset.from_tensor_slices(_columns(rows, fields, path(split)))

    dataset_fn.fingerprint = lambda split: json.dumps(  # type: ignore[attr-defined]
        [file_fingerprint(str(path(split))), sorted((k, v.__name__) for k, v in fields.items())]
    )
    return seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset_fn, splits=splits),
        preprocessors=[*preprocessors, *TOKENIZE],
        output_features=output_features() if features is None else features,
        **task_arguments,
    )


def read_rows(path: str | Path, select: Callable[[Row], Row | None] | None = None) -> list[Row]:
    """Objects of a JSONL file, `.gz` or plain, mapped by `select`.

    Raises:
        UserError: the file cannot be read, or a line is no JSON object; names file and line.
    """
    rows: list[Row] = []
    line_number = 0
    try:
        with gzip.open(path, "rb") if str(path).endswith(".gz") else open(path, "rb") as file:
            for line_number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8"))
                if not isinstance(row, dict):
                    raise UserError(f"{path}:{line_number}: not a JSON object")
                chosen = row if select is None else select(row)
                if chosen is not None:
                    rows.append(chosen)
    except KeyError as e:
        raise UserError(f"{path}:{line_number}: the line has no field {e}") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path}:{line_number}: not valid UTF-8: {e.reason}") from e
    except json.JSONDecodeError as e:
        raise UserError(f"{path}:{line_number}: not valid JSON: {e.msg}") from e
    except (OSError, EOFError) as e:
        raise UserError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
    return rows


def _columns(rows: list[Row], fields: Mapping[str, type], path: object) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, kind in fields.items():
        try:
            if kind is list:
                lists = [[str(v) for v in row.get(name) or ()] for row in rows]
                columns[name] = tf.RaggedTensor.from_row_lengths(
                    tf.constant([v for values in lists for v in values], tf.string),
                    tf.constant([len(values) for values in lists], tf.int64),
                )
                continue
            values = [_EMPTY[kind] if row.get(name) is None else kind(row[name]) for row in rows]
        except (TypeError, ValueError) as e:
            raise UserError(f"{path}: field {name!r} is not always {kind.__name__}: {e}") from e
        if kind is str:
            columns[name] = tf.constant(values, tf.string, shape=[len(rows)])
        else:
            columns[name] = np.array(values, {int: np.int64, float: np.float32, bool: bool}[kind])
    return columns
