"""Figures of evaluation tasks one by one, from sample rows.

A SeqIO task is scored by its own metric functions, on their own scale (`own_metrics`). A task that
has none, and a task of a suite, is scored by the means of its rows' `scores`, as fractions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.evaluation import own_metrics
from kaft_promot.evaluation.formatting import NOTHING, interval, percent
from kaft_promot.evaluation.own_metrics import RESAMPLES, TaskMetrics
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.statistics import Estimate, Resampled, bootstrap

# Name of a SeqIO task, and the module that registers it (None: none was named) -> its metrics.
Lookup = Callable[[str, str | None], TaskMetrics]


@dataclasses.dataclass(frozen=True)
class TaskFigures:
    """What tasks score.

    Attributes:
      figures: arm -> task -> metric -> estimate; a `Resampled` one is of the task's own metric. A
        SeqIO task is called `{task}/{split}`, a suite's task as it is.
      missing: arm -> what could not be computed, a line each.
    """

    figures: dict[str, dict[str, dict[str, Estimate]]]
    missing: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """`{ARM: {TASK: {METRIC: {"value", "low", "high", "n"}}}}`; own ones have `resamples`."""
        return {
            arm: {
                task: {metric: estimate.to_json() for metric, estimate in of_task.items()}
                for task, of_task in of_arm.items()
            }
            for arm, of_arm in self.figures.items()
        }

    def table(self, arm: str, tasks: Sequence[str] = ()) -> str:
        """One arm's figures for people, one a line, and what is missing.

        Args:
          arm: which one's.
          tasks: these first, in this order.
        """
        place = {task: number for number, task in enumerate(tasks)}
        of_arm = self.figures[arm]
        ordered = sorted(of_arm, key=lambda task: place.get(task, len(place)))
        own, scores = [], []
        for task in ordered:
            for metric, figure in of_arm[task].items():
                start = f"{task:30} {metric:12}"
                if isinstance(figure, Resampled):
                    cell = _as_it_is(figure)
                    own.append(f"{start} {cell:>26} {figure.n:>7} {figure.resamples:>9}")
                else:
                    cell = f"{percent(figure.value)} {interval(figure)}"
                    scores.append(f"{start} {cell:>26} {figure.n:>7}")
        head = f"{'task':30} {'metric':12}"
        parts = []
        if own:
            title = f"{head} {'its value [95 % interval]':>26} {'n':>7} {'resamples':>9}"
            parts.append("\n".join([title, *own]))
        if scores:
            title = f"{head} {'percent [95 % interval]':>26} {'n':>7}"
            parts.append("\n".join([title, *scores]))
        parts += self.missing.get(arm, [])
        return "\n".join(parts)


def measure(
    rows: Iterable[Row], metrics_of: Lookup, seed: int = 0, resamples: int = RESAMPLES
) -> TaskFigures:
    """Figures of all rows but those of the grounding suite.

    Args:
      rows: sample rows.
      metrics_of: finds a SeqIO task's metrics; raises UserError for an unknown task.
      seed: of the intervals.
      resamples: see `own_metrics.figures`.

    Raises:
      UserError: a task's metric function fails.
    """
    by_task: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if "context_kind" not in row:
            name = f"{row['seqio_task']}/{row['split']}" if "seqio_task" in row else row["task"]
            by_task.setdefault((row["arm"], name), []).append(row)
    found = TaskFigures({}, {})
    for (arm, task), of_task in by_task.items():
        figures: Mapping[str, Estimate] = {}
        if "seqio_task" in of_task[0]:
            figures, missing = _own(of_task, metrics_of, seed, resamples)
            if missing:
                found.missing.setdefault(arm, []).extend(missing)
        found.figures.setdefault(arm, {})[task] = dict(figures) or _of_scores(of_task, seed)
    return found


def _own(
    rows: Sequence[Row], metrics_of: Lookup, seed: int, resamples: int
) -> tuple[Mapping[str, Estimate], list[str]]:
    task, module = rows[0]["seqio_task"], rows[0].get("seqio_module")
    try:
        metrics = metrics_of(task, module)
    except UserError as error:
        return {}, [f"the metrics of task {task!r} are not computed: {error}"]
    # In the task's order, which rows of a file are not in.
    ordered = sorted(rows, key=_number)
    return own_metrics.figures(metrics, ordered, seed, resamples)


def _number(row: Row) -> tuple[int, str]:
    """The example's, which its id ends in."""
    end = row["example_id"].rpartition(":")[2]
    return (int(end) if end.isdecimal() else 0, row["example_id"])


def _of_scores(rows: Sequence[Row], seed: int) -> dict[str, Estimate]:
    clusters = [row["question_id"] for row in rows]
    return {
        metric: bootstrap([row["scores"][metric] for row in rows], clusters, seed)
        for metric in rows[0]["scores"]
    }


def _as_it_is(figure: Estimate) -> str:
    """`23.41 [21.87, 24.95]`."""
    if figure.value is None:
        return NOTHING
    ends = (
        "" if figure.low is None else f" [{_number_text(figure.low)}, {_number_text(figure.high)}]"
    )
    return f"{_number_text(figure.value)}{ends}"


def _number_text(value: float | None) -> str:
    """
    >>> _number_text(23.4123), _number_text(0.00123), _number_text(3.2e13)
    ('23.41', '0.00123', '3.2e+13')
    """
    if value is None:
        return NOTHING
    return f"{value:.2f}" if value == 0 or 0.1 <= abs(value) < 1e6 else f"{value:.3g}"
