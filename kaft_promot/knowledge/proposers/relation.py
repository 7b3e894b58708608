"""`relation`: another object of the same relation (T-REx: P19 gives another place of birth)."""

from __future__ import annotations

from kaft_promot.knowledge.corpus import CorpusIndex
from kaft_promot.knowledge.proposers.pool import Pool
from kaft_promot.knowledge.records import QAExample


def pool(example: QAExample, index: CorpusIndex) -> Pool | None:
    """The objects of the example's relation; None if it has no relation."""
    if example.relation is None:
        return None
    return Pool(example.relation, index.by_relation.get(example.relation, ()))
