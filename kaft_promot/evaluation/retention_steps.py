"""Retention over training steps, and arms read where they are equally good at the target task.

Arms that learn the target at unlike speeds forget at unlike speeds: at the same step, the slower
one may look better only because it has learned less. So every comparison is read twice, at matched
steps and at matched target score.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaft_promot.errors import UserError
from kaft_promot.evaluation.retention import TARGET, arms_of, measure
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.statistics import Estimate

# Arms that others are read at the target score of.
REFERENCES = ("finetune", "promot")

Curve = Mapping[int, Mapping[str, Estimate]]  # step -> figure -> estimate


@dataclass(frozen=True)
class Matched:
    """An arm at the first measured step at which its target score reaches the reference's last.

    Attributes:
      step: that step.
      figures: the four retention figures there.
    """

    step: int
    figures: Mapping[str, Estimate]


def curves(
    rows: Sequence[Row], target: str, seed: int = 0
) -> dict[str, dict[int, dict[str, Estimate]]]:
    """The four retention figures of every arm at every measured step.

    Args:
      rows: sample rows of one seed with an integer `step`.
      target, seed: as for `retention.measure`, which also says what is raised.

    Returns:
      arm -> step, ascending -> name -> estimate.

    Raises:
      UserError: a row has no step.
    """
    by_step: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if not isinstance(row.get("step"), int):
            raise UserError(
                f"arm {row.get('arm')!r}, example {row.get('example_id')!r}: a row of the curves "
                "needs an integer step; evaluate that arm's checkpoints again"
            )
        by_step[row["step"]].append(row)
    found: dict[str, dict[int, dict[str, Estimate]]] = {arm: {} for arm in arms_of(rows)}
    for step in sorted(by_step):
        for arm, of_arm in measure(by_step[step], target, seed).items():
            found[arm][step] = of_arm
    return {arm: of_arm for arm, of_arm in found.items() if of_arm}


def matched(found: Mapping[str, Curve], reference: str) -> dict[str, Matched | None]:
    """Every other arm where it is as good at the target task as `reference` is at its end.

    Args:
      found: from `curves`.
      reference: an arm with a curve.

    Returns:
      arm -> the first measured step at which the arm's target score is at least the reference's at
      its last step (both as measured, with their noise), and its figures there; None where it never
      is. Empty where the reference was not measured on the target. `base` is not trained and left
      out.
    """
    if reference not in found:
        return {}
    goal = found[reference][max(found[reference])][TARGET].value
    if goal is None:
        return {}
    arms = (arm for arm in found if arm not in (reference, "base"))
    return {arm: _first(found[arm], goal) for arm in arms}


def _first(curve: Curve, goal: float) -> Matched | None:
    for step in sorted(curve):
        value = curve[step][TARGET].value
        if value is not None and value >= goal - 1e-12:
            return Matched(step, curve[step])
    return None
