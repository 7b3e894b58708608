"""Readers: from a data set's own files to `QAExample`s.

To add a source: write one file here that defines a `Reader`, and name it in `_READERS` below.
Detection asks the readers in that order, so the most particular shape comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kaft_promot.errors import UserError
from kaft_promot.knowledge import files
from kaft_promot.knowledge.readers import jsonl, squad, trex
from kaft_promot.knowledge.readers.base import Reader
from kaft_promot.knowledge.records import QAExample

_READERS: tuple[Reader, ...] = (trex.READER, squad.READER, jsonl.READER)

READERS: dict[str, Reader] = {reader.name: reader for reader in _READERS}
FORMATS: tuple[str, ...] = ("auto", *READERS)

_HEAD = 1 << 16
_LINES_TRIED = 20


def detect_format(path: files.PathLike) -> str:
    """The name of the reader whose shape a file has.

    Raises:
      UserError: the file cannot be read, is empty, or has no known shape.
    """
    with files.open_bytes(path) as stream:
        try:
            head = stream.read(_HEAD)
        except (EOFError, OSError) as error:
            raise UserError(f"{path}: the gzip file is damaged ({error})") from error
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise UserError(f"{path} is empty; a question file holds at least one row")
    for reader in _READERS:
        if reader.matches_head(head):
            return reader.name
    for tried, (_, line) in enumerate(files.read_lines(path)):
        if tried >= _LINES_TRIED:
            break
        row, _, _ = files.parse_line(line)
        if row is None:
            continue
        for reader in _READERS:
            if reader.matches_row(row):
                return reader.name
    raise UserError(
        f"{path} has no shape known here; give --format as one of {', '.join(READERS)} "
        "(plain rows are JSON objects with question, answers and maybe context)"
    )


def read_placed(
    paths: Iterable[files.PathLike], format: str = "auto", rejects: files.Rejects | None = None
) -> Iterator[tuple[files.Place, QAExample]]:
    """Reads examples from files, each with the place it comes from.

    Args:
      paths: question files, gzip or plain.
      format: one of `FORMATS`.
      rejects: takes every row that gives no example; without it such a row raises UserError.
        Rows read = examples given + rows rejected.

    Raises:
      UserError: a file cannot be read at all.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format {format!r}; choose one of {', '.join(FORMATS)}")
    rejects = files.Rejects(strict=True) if rejects is None else rejects
    seen: dict[str, files.Place] = {}
    for path in paths:
        name = detect_format(path) if format == "auto" else format
        count = len(seen) + len(rejects)
        for place, example in READERS[name].read(path, rejects):
            if example.id in seen:
                rejects.add(place, "duplicate_id", f"{example.id!r} was seen at {seen[example.id]}")
                continue
            seen[example.id] = place
            yield place, example
        if len(seen) + len(rejects) == count:
            raise UserError(f"{path} is empty; a question file holds at least one row")


def read_examples(
    path: files.PathLike | Iterable[files.PathLike],
    format: str = "auto",
    rejects: files.Rejects | None = None,
) -> Iterator[QAExample]:
    """Reads examples from one file or several; see `read_placed`."""
    paths = [path] if isinstance(path, files.PathLike) else path
    for _, example in read_placed(paths, format, rejects):
        yield example
