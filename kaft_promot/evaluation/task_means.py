"""Plain means over tasks, with intervals and paired tests.

A suite's score is the plain mean over its tasks of each task's mean over examples, so that a task
counts the same however many examples it has. Tasks are fixed, examples are a sample: the bootstrap
draws questions *within* the group of those that stand in the same tasks (a stratified bootstrap;
Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.2). No replicate then
lacks a task, tasks may differ in their number of examples, and differences between tasks do not
widen the interval. A question that is asked in several tasks (at several shot counts, say) is drawn
for all of them at once.

As in `statistics`, the interval is widened where the bootstrap is too narrow: to Wald's after
made-up observations are added to every task, in all as many as one mean gets there, shared out by
how much each task's number of examples adds to the variance. With one task all of this is
`statistics.bootstrap` and `statistics.paired_difference`.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from kaft_promot.evaluation import statistics
from kaft_promot.evaluation.statistics import REPLICATES, Difference, Estimate, Z

_KEPT = 2_000_000  # counts of one group's draws that are kept (8 MB); larger ones are made in parts
_kept_draws = functools.lru_cache(maxsize=32)(statistics.draws.__wrapped__)


def mean_of_tasks(
    values: Sequence[float] | np.ndarray,
    tasks: Sequence[Hashable],
    clusters: Sequence[Hashable],
    seed: int = 0,
    *,
    replicates: int = REPLICATES,
) -> Estimate:
    """Mean over tasks of the task's mean, with a 95 % interval (method: see the module).

    Args:
      values: [n] scores in [0, 1].
      tasks: [n] task of each row.
      clusters: [n] question of each row; one question may stand in several tasks.
      seed: of the resampling; the same seed gives the same interval.
      replicates: number of bootstrap samples.

    Returns:
      The estimate, its n the rows of all tasks; value None where n is 0.

    >>> mean_of_tasks([1.0, 0.0, 0.0, 0.0], ["a", "b", "b", "b"], [1, 2, 3, 4]).value
    0.5
    """
    value_n, design = np.asarray(values, np.float64), _Design.of(tasks, clusters)
    if not len(value_n):
        return Estimate(value=None, low=None, high=None, n=0)
    mean, low, high = _interval(value_n, design, seed, replicates, count=Z**2, centre=0.5)
    return Estimate(
        value=mean,
        low=max(0.0, low),
        high=min(1.0, high),
        n=len(value_n),
        clusters=design.clusters,
    )


def difference_of_tasks(
    values_a: Sequence[float] | np.ndarray,
    values_b: Sequence[float] | np.ndarray,
    tasks: Sequence[Hashable],
    clusters: Sequence[Hashable],
    seed: int = 0,
    *,
    replicates: int = REPLICATES,
) -> Difference:
    """Mean over tasks of the mean of `a - b`, over the same examples, with interval and p-value.

    The test is `statistics.sign_flip_test` over questions, each row weighted by one over its task's
    number of rows; exact where all tasks have equally many.

    Args:
      values_a, values_b: [n] scores in [0, 1]; entry i of both belongs to the same example.
      tasks, clusters, seed, replicates: as for `mean_of_tasks`.

    Raises:
      ValueError: the two are not equally long.
    """
    a_n, b_n = np.asarray(values_a, np.float64), np.asarray(values_b, np.float64)
    if a_n.shape != b_n.shape:
        raise ValueError(f"paired values differ in number: {a_n.shape} and {b_n.shape}")
    design, difference_n = _Design.of(tasks, clusters), a_n - b_n
    if not len(difference_n):
        return Difference(value=None, low=None, high=None, n=0)
    mean, low, high = _interval(difference_n, design, seed, replicates, count=2, centre=0.0)
    # In units of a row of the largest task: whole numbers where all tasks are equally large.
    weighted_n = difference_n * (design.size_t.max() / design.size_t)[design.task_n]
    p_value, test = statistics.sign_flip_test(design.by_cluster(weighted_n), seed)
    return Difference(
        value=mean,
        low=max(-1.0, low),
        high=min(1.0, high),
        n=len(difference_n),
        clusters=design.clusters,
        p_value=p_value,
        wins=int((difference_n > 0).sum()),
        losses=int((difference_n < 0).sum()),
        test=test,
    )


@dataclass(frozen=True)
class _Design:
    """Which task and which question (cluster) each of n rows belongs to.

    Attributes:
      task_n, cluster_n: int64 [n] codes.
      size_t: float64 [tasks] rows of each task.
      clusters: number of questions.
    """

    task_n: np.ndarray
    cluster_n: np.ndarray
    size_t: np.ndarray
    clusters: int

    @classmethod
    def of(cls, tasks: Sequence[Hashable], clusters: Sequence[Hashable]) -> _Design:
        task_n, num_tasks = statistics.codes(tasks, len(tasks))
        cluster_n, num_clusters = statistics.codes(clusters, len(tasks))
        size_t = np.bincount(task_n, minlength=num_tasks).astype(np.float64)
        return cls(task_n, cluster_n, size_t, num_clusters)

    def by_task(self, value_n: np.ndarray) -> np.ndarray:
        return np.bincount(self.task_n, weights=value_n, minlength=len(self.size_t))

    def by_cluster(self, value_n: np.ndarray) -> np.ndarray:
        return np.bincount(self.cluster_n, weights=value_n, minlength=self.clusters)

    def by_both(self, value_n: np.ndarray) -> np.ndarray:
        """[clusters, tasks] sums."""
        shape = (self.clusters, len(self.size_t))
        cell_n = self.cluster_n * shape[1] + self.task_n
        return np.bincount(cell_n, weights=value_n, minlength=shape[0] * shape[1]).reshape(shape)


def _interval(
    value_n: np.ndarray,
    design: _Design,
    seed: int,
    replicates: int,
    *,
    count: float,
    centre: float,
) -> tuple[float, float, float]:
    """(mean, low, high); `count` made-up observations of mean `centre` and mean square 1/2."""
    mean_t = design.by_task(value_n) / design.size_t
    residual_n = value_n - mean_t[design.task_n]
    variance_t = design.by_task(residual_n**2) / design.size_t
    size_t = design.size_t / _design_effect(residual_n, design)
    added_t = count * (1 / size_t) / (1 / size_t).sum()
    total_t = size_t + added_t
    new_mean_t = (size_t * mean_t + added_t * centre) / total_t
    square_t = (size_t * (variance_t + mean_t**2) + added_t / 2) / total_t
    variance = ((square_t - new_mean_t**2) / total_t).sum() / len(mean_t) ** 2
    half_width = Z * float(np.sqrt(variance))
    mean, new_mean = float(mean_t.mean()), float(new_mean_t.mean())
    low, high = _percentiles(value_n, design, seed, replicates)
    return mean, min(low, new_mean - half_width, mean), max(high, new_mean + half_width, mean)


def _design_effect(residual_n: np.ndarray, design: _Design) -> float:
    """Variance of the mean with questions as the units over that with rows as the units; >= 1.

    Without any variation it is the number of rows a question.
    """
    n, clusters = len(residual_n), design.clusters
    weighted_n = residual_n / design.size_t[design.task_n]
    if clusters == 1 or float((residual_n**2).sum()) < 1e-12 * n:
        return n / clusters
    by_row = float((weighted_n**2).sum())
    by_cluster = float((design.by_cluster(weighted_n) ** 2).sum())
    return max(1.0, (clusters / (clusters - 1)) / (n / (n - 1)) * by_cluster / by_row)


def _percentiles(
    value_n: np.ndarray, design: _Design, seed: int, replicates: int
) -> tuple[float, float]:
    """Percentile interval under questions resampled within groups that stand in the same tasks."""
    value_cxt, size_cxt = design.by_both(value_n), design.by_both(np.ones_like(value_n))
    _, group_c = np.unique(size_cxt > 0, axis=0, return_inverse=True)
    group_c = group_c.reshape(-1)
    total_rx2t = np.zeros((replicates, 2 * len(design.size_t)))
    for group in range(group_c.max() + 1):
        both_cx2t = np.hstack([value_cxt[group_c == group], size_cxt[group_c == group]])
        total_rx2t += _resampled(both_cx2t, seed + 1_000_003 * group, replicates)
    value_rxt, size_rxt = np.split(total_rx2t, 2, axis=1)
    tail = 100 * (1 - statistics.LEVEL) / 2
    low, high = np.percentile((value_rxt / size_rxt).mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)


def _resampled(sums_cxk: np.ndarray, seed: int, replicates: int) -> np.ndarray:
    """float64 [replicates, k] totals of the rows of `sums_cxk`, drawn with replacement."""
    clusters = len(sums_cxk)
    if clusters * replicates <= _KEPT:
        return _kept_draws(clusters, seed, replicates) @ sums_cxk
    part = max(1, 10_000_000 // clusters)
    totals = []
    for start in range(0, replicates, part):
        size = min(part, replicates - start)
        totals.append(statistics.draws.__wrapped__(clusters, seed + start, size) @ sums_cxk)
    return np.concatenate(totals)
