"""What a proposer hands over: candidates that share something with the gold answer."""

from __future__ import annotations

import dataclasses

from kaft_promot.knowledge.corpus import Entity


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """Candidate answers and the name of what they share with the gold answer."""

    type: str
    candidates: tuple[Entity, ...]
