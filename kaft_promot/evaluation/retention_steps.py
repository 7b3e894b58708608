"""Retention over training steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from kaft_promot.errors import UserError
from kaft_promot.evaluation.retention import arms_of, measure
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.statistics import Estimate

Curve = Mapping[int, Mapping[str, Estimate]]  # step -> figure -> estimate


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
