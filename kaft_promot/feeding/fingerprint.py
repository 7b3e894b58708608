"""What decides a task's tokens, as a digest: the key under which they are kept on disk.

Known to the digest: the task's name, split, lengths and seed, its vocabularies, the code of its
preprocessors with the values that they hold (values.py), and its source (files with size and time,
a TFDS name with version, or what the source says itself through a method or attribute
`fingerprint(split) -> str`). Not known: values that preprocessors read from elsewhere, such as
modules' globals. Needs TensorFlow (SeqIO).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import seqio
import tensorflow as tf
from absl import logging

from kaft_promot.feeding.values import UnknownValue, value_fingerprint

if TYPE_CHECKING:
    from kaft_promot.feeding.dataset import DatasetConfig


def task_fingerprint(task: seqio.Task, cfg: DatasetConfig) -> str | None:
    """Sixteen hexadecimal digits, or None (and a warning) if it cannot be told what the task is."""
    try:
        parts = [
            task.name,
            cfg.split,
            sorted(cfg.task_feature_lengths.items()),
            cfg.seed or 0,
            cfg.use_cached,
            _source_fingerprint(task, cfg),
            [
                (name, str(feature.vocabulary), feature.add_eos, str(feature.dtype))
                for name, feature in sorted(task.output_features.items())
            ],
            [code_fingerprint(step) for step in task.preprocessors],
        ]
    except UnknownValue as e:
        logging.warning(
            "task %s: its tokens are not kept in %s: %s", task.name, cfg.cache_dir or "a cache", e
        )
        return None
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def _source_fingerprint(task: seqio.Task, cfg: DatasetConfig) -> str:
    source = task.source
    if cfg.use_cached and task.supports_caching:
        if task.cache_dir is None:
            raise UnknownValue("there is no offline cache")
        source = task._get_cached_source(cfg.split)
    own = getattr(source, "fingerprint", None)
    own = own or getattr(getattr(source, "_dataset_fn", None), "fingerprint", None)
    if own is not None:
        return str(own(cfg.split))
    if isinstance(source, seqio.TfdsDataSource):
        return repr(source.tfds_dataset)  # SeqIO insists on a version in its name
    if isinstance(source, seqio.FileDataSource):
        return json.dumps([file_fingerprint(path) for path in source.list_shards(cfg.split)])
    raise UnknownValue(f"it reads from a {type(source).__name__} without a fingerprint")


def file_fingerprint(path: str) -> list[Any]:
    """Name, size and time of change of a file, local or remote."""
    found = tf.io.gfile.stat(path)
    return [path, found.length, found.mtime_nsec]


def code_fingerprint(function: Any) -> Any:
    """What can be told of a function: its code, constants, defaults and captured values, as JSON.

    Args:
        function: a function, a `functools.partial` or a callable object; or None.

    Raises:
        UnknownValue: it holds a value that cannot be told.
    """
    return value_fingerprint(function, of=_seqios)


def _seqios(value: Any) -> Any:
    """SeqIO's and TensorFlow's values, which say themselves what they are; else None."""
    if isinstance(value, seqio.Vocabulary):
        return ["vocabulary", str(value)]
    if isinstance(value, tf.Tensor) and hasattr(value, "numpy"):
        return ["tensor", value.numpy()]
    if isinstance(value, tf.DType | tf.TensorShape):
        return ["tensorflow", repr(value)]
    module = str(getattr(value, "__module__", "")).partition(".")[0]
    if callable(value) and module in ("tensorflow", "keras") and hasattr(value, "__qualname__"):
        return ["tensorflow", tf.__version__, value.__module__, value.__qualname__]
    return None
