"""SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018): the official nested JSON, or flat JSON lines.

Nested: `{"version", "data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question",
"answers": [{"text", "answer_start"}], "is_impossible"}]}]}]}`. Flat: one question a line with
`id, title, context, question, answers` (a list of texts, or `{"text": [...]}`) and, for 2.0,
`is_impossible`; a flat row without it whose `answers` are empty is unanswerable. Flat rows may be
mixed with plain ones: whatever the plain reader takes from a row is taken here, too. Rows of a
nested file have no line, so rejected ones carry their path, e.g. `data[0].paragraphs[2].qas[1]`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.knowledge import files
from kaft_promot.knowledge.readers import base, jsonl
from kaft_promot.knowledge.records import QAExample

SOURCE = "squad"
# What SQuAD has not.
_PLAIN_FIELDS = frozenset({"source", "relation", "answer_type", "subject"})


def _to_example(row: Mapping[str, Any]) -> QAExample:
    """The example of a flat row: what the plain reader makes of it, so that no field is lost.

    Only this reader knows that no answers mean unanswerable where a row has no label.
    """
    if "is_impossible" not in row:
        none = row.get("answers") in ([], {"text": []}, {"text": [], "answer_start": []})
        row = {**row, "is_impossible": none}
    return jsonl.to_example(row, source=SOURCE)


def _load(path: files.PathLike) -> Any:
    text = b"".join(line for _, line in files.read_lines(path))
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: malformed JSON ({error.msg} at column {error.colno}); "
            "the file may be cut off"
        ) from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
        raise UserError(f"{path}: malformed JSON ({error})") from error


def _items(parent: Any, key: str, place: files.Place, rejects: files.Rejects) -> list[Any]:
    if isinstance(parent, Mapping) and isinstance(parent.get(key), list):
        return parent[key]
    rejects.add(place, "missing_field", f"here stands no object with a list {key!r}")
    return []


def _read_nested(path: files.PathLike, rejects: files.Rejects) -> Iterator[base.Placed]:
    document = _load(path)
    if not isinstance(document, Mapping) or not isinstance(document.get("data"), list):
        raise UserError(f"{path}: not SQuAD's JSON (no list 'data' at the top)")
    name = str(path)
    for i, article in enumerate(document["data"]):
        at_article = files.Place(name, path=f"data[{i}]")
        for j, paragraph in enumerate(_items(article, "paragraphs", at_article, rejects)):
            at_paragraph = files.Place(name, path=f"{at_article.path}.paragraphs[{j}]")
            for k, question in enumerate(_items(paragraph, "qas", at_paragraph, rejects)):
                place = files.Place(name, path=f"{at_paragraph.path}.qas[{k}]")
                try:
                    if not isinstance(question, Mapping):
                        raise base.RowError("field_type", "the question is no JSON object")
                    shared = {"title": article.get("title"), "context": paragraph.get("context")}
                    row = {"is_impossible": False, **question, **shared}
                    _check_unicode(row)
                    for name in ("id", "context"):
                        base.text_field(row, name)
                    example = _to_example(row)
                except base.RowError as error:
                    rejects.add(place, error.reason, str(error))
                    continue
                yield place, example


def _check_unicode(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise base.RowError("invalid_unicode", "a text holds half of a surrogate pair") from None


def _is_nested(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:4096]
    return (
        start.startswith(b"{")
        and b'"question"' not in start.split(b'"paragraphs"')[0]
        and (b'"paragraphs"' in start or b'"data"' in start)
    )


def _read(path: files.PathLike, rejects: files.Rejects) -> Iterator[base.Placed]:
    with files.open_bytes(path) as stream:
        nested = _is_nested(stream.read(4096))
    return _read_nested(path, rejects) if nested else base.read_rows(path, rejects, _to_example)


def _matches_row(row: Mapping[str, Any]) -> bool:
    """Whether a row is flat SQuAD: it has the label of version 2.0, or answers with offsets.

    A labelled row with a field that SQuAD has not is the plain reader's, which reads it equally.
    """
    if not {"id", "context", "question", "answers"} <= row.keys():
        return False
    if "is_impossible" in row:
        return _PLAIN_FIELDS.isdisjoint(row)
    return isinstance(row["answers"], Mapping) and "answer_start" in row["answers"]


READER = base.Reader(name="squad", read=_read, matches_row=_matches_row, matches_head=_is_nested)
