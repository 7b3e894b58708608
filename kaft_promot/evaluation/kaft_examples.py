"""KAFT records as evaluation examples: what the grounding suite asks and what its rows keep."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kaft_promot.evaluation.grounding import score_row
from kaft_promot.evaluation.suites import EvalExample, EvalTask
from kaft_promot.knowledge.records import KaftRecord, read_records
from kaft_promot.knowledge.targets import format_input, split_source


def load(data: str | os.PathLike[str] | Iterable[KaftRecord]) -> list[KaftRecord]:
    """Records, or the path of a records file, as a list of records.

    Raises:
      UserError: the file cannot be read or a line of it is no sound record.
    """
    return list(read_records(str(data)) if isinstance(data, (str, os.PathLike)) else data)


def task_of_kind(context_kind: str) -> EvalTask:
    """The evaluation task of all records of one context kind; it takes records."""

    def examples(records: Iterable[KaftRecord]) -> Iterator[EvalExample]:
        return (example_of(record) for record in records if record.context_kind == context_kind)

    return EvalTask(name=f"kaft_{context_kind}", examples=examples, read=read, score=score_row)


def example_of(record: KaftRecord) -> EvalExample:
    """One record as an example; its fields are what `grounding.score_row` and the report read."""
    contextual = record.context_kind in ("relevant", "counterfactual")
    answers = dict.fromkeys((record.answer, *record.answer_aliases)) if contextual else ()
    return EvalExample(
        example_id=record.id,
        question_id=f"{record.source}:{record.source_id}",
        prompt=format_input(record.question, record.context),
        fields={
            "context_kind": record.context_kind,
            "question": record.question,
            "context": record.context,
            "target": record.target,
            "contextual_answers": list(answers),
            "gold_answers": list(record.gold_answers),
            "parametric_answer": record.parametric_answer,
            "irrelevant_kind": record.irrelevant_kind,
            "base_checkpoint": record.base_checkpoint,
        },
    )


def read(output: str) -> Mapping[str, Any]:
    """Raw output -> its answer and the source that it announces (None if it announces none)."""
    answer, source = split_source(output)
    return {"answer": answer, "source": source}
