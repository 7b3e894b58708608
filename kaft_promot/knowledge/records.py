"""The two things that travel through this room: `QAExample` comes in, `KaftRecord` goes out.

A `KaftRecord` is checked at the door: `violations()` names every rule of METHODS that a record
breaks, and neither `write_records` nor `read_records` lets such a record pass.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kaft_promot.knowledge import files
from kaft_promot.knowledge.spans import begins_with_preposition, find_spans, first_held
from kaft_promot.knowledge.targets import (
    COUNTERFACTUAL,
    EMPTY,
    IRRELEVANT,
    KINDS,
    RELEVANT,
    SUFFIXES,
    split_source,
)
from kaft_promot.knowledge.text import (
    capitalised,
    equal_or_nested,
    normal_forms,
    normalize_answer,
)

GENERATOR_VERSION = "1"
IRRELEVANT_KINDS = ("annotated", "random", "hard")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QAExample:
    """One question with its own context, as a reader gives it.

    Attributes:
      id: unique among all inputs of a run.
      source: the name of the data set.
      question: the question's text.
      context: the data set's own context; None if it has none.
      answers: every way to write the answer; `answers[0]` is the canonical one. Empty if and
        only if `is_impossible`.
      is_impossible: the context was labelled by people as not answering the question.
      relation: a Wikidata property such as "P19", where the question was made from a triple.
      answer_type: what kind of thing the answer is, where the source says so.
      title: the article that the context is from.
      subject: the entity that the question asks about.
    """

    id: str
    source: str
    question: str
    context: str | None
    answers: tuple[str, ...]
    is_impossible: bool = False
    relation: str | None = None
    answer_type: str | None = None
    title: str | None = None
    subject: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Substitution:
    """How a counterfactual context was made.

    Attributes:
      proposer: the name of the proposer that chose `new`.
      old: the answer that was replaced (with all its aliases).
      new: what stands in its place.
      type: the relation or the answer type that both share.
      spans: (start, end) offsets in the record's context; each slices to `new`, which takes a
        capital where it begins with a preposition and took the place of one with a capital.
    """

    proposer: str
    old: str
    new: str
    type: str
    spans: tuple[tuple[int, int], ...]


class RecordError(ValueError):
    """A record breaks its rules; `violations` names each of them."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__("; ".join(violations))
        self.violations = violations


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KaftRecord:
    """One training or evaluation example of KAFT; METHODS section 1 fixes the fields.

    Attributes:
      id: `{source_id}/{context_kind}`, unique in a file.
      source: the name of the data set.
      source_id: the `QAExample`'s id; records of one question share it.
      question: the question's text.
      context: the context's text; "" for the kind `empty`.
      context_kind: `relevant`, `counterfactual`, `irrelevant` or `empty`.
      target: the answer, with its source suffix unless suffixes are off.
      answer: the right answer here: gold, counterfactual or parametric, by the context kind.
      answer_aliases: every way to write `answer`; holds `answer`.
      parametric_answer: the base model's closed-book answer; None if it was not probed (then
        only `relevant` and `counterfactual` records exist).
      gold_answers: the data set's answers; empty for questions labelled unanswerable.
      substitution: set for `counterfactual` only.
      irrelevant_kind: `annotated`, `random` or `hard`; set for `irrelevant` only.
      base_checkpoint: the checkpoint that was probed for the parametric answer.
      seed: the seed of the run that made the record.
      generator_version: of this package's generator.
    """

    id: str
    source: str
    source_id: str
    question: str
    context: str
    context_kind: str
    target: str
    answer: str
    answer_aliases: tuple[str, ...]
    parametric_answer: str | None
    gold_answers: tuple[str, ...]
    substitution: Substitution | None
    irrelevant_kind: str | None
    base_checkpoint: str | None
    seed: int
    generator_version: str = GENERATOR_VERSION

    def violations(self) -> list[str]:
        """Every rule that this record breaks, as `rule: what is wrong`; empty if it is sound."""
        broken: list[str] = []
        for name in ("id", "source", "source_id", "question", "answer", "target"):
            if not getattr(self, name).strip():
                broken.append(f"empty_field: {name} is empty")
        if self.context_kind not in KINDS:
            return [*broken, f"context_kind: {self.context_kind!r} is none of {', '.join(KINDS)}"]
        broken += self._target_violations()
        broken += _KIND_RULES[self.context_kind](self)
        if (self.substitution is not None) != (self.context_kind == COUNTERFACTUAL):
            broken.append("substitution: belongs to counterfactual records and to no other")
        if (self.irrelevant_kind is not None) != (self.context_kind == IRRELEVANT):
            broken.append("irrelevant_kind: belongs to irrelevant records and to no other")
        return broken

    def _target_violations(self) -> list[str]:
        broken = []
        if self.target not in (self.answer, self.answer + SUFFIXES[self.context_kind]):
            broken.append(f"target: {self.target!r} is not the answer of this context kind")
        if split_source(self.answer)[1] is not None:
            broken.append(f"answer_suffix: the answer {self.answer!r} itself announces a source")
        if self.answer not in self.answer_aliases:
            broken.append("answer_aliases: do not hold the answer")
        if not normalize_answer(self.answer):
            broken.append(f"empty_answer: nothing is left of {self.answer!r} once normalised")
        return broken

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object, fields in METHODS's order."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        if self.substitution is not None:
            fields["substitution"] = {n: getattr(self.substitution, n) for n in _SUBSTITUTION}
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> KaftRecord:
        """Reads a JSON object.

        Raises:
          RecordError: fields are missing, unknown or of a wrong type, or rules are broken.
        """
        broken = _type_violations(fields, _FIELDS)
        inner = fields.get("substitution")
        if inner is not None and isinstance(inner, Mapping):
            broken += _type_violations(inner, _SUBSTITUTION)
        if broken:
            raise RecordError(broken)
        values = dict(fields)
        for name in ("answer_aliases", "gold_answers"):
            values[name] = tuple(values[name])
        if inner is not None:
            spans = tuple((int(start), int(end)) for start, end in inner["spans"])
            values["substitution"] = Substitution(**{**inner, "spans": spans})
        record = cls(**values)
        broken = record.violations()
        if broken:
            raise RecordError(broken)
        return record


def _relevant_rules(record: KaftRecord) -> list[str]:
    broken = []
    if record.answer not in record.gold_answers:
        broken.append("relevant_answer: is not one of the gold answers")
    if not find_spans(record.context, (record.answer,)):
        broken.append("answer_not_in_context: the answer does not stand in the context")
    return broken


def _counterfactual_rules(record: KaftRecord) -> list[str]:
    change = record.substitution
    if change is None:
        return []
    broken = []
    if record.answer != change.new:
        broken.append("counterfactual_answer: is not the substituted answer")
    if not record.gold_answers:
        broken.append("gold_answers: a counterfactual record needs them")
    old = first_held(record.context, record.gold_answers)
    if old is not None:
        broken.append(f"old_answer_in_context: {old!r} still stands in the context")
    end = 0
    written = {change.new}
    if begins_with_preposition(change.new):
        written.add(capitalised(change.new))
    for start, stop in change.spans:
        if start < end or record.context[start:stop] not in written:
            broken.append(f"spans: [{start}, {stop}] is not a mention of {change.new!r}")
        end = stop
    if not change.spans:
        broken.append("spans: no mention was replaced")
    new = normalize_answer(change.new)
    parametric = () if record.parametric_answer is None else (record.parametric_answer,)
    for other in normal_forms((*record.gold_answers, *parametric)):
        if equal_or_nested(new, other):
            broken.append(f"proposal: {change.new!r} is, holds or is held in {other!r}")
    return broken


def _parametric_rules(record: KaftRecord) -> list[str]:
    if record.parametric_answer is None:
        return ["no_parametric_answer: this context kind needs the base model's answer"]
    if record.answer != record.parametric_answer:
        return ["parametric_answer: the answer of this context kind is the base model's own"]
    return []


def _irrelevant_rules(record: KaftRecord) -> list[str]:
    broken = _parametric_rules(record)
    if record.irrelevant_kind is not None and record.irrelevant_kind not in IRRELEVANT_KINDS:
        broken.append(f"irrelevant_kind: {record.irrelevant_kind!r} is unknown")
    if not record.context.strip():
        broken.append("empty_field: context is empty")
    gold = first_held(record.context, record.gold_answers)
    if gold is not None:
        broken.append(f"gold_in_irrelevant: {gold!r} stands in the irrelevant context")
    return broken


def _empty_rules(record: KaftRecord) -> list[str]:
    broken = _parametric_rules(record)
    if record.context:
        broken.append("empty_context: the context of this kind is empty")
    return broken


_KIND_RULES = {
    RELEVANT: _relevant_rules,
    COUNTERFACTUAL: _counterfactual_rules,
    IRRELEVANT: _irrelevant_rules,
    EMPTY: _empty_rules,
}
_FIELDS = tuple(field.name for field in dataclasses.fields(KaftRecord))
_SUBSTITUTION = tuple(field.name for field in dataclasses.fields(Substitution))
_OPTIONAL = {"parametric_answer", "substitution", "irrelevant_kind", "base_checkpoint"}


def _is_strings(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


def _is_spans(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(v, (list, tuple)) and len(v) == 2 and all(type(x) is int for x in v)
        for v in value
    )


_TYPES = {
    "answer_aliases": (_is_strings, "a list of texts"),
    "gold_answers": (_is_strings, "a list of texts"),
    "spans": (_is_spans, "a list of [start, end]"),
    "seed": (lambda value: type(value) is int, "an integer"),
    "substitution": (lambda value: isinstance(value, Mapping), "an object"),
}


def _type_violations(fields: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    broken = [f"missing_field: {name}" for name in names if name not in fields]
    broken += [f"unknown_field: {name}" for name in fields if name not in names]
    for name in names:
        if name not in fields or (fields[name] is None and name in _OPTIONAL):
            continue
        check, wanted = _TYPES.get(name, (lambda value: isinstance(value, str), "a text"))
        if not check(fields[name]):
            broken.append(f"field_type: {name} is not {wanted}")
    return broken


def write_records(path: str | pathlib.Path, records: Iterable[KaftRecord]) -> int:
    """Writes sound records as JSON lines, all or nothing; returns their number.

    Raises:
      RecordError: a record breaks a rule (the file at `path` stays as it was).
    """
    count = 0
    with files.AtomicFolder(pathlib.Path(path).parent) as folder:
        out = folder.open(pathlib.Path(path).name)
        for record in records:
            broken = record.violations()
            if broken:
                raise RecordError([f"record {record.id}", *broken])
            out.write(json.dumps(record.to_json(), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_records(
    path: str | pathlib.Path, rejects: files.Rejects | None = None
) -> Iterator[KaftRecord]:
    """The sound records of a JSONL file (gzip or plain), in order.

    Args:
      path: the file.
      rejects: takes every row that is not a sound record, with its line and the rules it breaks,
        and every row whose id came before. Without it such a row raises UserError.

    Raises:
      UserError: the file cannot be read, or a row is bad and `rejects` is None.
    """
    rejects = files.Rejects(strict=True) if rejects is None else rejects
    seen: dict[str, int | None] = {}
    for place, fields in files.read_jsonl(path, rejects):
        try:
            record = KaftRecord.from_json(fields)
        except RecordError as error:
            rejects.add(place, error.violations[0].split(":")[0], str(error))
            continue
        if record.id in seen:
            found = f"{record.id!r} was seen in line {seen[record.id]}"
            rejects.add(place, "duplicate_id", found)
            continue
        seen[record.id] = place.line
        yield record
