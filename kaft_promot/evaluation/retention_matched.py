"""Arms read where they are equally good at the target task.

Arms that learn the target at unlike speeds forget at unlike speeds: at the same step the slower one
may look better only because it has learned less. So every arm is compared with plain fine-tuning a
second time, at matched target score (METHODS.md section 2): whichever of the two scores more is
taken back to the measured step at which it scored most nearly what the other does.

That step is chosen on the target's validation examples, where the two may still differ if few steps
were measured; an arm is matched where that difference is not measurable. What is compared are test
examples, where the scores may differ again: by how much is told beside the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kaft_promot.evaluation.retention import TARGET, TARGET_SUITE, Scores, main_score
from kaft_promot.evaluation.retention_seeds import claims_json, claims_of_seeds, over_seeds
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.seeds import OverSeeds
from kaft_promot.evaluation.statistics import Difference

REFERENCE = "finetune"  # the arm that others are paired with

TargetScores = Mapping[str, Mapping[int, float]]  # arm -> step -> mean score on validation


@dataclass(frozen=True)
class Pair:
    """Where an arm and the reference are equally good at the target task, as nearly as measured.

    Attributes:
      arm: the arm's name; the other one is `REFERENCE`.
      steps: the step of each of the two. One of them is the step that is reported of it.
      scores: the target score of each on validation, there.
    """

    arm: str
    steps: Mapping[str, int]
    scores: Mapping[str, float]


def target_scores(curve_rows: Iterable[Row]) -> dict[str, dict[int, float]]:
    """Arm -> step, ascending -> mean target score.

    Args:
      curve_rows: sample rows of one seed with an integer `step`; those of other suites than the
        target are left out.
    """
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in curve_rows:
        if row["suite"] == TARGET_SUITE:
            values[row["arm"]][row["step"]].append(main_score(row))
    return {
        arm: {step: sum(of_arm[step]) / len(of_arm[step]) for step in sorted(of_arm)}
        for arm, of_arm in values.items()
    }


def pairs(scores: TargetScores, reported: Mapping[str, int]) -> dict[str, Pair]:
    """Every trained arm beside the reference.

    Args:
      scores: from `target_scores`.
      reported: arm -> the step that its figures are of. No arm is taken past it.

    Returns:
      arm -> pair; of several steps that are equally near the last. Empty without the reference.

    >>> scores = {"finetune": {10: 0.5, 20: 0.7}, "promot": {10: 0.72, 20: 0.9}}
    >>> pairs(scores, {"finetune": 20, "promot": 20})["promot"].steps
    {'promot': 10, 'finetune': 20}
    """
    if REFERENCE not in scores:
        return {}

    def nearest(arm: str, goal: float) -> int:
        steps = [step for step in sorted(scores[arm]) if step <= reported[arm]]
        return min(steps, key=lambda step: (round(abs(scores[arm][step] - goal), 9), -step))

    goal = scores[REFERENCE][reported[REFERENCE]]
    found = {}
    for arm in scores:
        if arm in ("base", REFERENCE):
            continue
        own = scores[arm][reported[arm]]
        back = arm if own >= goal else REFERENCE
        steps = {name: reported[name] for name in (arm, REFERENCE)}
        steps[back] = nearest(back, min(own, goal))
        found[arm] = Pair(arm, steps, {name: scores[name][at] for name, at in steps.items()})
    return found


@dataclass(frozen=True)
class Matched:
    """An arm and the reference at matched target score, in every seed.

    Attributes:
      arm: the arm's name.
      pairs: seed -> the steps of the arm and of the reference.
      validation: seed -> the arm's target score minus the reference's on validation, there.
      tables: seed -> scores of the base and of the two at these steps, on test examples.
    """

    arm: str
    pairs: Mapping[int, Pair]
    validation: Mapping[int, Difference]
    tables: Mapping[int, Scores]

    @property
    def matched(self) -> list[int]:
        """The seeds in which the two do not measurably differ on validation."""
        return [
            seed
            for seed, change in self.validation.items()
            if change.value is not None and not change.measurable
        ]

    def over_seeds(self) -> OverSeeds:
        """Their figures and differences over seeds."""
        return over_seeds(self.tables)

    def claims(self) -> dict[str, tuple[int, int]]:
        """What ProMoT promises, as `retention_seeds.seeds_that_hold`, of the matched seeds."""
        return claims_of_seeds({seed: self.tables[seed] for seed in self.matched})

    def to_json(self) -> dict[str, Any]:
        """What results.json says.

        Returns:
          `{"steps": {SEED: {ARM: step}}, "validation": {SEED: {ARM: score}}, "matched": [SEED],
          "claims": {CLAIM: {"holds", "seeds"}}}` and what `OverSeeds.to_json` has, of all seeds.
        """
        return {
            "steps": {str(seed): dict(pair.steps) for seed, pair in self.pairs.items()},
            "validation": {str(seed): dict(pair.scores) for seed, pair in self.pairs.items()},
            "matched": self.matched,
            "claims": claims_json(self.claims()),
        } | self.over_seeds().to_json()


def matched(
    rows: Mapping[int, Iterable[Row]],
    curve_rows: Mapping[int, Iterable[Row]],
    found: Mapping[int, Mapping[str, Pair]],
    target: str,
) -> dict[str, Matched]:
    """Every arm that has a pair in every seed.

    Args:
      rows: seed -> sample rows of test examples, with an integer `step`; may hold other steps, too.
      curve_rows: seed -> those of validation examples.
      found: seed -> what `pairs` returns.
      target: name of the target task.

    Returns:
      arm -> it and the reference at matched target score.

    Raises:
      UserError: as for `retention.Scores`.
    """
    tested, validated = (
        {seed: list(of_seed) for seed, of_seed in given.items()} for given in (rows, curve_rows)
    )
    arms = [arm for arm in next(iter(found.values())) if all(arm in of for of in found.values())]
    return {
        arm: Matched(
            arm=arm,
            pairs={seed: of_seed[arm] for seed, of_seed in found.items()},
            validation={
                seed: _table(validated[seed], of_seed[arm], target).difference(
                    arm, REFERENCE, TARGET
                )
                for seed, of_seed in found.items()
            },
            tables={
                seed: _table(tested[seed], of_seed[arm], target) for seed, of_seed in found.items()
            },
        )
        for arm in arms
    }


def _table(rows: Iterable[Row], pair: Pair, target: str) -> Scores:
    """The scores of the base and of a pair at its steps."""
    return Scores(
        (row for row in rows if row["arm"] == "base" or row["step"] == pair.steps.get(row["arm"])),
        target,
    )
