"""`type`: another answer of the same answer type, from anywhere in the corpus."""

from __future__ import annotations

from kaft_promot.knowledge.corpus import CorpusIndex, answer_type
from kaft_promot.knowledge.proposers.pool import Pool
from kaft_promot.knowledge.records import QAExample


def pool(example: QAExample, index: CorpusIndex) -> Pool | None:
    """The answers of the example's answer type; None if the example has no answer."""
    if not example.answers:
        return None
    kind = answer_type(example)
    return Pool(kind, index.by_type.get(kind, ()))
