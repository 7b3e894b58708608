"""What decides a task's tokens, as a digest: the key under which they are kept on disk.

Known to the digest: the task's name, split, lengths and seed, its vocabularies, the code of its
preprocessors, and its source (files with size and time, a TFDS name with version, or what the
source says itself through a method or attribute `fingerprint(split) -> str`). Not known: values
that preprocessors read from elsewhere, such as other modules' globals. Needs TensorFlow (SeqIO).
"""

from __future__ import annotations

import functools
import hashlib
import json
import types
from typing import TYPE_CHECKING, Any

import seqio
import tensorflow as tf

if TYPE_CHECKING:
    from kaft_promot.feeding.dataset import DatasetConfig


def task_fingerprint(task: seqio.Task, cfg: DatasetConfig) -> str | None:
    """Sixteen hexadecimal digits, or None if the source cannot tell what it holds."""
    source = _source_fingerprint(task, cfg)
    if source is None:
        return None
    parts = [
        task.name,
        cfg.split,
        sorted(cfg.task_feature_lengths.items()),
        cfg.seed or 0,
        cfg.use_cached,
        source,
        [
            (name, str(feature.vocabulary), feature.add_eos, str(feature.dtype))
            for name, feature in sorted(task.output_features.items())
        ],
        [code_fingerprint(step) for step in task.preprocessors],
    ]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def _source_fingerprint(task: seqio.Task, cfg: DatasetConfig) -> str | None:
    source = task.source
    if cfg.use_cached and task.supports_caching:
        if task.cache_dir is None:
            return None
        source = task._get_cached_source(cfg.split)
    own = getattr(source, "fingerprint", None)
    own = own or getattr(getattr(source, "_dataset_fn", None), "fingerprint", None)
    if own is not None:
        return str(own(cfg.split))
    if isinstance(source, seqio.TfdsDataSource):
        return repr(source.tfds_dataset)  # SeqIO insists on a version in its name
    if isinstance(source, seqio.FileDataSource):
        return json.dumps([file_fingerprint(path) for path in source.list_shards(cfg.split)])
    return None


def file_fingerprint(path: str) -> list[Any]:
    """Name, size and time of change of a file, local or remote."""
    found = tf.io.gfile.stat(path)
    return [path, found.length, found.mtime_nsec]


def code_fingerprint(function: Any, within: tuple[Any, ...] = ()) -> Any:
    """What can be told of a function: its code, constants, defaults and captured values, as JSON.

    Args:
        function: a function, a `functools.partial` or a callable object.
        within: the functions that hold this one, where a circle of references ends.
    """
    if any(function is outer for outer in within):
        return "circle"
    within = (*within, function)
    if isinstance(function, functools.partial):
        return ["partial", *(_values(v, within) for v in (function.func, function.args))] + [
            _values(function.keywords, within)
        ]
    parts: list[Any] = [getattr(function, "__qualname__", type(function).__qualname__)]
    code = getattr(function, "__code__", None)
    if code is not None:
        parts += [_code(code), _values(function.__defaults__, within)]
        for cell in function.__closure__ or ():
            try:
                parts.append(_values(cell.cell_contents, within))
            except ValueError:  # a cell that is not filled yet
                parts.append("empty")
    # Attributes hold what `functools.wraps` wrapped, and a callable object's settings.
    parts.append(_values(getattr(function, "__dict__", {}), within))
    return parts


def _code(code: types.CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names)]


def _values(value: Any, within: tuple[Any, ...]) -> Any:
    if isinstance(value, str | int | float | bool | type(None) | bytes):
        return repr(value)
    if isinstance(value, tuple | list):
        return [_values(v, within) for v in value]
    if isinstance(value, dict):
        return sorted([str(k), _values(v, within)] for k, v in value.items())
    if callable(value):
        return code_fingerprint(value, within)
    return type(value).__qualname__
