"""What a reader is, and the checks that all readers share."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kaft_promot.knowledge import files
from kaft_promot.knowledge.records import QAExample
from kaft_promot.knowledge.text import normalize_answer

Placed = tuple[files.Place, QAExample]


class RowError(ValueError):
    """A row gives no example: `reason` is the count's key, the message is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """One shape of question files.

    Attributes:
      name: what `--format` calls it.
      read: from a path to examples with their places; bad rows go to the rejects.
      matches_row: whether a JSON line has this shape.
      matches_head: whether the first bytes of a file show this shape (for files that are no
        JSON lines).
    """

    name: str
    read: Callable[[files.PathLike, files.Rejects], Iterator[Placed]]
    matches_row: Callable[[Mapping[str, Any]], bool]
    matches_head: Callable[[bytes], bool] = lambda head: False


def read_rows(
    path: files.PathLike,
    rejects: files.Rejects,
    to_example: Callable[[Mapping[str, Any]], QAExample],
) -> Iterator[Placed]:
    """Reads JSON lines with a function from row to example; RowErrors go to the rejects."""
    for place, row in files.read_jsonl(path, rejects):
        try:
            example = to_example(row)
        except RowError as error:
            rejects.add(place, error.reason, str(error))
            continue
        yield place, example


def text_field(row: Mapping[str, Any], name: str, *, required: bool = True) -> str | None:
    """A text of the row, stripped; None if it is optional and absent or blank.

    Raises:
      RowError: it is no text, or it is required and absent or blank.
    """
    value = row.get(name)
    if value is None:
        if required:
            raise RowError("missing_field", f"the row has no {name!r}")
        return None
    if isinstance(value, int) and not isinstance(value, bool) and name == "id":
        value = str(value)
    if not isinstance(value, str):
        raise RowError("field_type", f"{name!r} is not a text")
    if not value.strip():
        if required:
            raise RowError(f"empty_{name}", f"{name!r} is blank")
        return None
    return value.strip()


def flag_field(row: Mapping[str, Any], name: str) -> bool:
    """A true/false field, False if absent.

    Raises:
      RowError: it is something else.
    """
    value = row.get(name, False)
    if not isinstance(value, bool):
        raise RowError("field_type", f"{name!r} is neither true nor false")
    return value


def answers_field(value: Any, *, is_impossible: bool) -> tuple[str, ...]:
    """The distinct answers that are not blank, in order.

    Args:
      value: a text, a list of texts, or SQuAD's `{"text": [...]}` or `[{"text": ...}, ...]`.
      is_impossible: whether the question is labelled as having no answer.

    Raises:
      RowError: of another type; none left though the question has an answer, or some given
        though it has none.
    """
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise RowError("field_type", "the answers are not a list of texts")
    texts = []
    for item in value:
        text = item.get("text") if isinstance(item, Mapping) else item
        if not isinstance(text, str):
            raise RowError("field_type", "an answer is not a text")
        texts.append(text)
    answers = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if is_impossible:
        if answers:
            raise RowError("answer_to_impossible", "labelled unanswerable, but has an answer")
        return ()
    if not any(normalize_answer(answer) for answer in answers):
        raise RowError("empty_answer", "no answer is left once blanks and punctuation are gone")
    return tuple(answer for answer in answers if normalize_answer(answer))


def derived_id(source: str, *parts: str | None) -> str:
    """An id for a row without one: a hash of its content, so it does not depend on its place."""
    text = "\x00".join(part or "" for part in parts)
    return f"{source}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"
