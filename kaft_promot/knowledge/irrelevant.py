"""Contexts that do not answer the question.

`annotated`: the example's own context, labelled by people as not answering it (SQuAD 2.0's
unanswerable questions). `random`: another example's context, of another article and another
subject, that holds no alias of the gold answer and no other right answer that the corpus knows.
"""

from __future__ import annotations

import dataclasses

from kaft_promot.knowledge.corpus import CorpusIndex
from kaft_promot.knowledge.randomness import KeyedDraws
from kaft_promot.knowledge.records import QAExample
from kaft_promot.knowledge.spans import first_held
from kaft_promot.knowledge.text import normal_passage

ANNOTATED, RANDOM = IRRELEVANT_CHOICES = ("annotated", "random")
MAX_DRAWS = 64


@dataclasses.dataclass(frozen=True, slots=True)
class IrrelevantContext:
    """An irrelevant context and how it was found."""

    text: str
    kind: str


def annotated(example: QAExample) -> IrrelevantContext | None:
    """The example's own context if it is labelled unanswerable, else None."""
    if not example.is_impossible or not example.context:
        return None
    return IrrelevantContext(example.context, ANNOTATED)


def random(example: QAExample, index: CorpusIndex, *, seed: int) -> IrrelevantContext | None:
    """Another example's context without the answer; None if none of `MAX_DRAWS` will do.

    The choice depends on (seed, example id) and the corpus only.
    """
    pool = index.contexts
    forms = (*index.same_things(example.answers), *index.other_right_answers(example))
    text, title, subject = example.context, example.title, example.subject
    draws = KeyedDraws(seed, example.id, "irrelevant/random")
    for i in draws.distinct_below(len(pool), MAX_DRAWS):
        other = pool[i]
        if other.text == text or title in other.titles or subject in other.subjects:
            continue
        passage = normal_passage(other.text)
        if any(f" {form} " in passage for form in forms):
            continue
        if first_held(other.text, example.answers) is None:
            return IrrelevantContext(other.text, RANDOM)
    return None
