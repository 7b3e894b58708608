"""What decides a task's tokens, as a digest: the key under which they are kept on disk.

Known to the digest: the task's name, split, lengths and seed, its vocabularies, the code of its
preprocessors, and its source (files with size and time, a TFDS version, or what the source says
itself through a method or attribute `fingerprint(split) -> str`). Not known: values that
preprocessors read from elsewhere, such as other modules' globals. Needs TensorFlow (SeqIO).
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
        [_function(step) for step in task.preprocessors],
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
        return f"{source.tfds_dataset.name} {source.tfds_dataset.version}"
    if isinstance(source, seqio.FileDataSource):
        return json.dumps([file_fingerprint(path) for path in source.list_shards(cfg.split)])
    return None


def file_fingerprint(path: str) -> list[Any]:
    """Name, size and time of change of a file, local or remote."""
    found = tf.io.gfile.stat(path)
    return [path, found.length, found.mtime_nsec]


def _function(step: Any) -> Any:
    """What can be told of a preprocessor: its code, constants, arguments and captured values."""
    if isinstance(step, functools.partial):
        return ["partial", _function(step.func), _values(step.args), _values(step.keywords)]
    function = getattr(step, "__wrapped__", None)
    parts: list[Any] = [getattr(step, "__qualname__", type(step).__qualname__)]
    if function is not None:
        parts.append(_function(function))
    code = getattr(step, "__code__", None)
    if code is not None:
        parts += [_code(code), _values(getattr(step, "__defaults__", None) or ())]
        for cell in getattr(step, "__closure__", None) or ():
            try:
                parts.append(_values(cell.cell_contents))
            except ValueError:  # a cell that is not filled yet
                parts.append("empty")
    elif hasattr(step, "__dict__"):
        parts.append(_values({k: v for k, v in vars(step).items() if k != "__wrapped__"}))
    return parts


def _code(code: types.CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), constants, list(code.co_names)]


def _values(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | type(None) | bytes):
        return repr(value)
    if isinstance(value, tuple | list):
        return [_values(v) for v in value]
    if isinstance(value, dict):
        return sorted((str(k), _values(v)) for k, v in value.items())
    if callable(value):
        return _function(value)
    return type(value).__qualname__
