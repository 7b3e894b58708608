"""Proposers choose the answer that a counterfactual context will give.

To add one: write a file here with a function from (example, index) to a `Pool`, and name it in
`PROPOSERS`. Drawing and refusing happen here, once, for all of them.

A candidate is refused (METHODS section 1) if one of its aliases equals, holds or is held in an
alias of the gold or of the parametric answer, after normalisation and token-wise; if it already
stands in the context; and, as this project decides, if the corpus holds it as another right
answer to the same question, or if no way to write it fits the place (see `framing`). The aliases
are those of the whole corpus, so "USA" is never proposed for "United States". At most `MAX_DRAWS`
candidates are looked at: a type with one member gives "no proposal", never a loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from kaft_promot.errors import UserError
from kaft_promot.knowledge.corpus import CorpusIndex, Entity
from kaft_promot.knowledge.framing import fitting
from kaft_promot.knowledge.proposers import by_type, relation
from kaft_promot.knowledge.proposers.pool import Pool
from kaft_promot.knowledge.randomness import KeyedDraws
from kaft_promot.knowledge.records import QAExample
from kaft_promot.knowledge.spans import first_held
from kaft_promot.knowledge.text import normal_passage

PROPOSERS: dict[str, Callable[[QAExample, CorpusIndex], Pool | None]] = {
    "relation": relation.pool,
    "type": by_type.pool,
}

MAX_DRAWS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Proposal:
    """A counterfactual answer.

    Attributes:
      proposer: the name of the proposer that chose it.
      type: what it shares with the old one.
      entity: the answer with all its aliases.
      surface: the alias that takes the old one's place.
    """

    proposer: str
    type: str
    entity: Entity
    surface: str


def parse_proposers(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names of proposers, from a list or a text with commas; they are tried in order.

    Raises:
      UserError: a name is unknown, or there is none.
    """
    parts = names.split(",") if isinstance(names, str) else names
    chosen = tuple(part.strip() for part in parts if part.strip())
    unknown = [name for name in chosen if name not in PROPOSERS]
    if unknown or not chosen:
        raise UserError(
            f"unknown proposer {', '.join(unknown) or '(none)'}; choose from {', '.join(PROPOSERS)}"
        )
    return chosen


def propose(
    example: QAExample,
    index: CorpusIndex,
    *,
    proposers: Sequence[str],
    parametric_answer: str | None,
    seed: int,
    framed: bool = False,
) -> Proposal | str:
    """Chooses a counterfactual answer.

    Args:
      example: an answerable example with a context.
      index: of the whole corpus.
      proposers: names from `PROPOSERS`, tried in order.
      parametric_answer: the base model's own answer, if known.
      seed: of the run; the choice depends on (seed, example id) only.
      framed: whether the mentions to be replaced begin with a preposition.

    Returns:
      The proposal, or a sentence that says why there is none.
    """
    assert example.context is not None
    parametric = () if parametric_answer is None else (parametric_answer,)
    taken = index.same_things((*example.answers, *parametric))
    taken += index.other_right_answers(example)
    all_taken = _joined(taken)
    passage = normal_passage(example.context)
    why = []
    for name in proposers:
        pool = PROPOSERS[name](example, index)
        if pool is None:
            why.append(f"{name}: the example has none")
            continue
        draws = KeyedDraws(seed, example.id, f"propose/{name}")
        for i in draws.distinct_below(len(pool.candidates), MAX_DRAWS):
            candidate = pool.candidates[i]
            surface = fitting(candidate, framed)
            if surface is None or _refused(candidate, taken, all_taken, passage):
                continue
            # The normalised passage hides what a slash or a script without spaces joins.
            if first_held(example.context, candidate.aliases) is None:
                return Proposal(name, pool.type, candidate, surface)
        looked_at = min(len(pool.candidates), MAX_DRAWS)
        why.append(f"{name}: all {looked_at} candidates of {pool.type!r} were refused")
    return "; ".join(why)


def _refused(candidate: Entity, taken: Sequence[str], all_taken: str, passage: str) -> bool:
    """Whether an alias of the candidate stands in the context or in one that is taken, or holds it.

    All comparisons are of whole words in normalised texts (see `_joined`): their number is the
    sum of both numbers of aliases, not the product.
    """
    if any(f" {form} " in passage or f" {form} " in all_taken for form in candidate.forms):
        return True
    own = _joined(candidate.forms)
    return any(f" {other} " in own for other in taken)


def _joined(forms: Sequence[str]) -> str:
    """Normal forms in one text, apart by a sign that no normal form holds."""
    return f" {' | '.join(forms)} "
