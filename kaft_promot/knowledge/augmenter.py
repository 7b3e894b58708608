"""The records of one example: each context kind with its context, its answer and its reasons.

Holds no state between examples, so examples may come in any order and in any process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kaft_promot.errors import UserError
from kaft_promot.knowledge import irrelevant
from kaft_promot.knowledge.answer_types import of_a_name
from kaft_promot.knowledge.corpus import CorpusIndex, answer_type
from kaft_promot.knowledge.framing import in_place, is_framed
from kaft_promot.knowledge.proposers import propose
from kaft_promot.knowledge.records import KaftRecord, QAExample, Substitution
from kaft_promot.knowledge.spans import (
    core_aliases,
    doubtful_spans,
    find_spans,
    first_held,
    first_mentioned,
    substitute,
)
from kaft_promot.knowledge.targets import (
    COUNTERFACTUAL,
    EMPTY,
    IRRELEVANT,
    KINDS,
    RELEVANT,
    format_target,
)
from kaft_promot.knowledge.text import normalize_answer

DEFAULT_PROPOSERS = ("relation", "type")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What kind of records to make.

    Attributes:
      kinds: the wanted context kinds.
      proposers: names of proposers, tried in order.
      irrelevant: which irrelevant contexts may be used; an unanswerable example takes
        `annotated` if it is here, every other example takes `random` if it is here.
      seed: of all draws.
      suffixes: whether targets announce their source, e.g. " (from context)".
      base_checkpoint: the checkpoint that gave the parametric answers.
    """

    kinds: tuple[str, ...] = KINDS
    proposers: tuple[str, ...] = DEFAULT_PROPOSERS
    irrelevant: tuple[str, ...] = irrelevant.IRRELEVANT_CHOICES
    seed: int = 0
    suffixes: bool = True
    base_checkpoint: str | None = None


def parse_choices(given: str | Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    """Names from a list or a text with commas, in the order of `known`.

    Raises:
      UserError: a name is unknown, or there is none.
    """
    names = [name.strip() for name in (given.split(",") if isinstance(given, str) else given)]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(f"unknown {what} {', '.join(unknown)!r}; choose from {', '.join(known)}")
    return tuple(name for name in known if name in names)


def check_answers(settings: Settings, parametric_answers: Mapping[str, str] | None) -> None:
    """Raises UserError if a wanted kind needs parametric answers and there are none."""
    needing = [kind for kind in settings.kinds if kind in (IRRELEVANT, EMPTY)]
    if parametric_answers is None and needing:
        raise UserError(
            f"the kinds {', '.join(needing)} need the base model's closed-book answers; run "
            "`kaft-promot probe` and give its file with --parametric, or leave "
            f"these kinds out (--kinds={RELEVANT},{COUNTERFACTUAL})"
        )


class Rejected(NamedTuple):
    """Why an example gives no record of a kind that it should give."""

    reason: str
    detail: str


class NotApplicable(NamedTuple):
    """Why an example cannot have a record of a kind."""

    reason: str


Outcome = KaftRecord | Rejected | NotApplicable


class Augmenter:
    """Makes the records of one example after another; holds no state between examples.

    Args:
      index: of the whole corpus.
      settings: see `Settings`.
      parametric_answers: example id -> the base model's closed-book answer, or None if it was
        not probed (then only `relevant` and `counterfactual` can be made).

    Raises:
      UserError: a wanted kind needs parametric answers and there are none.
    """

    def __init__(
        self,
        index: CorpusIndex,
        settings: Settings,
        parametric_answers: Mapping[str, str] | None,
    ) -> None:
        check_answers(settings, parametric_answers)
        self._index = index
        self._settings = settings
        self._parametric = parametric_answers
        self._makers = {
            RELEVANT: self._relevant,
            COUNTERFACTUAL: self._counterfactual,
            IRRELEVANT: self._irrelevant,
            EMPTY: self._empty,
        }

    def outcomes(self, example: QAExample) -> Iterator[tuple[str, Outcome]]:
        """One (context kind, outcome) for every wanted kind."""
        for kind in self._settings.kinds:
            outcome = self._missing_answer(example, kind) or self._makers[kind](example)
            if isinstance(outcome, KaftRecord):
                broken = outcome.violations()
                if broken:
                    outcome = Rejected(broken[0].split(":")[0], "; ".join(broken))
            yield kind, outcome

    def _missing_answer(self, example: QAExample, kind: str) -> Rejected | None:
        if self._parametric is None or kind == RELEVANT:
            return None
        answer = self._parametric.get(example.id)
        if answer is None:
            return Rejected("no_parametric_answer", "the base model was not asked this question")
        if not normalize_answer(answer) and kind != COUNTERFACTUAL:
            return Rejected("empty_parametric_answer", f"the base model answered {answer!r}")
        return None

    def _record(
        self,
        example: QAExample,
        kind: str,
        *,
        context: str,
        answer: str,
        aliases: tuple[str, ...],
        substitution: Substitution | None = None,
        irrelevant_kind: str | None = None,
    ) -> KaftRecord:
        return KaftRecord(
            id=f"{example.id}/{kind}",
            source=example.source,
            source_id=example.id,
            question=example.question,
            context=context,
            context_kind=kind,
            target=format_target(answer, kind, self._settings.suffixes),
            answer=answer,
            answer_aliases=aliases,
            parametric_answer=self._parametric_answer(example),
            gold_answers=example.answers,
            substitution=substitution,
            irrelevant_kind=irrelevant_kind,
            base_checkpoint=self._settings.base_checkpoint,
            seed=self._settings.seed,
        )

    def _parametric_answer(self, example: QAExample) -> str | None:
        return None if self._parametric is None else self._parametric.get(example.id)

    def _relevant(self, example: QAExample) -> Outcome:
        if example.is_impossible or not example.context:
            return _no_own_context(example)
        answer = first_mentioned(example.context, example.answers)
        if answer is None:
            return _answer_not_in_context(example)
        return self._record(
            example, RELEVANT, context=example.context, answer=answer, aliases=example.answers
        )

    def _counterfactual(self, example: QAExample) -> Outcome:
        if example.is_impossible or not example.context:
            return _no_own_context(example)
        asked = first_held(example.question, example.answers)
        if asked is not None:
            return Rejected(
                "answer_in_question",
                f"{asked!r} stands in the question, which the substitution would contradict",
            )
        aliases = core_aliases(example.answers)
        spans = find_spans(example.context, aliases)
        if not spans:
            return _answer_not_in_context(example)
        doubtful = doubtful_spans(example.context, aliases)
        if doubtful and of_a_name(answer_type(example)):
            start, end = doubtful[0]
            return Rejected(
                "ambiguous_mention",
                f"{example.context[start:end]!r} at {start} may be the answer or another word: it "
                "has a capital only where a sentence begins",
            )
        framed = {is_framed(example.context, span) for span in spans}
        if len(framed) > 1:
            return Rejected(
                "no_proposal",
                "no proposal fits all mentions: some begin with a preposition and some do not",
            )
        proposal = propose(
            example,
            self._index,
            proposers=self._settings.proposers,
            parametric_answer=self._parametric_answer(example),
            seed=self._settings.seed,
            framed=framed.pop(),
        )
        if isinstance(proposal, str):
            return Rejected("no_proposal", proposal)
        new = proposal.surface
        context, new_spans = substitute(
            example.context, spans, in_place(example.context, spans, new)
        )
        left = self._index.held_alias(context, example.answers)
        if left is not None:
            return Rejected("old_answer_in_context", f"{left!r} still stands in the context")
        change = Substitution(
            proposer=proposal.proposer,
            old=first_mentioned(example.context, example.answers) or example.answers[0],
            new=new,
            type=proposal.type,
            spans=tuple(new_spans),
        )
        return self._record(
            example,
            COUNTERFACTUAL,
            context=context,
            answer=new,
            aliases=proposal.entity.aliases,
            substitution=change,
        )

    def _irrelevant(self, example: QAExample) -> Outcome:
        choices = self._settings.irrelevant
        found = irrelevant.annotated(example) if irrelevant.ANNOTATED in choices else None
        if found is None and irrelevant.RANDOM in choices:
            found = irrelevant.random(example, self._index, seed=self._settings.seed)
            if found is None:
                return Rejected(
                    "no_irrelevant_context",
                    f"none of up to {irrelevant.MAX_DRAWS} contexts is of another article and "
                    "free of the answer",
                )
        if found is None:
            return NotApplicable("not_annotated")
        answer = self._parametric_answer(example)
        assert answer is not None
        return self._record(
            example,
            IRRELEVANT,
            context=found.text,
            answer=answer,
            aliases=(answer,),
            irrelevant_kind=found.kind,
        )

    def _empty(self, example: QAExample) -> Outcome:
        answer = self._parametric_answer(example)
        assert answer is not None
        return self._record(example, EMPTY, context="", answer=answer, aliases=(answer,))


def _no_own_context(example: QAExample) -> NotApplicable:
    return NotApplicable("unanswerable" if example.is_impossible else "no_context")


def _answer_not_in_context(example: QAExample) -> Rejected:
    return Rejected(
        "answer_not_in_context", f"none of {list(example.answers)} stands there as a whole word"
    )
