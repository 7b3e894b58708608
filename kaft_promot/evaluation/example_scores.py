"""A SeqIO task's own metric functions on single examples, for means over examples.

Comparisons of arms (`retention`) are paired example by example, so they need a score of each. For
accuracy or exact match the mean of these is the task's figure. For a metric that is none over
examples it is another figure than the task's own: with BLEU the mean of the sentences' scores, not
that of the corpus. `kaft-promot eval` gives the task's own (`own_metrics`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.evaluation.own_metrics import (
    PROBED,
    MetricFn,
    TaskMetrics,
    numbers,
    perfect_outputs,
    said,
)

_TOPS = (1.0, 100.0)  # what a perfect output gets: metrics are fractions or percent


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleScores:
    """Scores of single examples by those of a task's metrics whose scale is known.

    Attributes:
      task: its name.
      tops: figure -> what a perfect output gets, 1 or 100, in the order of the metric functions.
      functions: (targets, predictions) -> figures; those that give one of `tops`.
    """

    task: str
    tops: Mapping[str, float]
    functions: Sequence[MetricFn]

    @classmethod
    def of(cls, metrics: TaskMetrics, targets: Sequence[Any]) -> ExampleScores:
        """Those of a task's metrics by which the targets themselves get 1 or 100.

        Args:
          metrics: the task's.
          targets: as its postprocess_fn reads them; the first few are looked at.
        """
        tops: dict[str, float] = {}
        functions = []
        for function in metrics.predict:
            found: dict[str, float] = {}
            for target in targets[:PROBED]:
                for output in perfect_outputs(target):
                    for name, value in _quietly(function, target, output).items():
                        found[name] = max(value, found.get(name, value))
            known = {
                name: top
                for name, value in found.items()
                for top in _TOPS
                if math.isclose(value, top, rel_tol=1e-6) and name not in tops
            }
            if known:
                functions.append(function)
                tops |= known
        return cls(task=metrics.task, tops=tops, functions=tuple(functions))

    @property
    def main(self) -> str | None:
        """The first of them, by which a task is compared; None if there is none."""
        return next(iter(self.tops), None)

    def __call__(self, target: Any, prediction: Any) -> dict[str, float]:
        """Figure -> score of one example, from 0 to 1.

        Raises:
          UserError: a metric function fails, or leaves its scale.
        """
        scores: dict[str, float] = {}
        for function in self.functions:
            try:
                found = numbers(function([target], [prediction]))
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"task {self.task!r}: a metric fails on the output {str(prediction)[:60]!r}: "
                    + said(error)
                ) from error
            for name in self.tops:
                if name in found and name not in scores:
                    scores[name] = found[name] / self.tops[name]
        for name in self.tops:
            if not 0.0 <= scores.get(name, -1.0) <= 1.0 + 1e-6:
                raise UserError(
                    f"task {self.task!r}: its metric gives {name} = {scores.get(name)} for the "
                    f"output {str(prediction)[:60]!r}, where 0 to {self.tops[name]:g} was expected"
                )
        return {name: min(scores[name], 1.0) for name in self.tops}


def _quietly(function: MetricFn, target: Any, output: Any) -> dict[str, float]:
    try:
        return numbers(function([target], [output]))
    except Exception:  # a label where a list is expected, or the other way round
        return {}
