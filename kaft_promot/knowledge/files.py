"""Files in and files out: rows with their places, rejected rows, and output that is never half.

Reading knows where every row stands, so that whatever is wrong with it can be said with file and
line. Writing goes to temporary files beside the goal that replace it only when all is done: a run
that is stopped, or a disk that fills up, leaves the finished output of an earlier run as it was.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gzip
import json
import os
import pathlib
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, cast

from kaft_promot.errors import UserError

PathLike = str | pathlib.Path
EXCERPT = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: a file, and a line (from 1) or a path inside a JSON document."""

    file: str
    line: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line if self.line is not None else self.path}"


class Rejects:
    """Takes what is refused, counts it by reason, and keeps or writes the rows.

    Args:
      out: an open text file for JSON lines; without it the rows are kept in `rows`.
      strict: raise UserError at the first row instead.
      keep: whether to keep the rows where there is no `out`; False only counts.
    """

    def __init__(
        self, out: IO[str] | None = None, *, strict: bool = False, keep: bool = True
    ) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.rows: list[dict[str, Any]] = []
        self.out = out
        self._strict = strict
        self._keep = keep

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, place: Place, reason: str, detail: str, **more: Any) -> None:
        """Refuses one row.

        Args:
          place: where the row stands.
          reason: a short name, the key of the count.
          detail: one sentence for people.
          **more: further fields for the rejected row.
        """
        if self._strict:
            raise UserError(f"{place}: {reason}: {detail}")
        self.counts[reason] += 1
        row = {"file": place.file, "line": place.line, "path": place.path, "reason": reason}
        row |= {"detail": detail, **more}
        if self.out is None:
            if self._keep:
                self.rows.append(row)
        else:
            self.out.write(json.dumps(row, ensure_ascii=True) + "\n")


def check_input(path: PathLike) -> pathlib.Path:
    """The path, if a file can be read there.

    Raises:
      UserError: nothing is there, or it is a folder, or it may not be read.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the files in it")
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(f"{path} is no ordinary file; inputs are read twice, so no pipes")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} may not be read; check its permissions")
    return path


def open_bytes(path: PathLike) -> IO[bytes]:
    """Opens a file for reading bytes, unpacking gzip by its first two bytes (any file name).

    Raises:
      UserError: see `check_input`.
    """
    path = check_input(path)
    raw = path.open("rb")
    if raw.peek(2)[:2] == b"\x1f\x8b":
        raw.close()
        return cast(IO[bytes], gzip.open(path, "rb"))
    return raw


def read_lines(path: PathLike) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1.

    Raises:
      UserError: see `open_bytes`; also for a damaged gzip file (with the last sound line).
    """
    number = 0
    with open_bytes(path) as lines:
        try:
            for line in lines:
                number += 1
                if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                    line = line[3:]
                if line.strip():
                    yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(
                f"{path}: the gzip file is damaged after line {number} ({error}); "
                "fetch or pack it again"
            ) from error
        except OSError as error:
            raise UserError(f"{path}: reading failed after line {number} ({error})") from error


def parse_line(line: bytes) -> tuple[dict[str, Any] | None, str, str]:
    """One JSON object from one line: (object, "", "") or (None, reason, detail)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, "invalid_utf8", f"byte {error.start + 1} of the line is not UTF-8"
    try:
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        cut = "" if line.endswith(b"\n") else "; the line is the file's last and may be cut off"
        return None, "malformed_json", f"{error.msg} at column {error.colno}{cut}"
    except UnicodeEncodeError:
        return None, "invalid_unicode", "a text holds half of a surrogate pair"
    except (RecursionError, ValueError) as error:
        return None, "malformed_json", str(error)
    if not isinstance(value, dict):
        return None, "malformed_json", f"the line holds no JSON object but {type(value).__name__}"
    return value, "", ""


def read_jsonl(path: PathLike, rejects: Rejects) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The JSON objects of a file's lines with their places; what is none goes to `rejects`.

    Raises:
      UserError: see `read_lines`.
    """
    name = str(path)
    for number, line in read_lines(path):
        value, reason, detail = parse_line(line)
        if value is None:
            excerpt = line[:EXCERPT].decode("utf-8", "replace").rstrip()
            rejects.add(Place(name, number), reason, detail, excerpt=excerpt)
        else:
            yield Place(name, number), value


class AtomicFolder:
    """Files of one run in one folder, put in place together when the block ends without error.

    Raises:
      UserError: the folder cannot be made, a folder stands where a file is to go, or a write fails
        (a full disk): one line that says so. The files that were there before stay; should the
        very last step fail, putting one finished file after the other in place, the line names
        those that are new already.
    """

    def __init__(self, folder: PathLike) -> None:
        self._folder = pathlib.Path(folder)
        self._placed: list[str] = []
        self._open: dict[pathlib.Path, tuple[pathlib.Path, IO[str]]] = {}

    def __enter__(self) -> AtomicFolder:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self._folder} ({error.strerror})") from error
        return self

    def open(self, name: str) -> IO[str]:
        """Opens a text file (UTF-8) that will appear as `name` in the folder."""
        goal = self._folder / name
        if goal.is_dir():
            raise UserError(f"{goal} is a folder, and a file of this name is to be written there")
        temporary = goal.with_name(f".{name}.{os.getpid()}.tmp")
        try:
            out = temporary.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(f"cannot write in {self._folder} ({error.strerror})") from error
        self._open[goal] = (temporary, out)
        return out

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                for _, out in self._open.values():
                    out.flush()
                    os.fsync(out.fileno())
                    out.close()
                for goal, (temporary, _) in self._open.items():
                    temporary.replace(goal)
                    self._placed.append(goal.name)
        except OSError as failure:
            error = failure
        finally:
            for temporary, out in self._open.values():
                with contextlib.suppress(OSError):  # a full disk: the buffer goes with the file
                    out.close()
                temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            placed = ", ".join(self._placed)
            raise UserError(
                f"writing in {self._folder} failed ({error.strerror or error}); "
                + (f"new are {placed}; else " if placed else "")
                + "what was there before is unchanged"
            ) from error
