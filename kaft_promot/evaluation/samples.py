"""Which sample rows a report shows, and whether each is right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from kaft_promot.evaluation import metrics
from kaft_promot.evaluation.grounding import arms_of, knew, score_row
from kaft_promot.evaluation.rows import Row
from kaft_promot.knowledge.targets import KINDS

# What decides whether an output is shown as right.
_VERDICT = {
    "relevant": "reading_em",
    "counterfactual": "controllability_strict",
    "irrelevant": "robustness_agree",
    "empty": "retention_agree",
}


@dataclass(frozen=True)
class Sample:
    """One example with every arm's row: `rows` is arm -> row, `right` arm -> verdict."""

    kind: str
    rows: dict[str, Row]
    right: dict[str, bool]

    @property
    def row(self) -> Row:
        """Any of the rows: question, context and target are the same in all."""
        return next(iter(self.rows.values()))


def choose(rows: Sequence[Row], per_kind: int = 3) -> dict[str, list[Sample]]:
    """`per_kind` examples of each context kind, chosen without a look at any output.

    Examples are taken in the order of a hash of their question, so that the same questions come up
    under every kind; only examples that all arms have. Counterfactual ones are conflicts (the base
    knew the answer) as long as there are any.
    """
    arms = arms_of(row for row in rows if row.get("context_kind") in KINDS)
    by_example: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.get("context_kind") in KINDS:
            by_example.setdefault(row["example_id"], {})[row["arm"]] = row
    complete = [found for found in by_example.values() if len(found) == len(arms)]
    chosen: dict[str, list[Sample]] = {}
    for kind in KINDS:
        of_kind = [found for found in complete if found[arms[0]]["context_kind"] == kind]
        of_kind.sort(key=lambda found: _order(found[arms[0]]))
        chosen[kind] = [
            Sample(kind, {arm: found[arm] for arm in arms}, {a: right(found[a]) for a in arms})
            for found in of_kind[:per_kind]
        ]
    return {kind: samples for kind, samples in chosen.items() if samples}


def right(row: Row) -> bool:
    """Whether the row's output is what its context kind asks for."""
    score = score_row(row).get(_VERDICT[row["context_kind"]])
    if score is None:  # a counterfactual that is no conflict, or a question that was not probed
        score = metrics.exact_match(row["answer"], row["contextual_answers"])
    return bool(score)


def _order(row: Row) -> tuple[bool, bytes, str]:
    no_conflict = row["context_kind"] == "counterfactual" and not knew(row)
    digest = hashlib.sha256(row["question_id"].encode()).digest()
    return (no_conflict, digest, row["example_id"])
