"""Prepositions before answers: "in 1041" stands where "in 1900" does, "1041" where "1900" does.

One answer is written both ways, and a swap of one for the other doubles a preposition ("born in
in 1900") or loses one ("It fell 1041."). So a mention with a preposition, here called framed,
is replaced by a framed way to write the new answer, and any other mention by one without.
"""

from __future__ import annotations

from collections.abc import Sequence

from kaft_promot.knowledge.answer_types import is_clean
from kaft_promot.knowledge.corpus import Entity
from kaft_promot.knowledge.spans import Span, begins_sentence, begins_with_preposition
from kaft_promot.knowledge.text import capitalised


def is_framed(context: str, span: Span) -> bool:
    """Whether a mention begins with a preposition that belongs to its sentence.

    "in Bruges" does; the title in "He saw In Bruges" does not, as far as capitals tell.
    """
    start, end = span
    mention = context[start:end]
    if not begins_with_preposition(mention):
        return False
    return not _is_title(mention) or begins_sentence(context, start)


def fitting(entity: Entity, framed: bool) -> str | None:
    """The first clean way to write an entity that fits a framed mention, or an unframed one.

    Args:
      entity: what is to be written.
      framed: whether the mention that it replaces begins with a preposition.

    Returns:
      One of the entity's aliases, or None if none fits.
    """
    for alias in entity.aliases:
        fits = begins_with_preposition(alias) == framed and not (framed and _is_title(alias))
        if fits and is_clean(alias):
            return alias
    return None


def in_place(context: str, spans: Sequence[Span], new: str) -> list[str]:
    """`new` as it is to be written at each span: a preposition takes over a capital.

    "In 1900 it fell" becomes "In 1041 it fell", also where the new answer is written "in 1041".
    """
    if not begins_with_preposition(new):
        return [new] * len(spans)
    return [
        capitalised(new)
        if begins_with_preposition(context[start:end]) and context[start].isupper()
        else new
        for start, end in spans
    ]


def _is_title(text: str) -> bool:
    return text[:1].isupper() and text.split()[-1][:1].isupper()
