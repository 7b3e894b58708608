"""Token examples on disk or in memory: ids end to end, and where each example starts.

A store is what is left of a task after SeqIO: for every feature one flat int32 array of ids and
one int64 array of offsets. Reading it needs numpy alone. On disk it is a folder

    meta.json             {"format": 1, "examples": N, "features": {name: number of ids}, ...}
    <feature>.ids         little-endian int32
    <feature>.offsets     little-endian int64, N + 1 of them

that is written under a temporary name and renamed when complete, so a killed build leaves no
half store behind, and two processes that build the same one do not disturb each other.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kaft_promot.errors import UserError

_FORMAT = 1
_IDS, _OFFSETS = np.dtype("<i4"), np.dtype("<i8")
# A piece of a store while it is built: feature -> (flat ids, length of each example).
Chunk = Mapping[str, tuple[np.ndarray, np.ndarray]]


class TokenStore:
    """Random access to token examples.

    `store[i]` is a dict of feature name to int32 ids, views of the store's arrays.

    Args:
        ids: flat ids of each feature.
        offsets: N + 1 offsets into the ids of each feature; example i is ids[o[i]:o[i+1]].
    """

    def __init__(self, ids: Mapping[str, np.ndarray], offsets: Mapping[str, np.ndarray]):
        self._ids, self._offsets = dict(ids), dict(offsets)
        self._length = len(next(iter(self._offsets.values()))) - 1
        self._fields = [(name, self._ids[name], self._offsets[name]) for name in self._ids]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return {name: ids[o[index] : o[index + 1]] for name, ids, o in self._fields}

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self._ids)

    def lengths(self, feature: str) -> np.ndarray:
        """Number of ids of every example, int64 [N]."""
        return np.diff(self._offsets[feature])

    def __repr__(self) -> str:
        return f"TokenStore({len(self)} examples, features={self.features})"

    @classmethod
    def from_examples(cls, examples: Sequence[Mapping[str, Sequence[int]]]) -> TokenStore:
        """A store in memory of examples given as lists of ids."""
        names = list(examples[0]) if examples else ["inputs", "targets"]
        chunk = {
            name: (
                np.array([i for e in examples for i in e[name]], _IDS),
                np.array([len(e[name]) for e in examples], _OFFSETS),
            )
            for name in names
        }
        return cls.from_chunks([chunk], names)

    @classmethod
    def from_chunks(cls, chunks: Iterable[Chunk], features: Sequence[str]) -> TokenStore:
        """A store in memory."""
        ids: dict[str, list[np.ndarray]] = {name: [np.zeros(0, _IDS)] for name in features}
        lengths: dict[str, list[np.ndarray]] = {name: [np.zeros(1, _OFFSETS)] for name in features}
        for chunk in chunks:
            for name in features:
                ids[name].append(chunk[name][0])
                lengths[name].append(chunk[name][1])
        return cls(
            {name: np.concatenate(ids[name], dtype=_IDS) for name in features},
            {name: np.cumsum(np.concatenate(lengths[name]), dtype=_OFFSETS) for name in features},
        )

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore:
        """Map a saved store into memory.

        Raises:
            UserError: the folder is no store or its files have been cut.
        """
        folder = Path(folder)
        try:
            meta = json.loads((folder / "meta.json").read_text())
        except FileNotFoundError as e:
            raise UserError(f"{folder} is not a token store: it has no meta.json") from e
        except (OSError, ValueError) as e:
            raise UserError(f"cannot read the token store {folder}: {e}; delete it") from e
        if meta.get("format") != _FORMAT:
            raise UserError(f"{folder} has another version's token format; delete it")
        ids, offsets = {}, {}
        for name, count in meta["features"].items():
            ids[name] = _map(folder / f"{name}.ids", _IDS, count)
            offsets[name] = _map(folder / f"{name}.offsets", _OFFSETS, meta["examples"] + 1)
        return cls(ids, offsets)

    def save(self, folder: str | Path, about: Mapping[str, object] | None = None) -> None:
        """Write this store as a folder; see `write_store`."""
        chunk = {name: (ids, np.diff(o)) for name, ids, o in self._fields}
        write_store([chunk], self.features, folder, about)


def write_store(
    chunks: Iterable[Chunk],
    features: Sequence[str],
    folder: str | Path,
    about: Mapping[str, object] | None = None,
) -> None:
    """Write a store chunk by chunk, so that memory holds one chunk only.

    If another process has completed the same folder meanwhile, its work stays and this one's is
    dropped.

    Args:
        chunks: the examples.
        features: names of the features.
        folder: the store's name; its parents are made.
        about: what the store was made from, kept in meta.json for people.

    Raises:
        UserError: the disk is full or not writable; nothing is left behind.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        _write_files(chunks, features, temporary, about or {})
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "meta.json").exists():
                raise
    except OSError as e:
        raise UserError(f"cannot write the token store {folder}: {e.strerror or e}") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_files(
    chunks: Iterable[Chunk], features: Sequence[str], folder: Path, about: Mapping[str, object]
) -> None:
    files = {name: (folder / f"{name}.ids").open("wb") for name in features}
    lengths: dict[str, list[np.ndarray]] = {name: [np.zeros(1, _OFFSETS)] for name in features}
    try:
        for chunk in chunks:
            for name in features:
                files[name].write(np.ascontiguousarray(chunk[name][0], _IDS).tobytes())
                lengths[name].append(chunk[name][1])
    finally:
        for file in files.values():
            file.close()
    offsets = {name: np.cumsum(np.concatenate(lengths[name]), dtype=_OFFSETS) for name in features}
    for name in features:
        offsets[name].tofile(folder / f"{name}.offsets")
    meta = {
        "format": _FORMAT,
        "examples": len(offsets[features[0]]) - 1,
        "features": {name: int(offsets[name][-1]) for name in features},
        "about": dict(about),
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, default=str) + "\n")


def _map(path: Path, dtype: np.dtype, count: int) -> np.ndarray:
    size = path.stat().st_size if path.exists() else -1
    if size != count * dtype.itemsize:
        raise UserError(f"the token store's file {path} is damaged; delete its folder")
    if count == 0:  # an empty file cannot be mapped
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))
