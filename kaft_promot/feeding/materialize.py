"""Running a SeqIO task once, into pieces of a token store. Needs TensorFlow.

Most tasks end with SeqIO's `tokenize` and `append_eos` or `append_eos_after_trim`. Example by
example, tf.data spends nine tenths of its time on the way into and out of the tokenizer, so these
steps are done here on thousands of examples at a time, with the same ids (the tests compare).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import seqio
import tensorflow as tf
from absl import logging

from kaft_promot.errors import UserError
from kaft_promot.feeding.features import FEATURES
from kaft_promot.feeding.seqio_vocabulary import TaskVocabulary
from kaft_promot.feeding.token_store import Chunk

if TYPE_CHECKING:
    from kaft_promot.feeding.dataset import DatasetConfig

_CHUNK = 4096  # examples taken from tf.data at a time
_EOS_STEPS = (seqio.preprocessors.append_eos, seqio.preprocessors.append_eos_after_trim)


def dataset(task: seqio.Task, cfg: DatasetConfig) -> tf.data.Dataset:
    """The task's examples in order, preprocessed and cut to their lengths."""
    for feature in task.output_features.values():
        if isinstance(feature.vocabulary, TaskVocabulary):
            _ = feature.vocabulary.plain  # an error there is one line, inside tf.data many
    try:
        return task.get_dataset(
            sequence_length=dict(cfg.task_feature_lengths),
            split=cfg.split,
            use_cached=cfg.use_cached,
            shuffle=False,
            seed=cfg.seed or 0,
            num_epochs=1,
            try_in_mem_cache=False,
        )
    except AssertionError as e:  # SeqIO's for a missing cache
        raise UserError(
            f"task {task.name!r} has no offline cache in {seqio.utils.get_global_cache_dirs()}: "
            "make one with seqio_cache_tasks and name its folder by seqio.add_global_cache_dirs, "
            "or set DatasetConfig.use_cached to False"
        ) from e
    except (ValueError, OSError, tf.errors.OpError) as e:
        raise UserError(f"task {task.name!r}, split {cfg.split!r}: {first_line(e)}") from e


def token_chunks(task: seqio.Task, cfg: DatasetConfig) -> Iterator[Chunk]:
    """The task's tokens in pieces of a few thousand examples.

    Raises:
        UserError: the task gives no token ids under `inputs` and `targets`, or cannot be read.
    """
    fast = _text_before_tokenizing(task, cfg)
    try:
        yield from _encoded(task, cfg, fast) if fast is not None else _ragged(task, cfg)
    except tf.errors.OpError as e:
        raise UserError(f"task {task.name!r}, split {cfg.split!r}: {first_line(e)}") from e


def _ragged(task: seqio.Task, cfg: DatasetConfig) -> Iterator[Chunk]:
    """Any task: tokens as its own preprocessors make them."""
    data = dataset(task, cfg)
    for name in FEATURES:
        spec = data.element_spec.get(name)
        if spec is None or spec.shape.rank != 1 or not spec.dtype.is_integer:
            raise UserError(
                f"task {task.name!r} gives {'no' if spec is None else spec} {name!r}; an "
                "encoder-decoder needs token ids [length] under 'inputs' and 'targets'"
            )
    data = data.map(lambda example: {name: tf.cast(example[name], tf.int32) for name in FEATURES})
    for batch in data.ragged_batch(_CHUNK):
        yield {
            name: (batch[name].flat_values.numpy(), batch[name].row_lengths().numpy())
            for name in FEATURES
        }


def _text_before_tokenizing(task: seqio.Task, cfg: DatasetConfig) -> tf.data.Dataset | None:
    """The text `inputs` and `targets` of a task that ends with tokenizing, else None."""
    if cfg.use_cached or task.supports_caching:
        return None
    steps = list(task.preprocessors)
    if steps and steps[-1] in _EOS_STEPS:
        steps.pop()
    if not steps or steps.pop() is not seqio.preprocessors.tokenize:
        return None
    for name in FEATURES:
        feature = task.output_features.get(name)
        if feature is None or feature.dtype != tf.int32 or feature.rank != 1:
            return None
        if not isinstance(feature.vocabulary, TaskVocabulary | seqio.SentencePieceVocabulary):
            return None
    seed = cfg.seed or 0
    try:
        data = task.source.get_dataset(split=cfg.split, shuffle=False, seed=seed)
        data = task.replace(preprocessors=steps).preprocess_postcache(
            data, sequence_length=dict(cfg.task_feature_lengths), seed=seed
        )
    except (ValueError, OSError, tf.errors.OpError) as e:
        raise UserError(f"task {task.name!r}, split {cfg.split!r}: {first_line(e)}") from e
    for name in FEATURES:
        spec = data.element_spec.get(name)
        if not isinstance(spec, tf.TensorSpec) or spec.dtype != tf.string or spec.shape.rank != 0:
            return None
    return data.map(lambda example: {name: example[name] for name in FEATURES})


def _encoded(task: seqio.Task, cfg: DatasetConfig, data: tf.data.Dataset) -> Iterator[Chunk]:
    """Text tokenized thousands at a time; says how many examples lost their ends."""
    last = task.preprocessors[-1]
    cut, longest, count = dict.fromkeys(FEATURES, 0), dict.fromkeys(FEATURES, 0), 0
    for batch in data.batch(_CHUNK):
        chunk = {}
        for name in FEATURES:
            feature, limit = task.output_features[name], int(cfg.task_feature_lengths[name])
            ids, lengths = _encode(feature.vocabulary, batch[name])
            whole = lengths + (feature.add_eos and last in _EOS_STEPS)
            cut[name] += int((whole > limit).sum())
            longest[name] = max(longest[name], int(whole.max(initial=0)))
            if feature.add_eos and last in _EOS_STEPS:
                room = limit - 1 if last is seqio.preprocessors.append_eos_after_trim else None
                ids, lengths = trim_rows(ids, lengths, room)
                ids = np.insert(ids, np.cumsum(lengths), feature.vocabulary.eos_id)
                lengths = lengths + 1
            chunk[name] = trim_rows(ids, lengths, limit)
        count += len(chunk[FEATURES[0]][1])
        yield chunk
    for name in FEATURES:
        if cut[name]:
            logging.warning(
                "task %s, split %r: the ends of %d of %d %s are cut, the longest has %d tokens and "
                "TASK_FEATURE_LENGTHS gives %d",
                task.name,
                cfg.split,
                cut[name],
                count,
                name,
                longest[name],
                int(cfg.task_feature_lengths[name]),
            )


def _encode(vocabulary: seqio.Vocabulary, text_N: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Ids of N texts end to end, and how many each has."""
    if isinstance(vocabulary, TaskVocabulary):
        vocabulary = vocabulary.delegate
    if isinstance(vocabulary, seqio.ByteVocabulary):
        texts = text_N.numpy()
        lengths = np.array([len(text) for text in texts], np.int64)
        return np.frombuffer(b"".join(texts), np.uint8).astype(np.int32) + 3, lengths
    ragged = vocabulary.encode_tf(text_N)
    return ragged.flat_values.numpy(), ragged.row_lengths().numpy()


def trim_rows(
    ids: np.ndarray, lengths: np.ndarray, limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The first `limit` ids of every row; all for None.

    Args:
        ids: the rows end to end.
        lengths: number of ids of every row.
        limit: at least 0.
    """
    if limit is None or not len(lengths) or lengths.max() <= limit:
        return ids, lengths
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(ids)) - np.repeat(starts, lengths)
    return ids[place < limit], np.minimum(lengths, limit)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0]
