"""This library's vocabularies as SeqIO vocabularies. Needs TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import seqio
import tensorflow as tf

from kaft_promot.feeding.vocabulary import (
    ByteVocabulary,
    SentencePieceVocabulary,
    Vocabulary,
    load_vocabulary,
    task_vocabulary,
)


@functools.lru_cache(maxsize=16)
def as_seqio(path: str | None, extra_ids: int) -> seqio.Vocabulary:
    """SeqIO's own vocabulary of a SentencePiece file, or of bytes for None."""
    if path is None:
        return seqio.ByteVocabulary(extra_ids)
    return seqio.SentencePieceVocabulary(path, extra_ids)


class TaskVocabulary(seqio.Vocabulary):
    """A vocabulary that is looked up when a task is used, not when it is registered.

    Task files register on import, which may come before gin has been read. Text and ids are
    SeqIO's own (`seqio.SentencePieceVocabulary`, `seqio.ByteVocabulary`).

    Args:
        name: name or path as in `load_vocabulary`; None for gin's `task_vocabulary`.
    """

    def __init__(self, name: str | None):
        self._name = name
        super().__init__()

    @property
    def plain(self) -> Vocabulary:
        """The TensorFlow-free vocabulary."""
        return task_vocabulary() if self._name is None else load_vocabulary(self._name)

    @property
    def delegate(self) -> seqio.Vocabulary:
        """SeqIO's own vocabulary."""
        plain = self.plain
        if isinstance(plain, ByteVocabulary):
            return as_seqio(None, plain.extra_ids)
        assert isinstance(plain, SentencePieceVocabulary)
        return as_seqio(plain.path, plain.extra_ids)

    @property
    def digest(self) -> str:
        """See `Vocabulary.digest`."""
        return self.plain.digest

    @property
    def extra_ids(self) -> int:
        return self.delegate.extra_ids

    @property
    def bos_id(self) -> int | None:
        return self.delegate.bos_id

    @property
    def eos_id(self) -> int:
        return self.plain.eos_id

    @property
    def unk_id(self) -> int:
        return self.plain.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.delegate._base_vocab_size

    @property
    def vocab_size(self) -> int:
        return self.plain.vocab_size

    def _encode(self, s: str) -> list[int]:
        return list(self.delegate.encode(s))

    def _decode(self, ids: Iterable[int]) -> str:
        return self.delegate.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        return self.delegate.encode_tf(s)

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        return self.delegate.decode_tf(ids)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, TaskVocabulary) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((TaskVocabulary, self._name))

    def __str__(self) -> str:
        return f"TaskVocabulary({self._name or 'task_vocabulary'}, digest={self.digest})"
