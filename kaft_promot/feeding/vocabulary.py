"""Text to token ids and back, without TensorFlow.

Ids and decoded text equal those of SeqIO's vocabularies (`seqio.SentencePieceVocabulary`,
`seqio.ByteVocabulary`), so a model trained through one can be served through the other. Every
vocabulary here has T5's special ids: 0 padding, 1 end of sequence, 2 unknown.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gin
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from kaft_promot.errors import UserError

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
_ModelProto = sentencepiece_model_pb2.ModelProto  # type: ignore[attr-defined]
_SENTINEL = "▁<extra_id_{}>"
# LoadFromSerializedProto is not thread-safe (SeqIO guards it in the same way).
_LOADING = threading.Lock()


@runtime_checkable
class Vocabulary(Protocol):
    """What every room needs of a vocabulary."""

    pad_id: int
    eos_id: int
    unk_id: int
    extra_ids: int  # sentinels behind what its file holds

    @property
    def vocab_size(self) -> int:
        """Number of ids, extra ids included."""

    @property
    def digest(self) -> str:
        """Hexadecimal digest of everything that decides ids: equal digests, equal ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without end of sequence."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids up to the first end of sequence; padding and end leave no trace."""


class SentencePieceVocabulary:
    """A SentencePiece model with T5's extra ids behind its pieces.

    `<extra_id_0>` is the last id, `<extra_id_1>` the one before it, and so on (T5's sentinels:
    Raffel et al., JMLR 2020, section 3.1.4). They are recognised in text at the start of a word.
    mT5's file ends in its sentinels, in the same order; then none are added, and the attribute
    `extra_ids` is 0. Ids beyond the vocabulary, such as soft-prompt placeholders, decode like
    unknown (` ⁇ `).

    Args:
        path: a SentencePiece `.model` file with padding 0, end of sequence 1 and unknown 2.
        extra_ids: how many sentinels to add to a file that has none.

    Raises:
        UserError: the file is missing, is no SentencePiece model, has other special ids, or has
            sentinels elsewhere than at its end.
    """

    pad_id, eos_id, unk_id = PAD_ID, EOS_ID, UNK_ID

    def __init__(self, path: str | Path, extra_ids: int = 100):
        self.path = str(path)
        self.extra_ids = extra_ids
        self._load()

    def _load(self) -> None:
        try:
            serialized = Path(self.path).read_bytes()
        except OSError as e:
            raise UserError(f"cannot read vocabulary {self.path}: {e.strerror or e}") from e
        model = _ModelProto()
        try:
            model.ParseFromString(serialized)
        except Exception as e:  # protobuf's DecodeError has no stable import path
            raise UserError(f"{self.path} is not a SentencePiece model") from e
        if not model.pieces:
            raise UserError(f"{self.path} is not a SentencePiece model: it has no pieces")
        if self.extra_ids and _ends_in_sentinels(model, self.path):
            self.extra_ids = 0
        for i in reversed(range(self.extra_ids)):
            model.pieces.add(
                piece=_SENTINEL.format(i),
                score=0.0,
                type=_ModelProto.SentencePiece.USER_DEFINED,
            )
        serialized = model.SerializeToString()
        self.digest = hashlib.sha256(serialized).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            with _LOADING:
                self._processor.LoadFromSerializedProto(serialized)
        except RuntimeError as e:  # a piece that is there twice, for one
            raise UserError(f"{self.path} is not a SentencePiece model: {e}") from e
        found = (self._processor.pad_id(), self._processor.eos_id(), self._processor.unk_id())
        if found != (PAD_ID, EOS_ID, UNK_ID):
            raise UserError(
                f"{self.path} has padding, end and unknown at ids {found}; a T5 vocabulary has "
                "(0, 1, 2): train it with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1"
            )

    @property
    def vocab_size(self) -> int:
        return self._processor.GetPieceSize()

    def encode(self, text: str) -> list[int]:
        return self._processor.EncodeAsIds(text)

    def decode(self, ids: Iterable[int]) -> str:
        size = self.vocab_size
        return self._processor.DecodeIds([i if i < size else UNK_ID for i in _through_end(ids)])

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "extra_ids": self.extra_ids}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"SentencePieceVocabulary({self.path!r}, extra_ids={self.extra_ids})"


def _ends_in_sentinels(model: Any, path: str) -> bool:
    """Whether a SentencePiece model's last pieces are T5's sentinels; False if it has none."""
    start = _SENTINEL.partition("{")[0]
    found = [i for i, piece in enumerate(model.pieces) if piece.piece.startswith(start)]
    names = [model.pieces[i].piece for i in found]
    last = range(len(model.pieces) - len(found), len(model.pieces))
    if found != list(last) or names != [_SENTINEL.format(i) for i in range(len(found))][::-1]:
        raise UserError(
            f"{path}: has sentinels ({names[0]} is id {found[0]}) that are not its last pieces "
            "with <extra_id_0> at the end, as in T5's and mT5's vocabularies"
        )
    return bool(found)


class ByteVocabulary:
    """ByT5's vocabulary: byte b of the UTF-8 text is id b + 3 (Xue et al., TACL 2022).

    Ids that are no bytes (special ids, extra ids, placeholders) leave no trace in decoded text,
    neither do bytes that are not valid UTF-8.
    """

    pad_id, eos_id, unk_id = PAD_ID, EOS_ID, UNK_ID
    _FIRST = 3

    def __init__(self, extra_ids: int = 125):
        self.extra_ids = extra_ids
        self.digest = f"bytes+{extra_ids}"

    @property
    def vocab_size(self) -> int:
        return self._FIRST + 256 + self.extra_ids

    def encode(self, text: str) -> list[int]:
        return [byte + self._FIRST for byte in text.encode("utf-8")]

    def decode(self, ids: Iterable[int]) -> str:
        found = (i - self._FIRST for i in _through_end(ids))
        return bytes(b for b in found if 0 <= b < 256).decode("utf-8", errors="ignore")

    def __repr__(self) -> str:
        return f"ByteVocabulary(extra_ids={self.extra_ids})"


def _through_end(ids: Iterable[int]) -> list[int]:
    """Python ints up to and including the first end of sequence."""
    ids = [int(i) for i in ids]
    return ids[: ids.index(EOS_ID) + 1] if EOS_ID in ids else ids


def vocabulary_path(name_or_path: str | Path) -> Path:
    """The file behind a vocabulary's name: `mini` is the packaged one, else a path."""
    if str(name_or_path) == "mini":
        packaged = importlib.resources.files("kaft_promot") / "assets" / "mini" / "vocab.model"
        return Path(str(packaged))
    return Path(name_or_path).expanduser()


@functools.lru_cache(maxsize=16)
def load_vocabulary(name_or_path: str | Path, extra_ids: int | None = None) -> Vocabulary:
    """The vocabulary of a name or a file.

    Args:
        name_or_path: `mini` (packaged with this library), `bytes`, or a SentencePiece model file.
        extra_ids: number of sentinels to add, as in `SentencePieceVocabulary`; None for T5's 100,
            or ByT5's 125 with `bytes`.

    Raises:
        UserError: see `SentencePieceVocabulary`.
    """
    if str(name_or_path) == "bytes":
        return ByteVocabulary(125 if extra_ids is None else extra_ids)
    return SentencePieceVocabulary(
        vocabulary_path(name_or_path), 100 if extra_ids is None else extra_ids
    )


@gin.configurable(module="kaft_promot.feeding")
def task_vocabulary(path: str = "mini", extra_ids: int | None = None) -> Vocabulary:
    """The vocabulary of tasks that name none: bind `task_vocabulary.path` in gin.

    Args:
        path: as in `load_vocabulary`.
        extra_ids: as in `load_vocabulary`.
    """
    return load_vocabulary(path, extra_ids)
