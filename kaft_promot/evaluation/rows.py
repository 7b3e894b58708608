"""Sample rows: one evaluated example a line, the only thing that reports are computed from.

A rows file is JSONL and only ever grows. Two kinds of line stand in it:

* a **sample row**: `{"arm", "example_id", "question_id", "task", "context_kind", "prompt",
  "prediction", "answer", "source", "scores", ...}` and the record's fields that measuring needs;
* a **run note**: `{"run_note": {...}, "arm": ARM}`: how that arm was trained and evaluated (seed,
  steps, versions), so that the report can say it without reading anything else.

A process killed while it writes leaves at most one broken line, at the end. Readers ignore it; the
next writer cuts it off, and the example is evaluated again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from kaft_promot.errors import UserError
from kaft_promot.evaluation import row_checks

Row = dict[str, Any]
Key = tuple[str, str]  # (arm, example_id)

_NOTE = "run_note"
_log = logging.getLogger(__name__)


@dataclass
class Rows:
    """What a rows file (or several) holds.

    Attributes:
      samples: the sample rows, in the order in which they were written.
      notes: arm -> run note, later notes updating earlier ones field by field.
    """

    samples: list[Row] = field(default_factory=list)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def arms(self) -> list[str]:
        """Arms in order of appearance."""
        return list(dict.fromkeys(row["arm"] for row in self.samples))


def key_of(row: Mapping[str, Any]) -> Key:
    """What makes a row unique: its arm and its example."""
    return (row["arm"], row["example_id"])


def read_rows(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Rows:
    """Reads a rows file, a folder of rows files, or a list of either.

    Args:
      source: a folder is a run's, with its rows in `rows/` or in `rows.jsonl`, or else one of rows
        files (`*.jsonl`).

    Raises:
      UserError: nothing to read, a malformed line that is not the unfinished last one, a row that
        lacks what figures are computed from, or the same (arm, example_id) twice.
    """
    paths = list(_files(source))
    if not paths:
        raise UserError(f"{source}: no rows files (*.jsonl) here; run an evaluation first")
    rows = Rows()
    seen: dict[Key, str] = {}
    for path in paths:
        for number, line in _lines(path):
            if isinstance(line.get(_NOTE), dict):
                rows.notes.setdefault(line["arm"], {}).update(line[_NOTE])
                continue
            place, key = f"{path}:{number}", key_of(line)
            wrong = row_checks.problem(line)
            if wrong:
                raise UserError(
                    f"{place}: the sample row of arm {key[0]!r}, example {key[1]!r} {wrong}; mend "
                    "the line, or remove it and evaluate that arm again"
                )
            if key in seen:
                raise UserError(
                    f"{place}: arm {key[0]!r}, example {key[1]!r} stands at {seen[key]} already; "
                    "remove one of them"
                )
            seen[key] = place
            rows.samples.append(line)
    return rows


class RowWriter:
    """Appends rows to one file that stays open; knows which rows the file has already.

    Use as a context manager. Every `append` reaches the operating system before it returns, so a
    killed process loses at most the row being written.

    Attributes:
      done: the rows that the file holds, by (arm, example_id); grows with every append.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Opens `path`, making its folder, and mends an unfinished last line.

        Raises:
          UserError: another process writes this file, or one of its lines is malformed.
        """
        self.path = pathlib.Path(path)
        self.done: dict[Key, Row] = {}
        self.notes: dict[str, dict[str, Any]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: closing would try once more to write what a full disk refused.
            self._file: BinaryIO = open(self.path, "ab", buffering=0)  # noqa: SIM115 (see close)
        except OSError as error:
            raise UserError(f"{self.path}: cannot write rows here: {error.strerror}") from error
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{self.path}: another evaluation is writing this file") from error
            except OSError as error:  # some network file systems have no locks
                _log.warning("%s: cannot be locked (%s)", self.path, error.strerror)
            existing = read_rows(self.path)  # before anything is cut off: is it a rows file?
            self._mend()
        except BaseException:
            self._file.close()
            raise
        self.done = {key_of(row): row for row in existing.samples}
        self.notes = existing.notes

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes sample rows; a row whose key the file has already is a programming error."""
        lines = []
        for row in rows:
            key = key_of(row)
            if key in self.done:
                raise ValueError(f"row {key} is in {self.path} already")
            lines.append(_dump(row))
            self.done[key] = json.loads(lines[-1])  # as a later reader will see it
        self._write(lines)

    def note(self, arm: str, note: Mapping[str, Any]) -> None:
        """Writes how `arm` was run, unless the file says so already."""
        known = self.notes.setdefault(arm, {})
        if any(known.get(name, _NOTE) != value for name, value in note.items()):
            known.update(note)
            self._write([_dump({_NOTE: dict(note), "arm": arm})])

    def close(self) -> None:
        """Flushes to the disk itself and gives the file free."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, lines: Sequence[bytes]) -> None:
        try:
            rest = memoryview(b"".join(lines))
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write rows: {error.strerror}; rows written so far are kept, "
                "make room and run the same command again"
            ) from error

    def _mend(self) -> None:
        """Cuts off what a killed process left behind the last whole line."""
        content = self.path.read_bytes()
        keep = _whole(content)
        if keep < len(content):
            os.truncate(self.path, keep)


def _whole(content: bytes) -> int:
    """Length of `content` up to the end of its last complete row."""
    end = content.rfind(b"\n") + 1
    if end != len(content):
        return end
    last = content.rfind(b"\n", 0, end - 1) + 1 if end else 0
    # A machine that lost power can leave a last line of the right length without its bytes.
    return last if end and _json(content[last:end]) is _NO_JSON else end


_NO_JSON = object()


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # malformed JSON or invalid UTF-8
        return _NO_JSON


def _parse(line: bytes) -> Row | None:
    value = _json(line)
    if not isinstance(value, dict) or not isinstance(value.get("arm"), str):
        return None
    whole = isinstance(value.get(_NOTE), dict) or isinstance(value.get("example_id"), str)
    return value if whole else None


def _lines(path: pathlib.Path) -> Iterator[tuple[int, Row]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read rows: {error.strerror}") from error
    keep = _whole(content)
    if keep < len(content):
        _log.warning(
            "%s: left out an unfinished last line (%d bytes), as a stopped evaluation leaves one; "
            "the same evaluation again adds its example",
            path,
            len(content) - keep,
        )
    for number, line in enumerate(content[:keep].split(b"\n"), start=1):
        if not line.strip():
            continue
        row = _parse(line)
        if row is None:
            raise UserError(
                f"{path}:{number}: not a sample row (a JSON object with arm and example_id); "
                "remove the line and evaluate again"
            )
        yield number, row


def _files(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
) -> Iterator[pathlib.Path]:
    if not isinstance(source, (str, os.PathLike)):
        for item in source:
            yield from _files(item)
        return
    path = pathlib.Path(source)
    if (path / "rows").is_dir():
        yield from sorted((path / "rows").glob("*.jsonl"))
    elif (path / "rows.jsonl").is_file():
        yield path / "rows.jsonl"
    elif path.is_dir():
        yield from sorted(path.glob("*.jsonl"))
    elif path.is_file():
        yield path
    else:
        raise UserError(f"{path}: no such rows file or folder")


def _dump(value: Mapping[str, Any]) -> bytes:
    # ASCII, so that a lone surrogate in a prediction cannot make the file undecodable.
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
