"""T-REx (Elsahar et al. 2018) in LAMA's form (Petroni et al. 2019): a triple and its sentences.

A row is `{"id", "relation", "template", "sub_label", "obj_label", "evidence": [{"text",
"obj_surface", "start"}]}`; LAMA's own rows (`uuid`, `predicate_id`, `evidences` with
`masked_sentence`) are read too. The question comes from `kaft_promot.knowledge.relations`.

The context is a sentence that names both the subject and the object, with the object's label if
there is one: a sentence that does not name its subject ("He was born in London.") does not entail
the answer, so without such a sentence the example has no context. `answers` are the object's
label and its surfaces in this row's sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kaft_promot.knowledge.readers import base
from kaft_promot.knowledge.records import QAExample
from kaft_promot.knowledge.relations import answer_type_for, question_for
from kaft_promot.knowledge.spans import find_spans, holds_alias

SOURCE = "trex"


def _sentences(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(text, surface of the object in it) of every sound sentence of the row."""
    given = row.get("evidence", row.get("evidences"))
    if not isinstance(given, list):
        raise base.RowError("missing_field", "the row has no list 'evidence'")
    found = []
    for item in given:
        if not isinstance(item, Mapping):
            raise base.RowError("field_type", "a piece of evidence is no JSON object")
        surface = item.get("obj_surface")
        text = item.get("text")
        if text is None and isinstance(item.get("masked_sentence"), str):
            text = item["masked_sentence"].replace("[MASK]", str(surface))
        if not isinstance(text, str) or not isinstance(surface, str):
            raise base.RowError("field_type", "a piece of evidence lacks its text or surface")
        if not surface.strip():
            raise base.RowError("empty_answer", "a piece of evidence has a blank surface")
        start = item.get("start")
        if start is not None and type(start) is not int:
            raise base.RowError(
                "field_type", "a piece of evidence has a 'start' that is no integer"
            )
        if start is not None and text[start : start + len(surface)] != surface:
            raise base.RowError(
                "answer_not_in_context", f"{surface!r} does not stand at {start} in its sentence"
            )
        found.append((text, surface.strip()))
    return found


def _context(subject: str, label: str, sentences: list[tuple[str, str]]) -> str | None:
    # The subject only has to be recognised (Bastiaan "Bas" Heijne); the answer is to be found.
    both = [(text, surface) for text, surface in sentences if holds_alias(text, subject)]
    for text, _ in both:
        if find_spans(text, (label,)):
            return text
    for text, surface in both:
        if find_spans(text, (surface,)):
            return text
    return None


def _to_example(row: Mapping[str, Any]) -> QAExample:
    relation = base.text_field(row, "relation" if "relation" in row else "predicate_id")
    subject = base.text_field(row, "sub_label")
    label = base.text_field(row, "obj_label")
    assert relation is not None and subject is not None and label is not None
    question = question_for(relation, subject, base.text_field(row, "template", required=False))
    if question is None:
        raise base.RowError(
            "unknown_relation", f"no question for {relation} here, and the row has no template"
        )
    sentences = _sentences(row)
    answers = base.answers_field(
        [label, *(surface for _, surface in sentences)], is_impossible=False
    )
    example_id = base.text_field(row, "id" if "id" in row else "uuid", required=False)
    return QAExample(
        id=example_id or base.derived_id(SOURCE, relation, subject, label),
        source=SOURCE,
        question=question,
        context=_context(subject, label, sentences),
        answers=answers,
        relation=relation,
        answer_type=answer_type_for(relation),
        subject=subject,
    )


READER = base.Reader(
    name="trex",
    read=lambda path, rejects: base.read_rows(path, rejects, _to_example),
    matches_row=lambda row: (
        {"sub_label", "obj_label"} <= row.keys() and ("evidence" in row or "evidences" in row)
    ),
)
