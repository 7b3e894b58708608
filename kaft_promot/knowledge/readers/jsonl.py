"""Plain JSON lines: `question`, `answers` (or `answer`) and maybe `context`.

Further fields that are used if present: `id`, `source`, `is_impossible`, `relation`,
`answer_type`, `title`, `subject`. All others are ignored. A row without an id gets a hash of its
content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kaft_promot.knowledge.readers import base
from kaft_promot.knowledge.records import QAExample


def to_example(row: Mapping[str, Any], *, source: str = "jsonl") -> QAExample:
    """The example of one row.

    Args:
      row: see the module's docstring.
      source: the data set's name where the row has none.

    Raises:
      RowError: the row gives no example.
    """
    question = base.text_field(row, "question")
    context = base.text_field(row, "context", required=False)
    is_impossible = base.flag_field(row, "is_impossible")
    if is_impossible and context is None:
        raise base.RowError("missing_field", "labelled unanswerable, but has no context")
    given = row["answers"] if "answers" in row else row.get("answer")
    if given is None:
        if not is_impossible:
            raise base.RowError("missing_field", "the row has no 'answers'")
        given = []
    answers = base.answers_field(given, is_impossible=is_impossible)
    source = base.text_field(row, "source", required=False) or source
    example_id = base.text_field(row, "id", required=False)
    assert question is not None
    return QAExample(
        id=example_id or base.derived_id(source, question, context, *answers),
        source=source,
        question=question,
        context=context,
        answers=answers,
        is_impossible=is_impossible,
        relation=base.text_field(row, "relation", required=False),
        answer_type=base.text_field(row, "answer_type", required=False),
        title=base.text_field(row, "title", required=False),
        subject=base.text_field(row, "subject", required=False),
    )


READER = base.Reader(
    name="jsonl",
    read=lambda path, rejects: base.read_rows(path, rejects, to_example),
    matches_row=lambda row: "question" in row and ("answers" in row or "answer" in row),
)
