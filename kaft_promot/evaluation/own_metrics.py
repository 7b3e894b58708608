"""A SeqIO task's own metric functions on sample rows, with intervals.

In SeqIO a task says how it is scored: `postprocess_fn` reads targets and outputs, `metric_fns` take
all of them at once and give figures by name, `(targets, predictions)` from outputs or
`(targets, scores)` from the log-likelihoods of the targets. A figure here is exactly what the
function gives, on its own scale (percent in T5's).

The interval depends on the metric, which is a black box:

* Where the figure is the mean of what the function gives for each example alone (accuracy, exact
  match), it is that of a mean, `statistics.bootstrap`. This widens intervals near the ends of the
  scale, which it can only do where the ends are known: where a perfect output gets exactly 1 or 100
  and nothing gets less than 0 or more than that. On other scales it is a plain percentile interval.
* Otherwise (BLEU, F1 of a class) each resample of whole examples is scored anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from kaft_promot.errors import UserError
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.statistics import (
    REPLICATES,
    Resampled,
    bootstrap,
    bootstrap_figures,
)
from kaft_promot.evaluation.task_metrics import SummedMetric

MetricFn = Callable[..., Mapping[str, Any]]

RESAMPLES = 1000  # of metrics that read all texts again for each; SacreBLEU's number, too
PROBED = 8  # examples that are tried before each one is scored alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskMetrics:
    """What a task is scored by.

    Attributes:
      task: its name.
      predict: functions of (targets, predictions).
      score: functions of (targets, scores).
      postprocesses: whether the task has a `postprocess_fn`.
      left_out: what cannot be computed here, each with its reason, for people.
    """

    task: str
    predict: Sequence[MetricFn] = ()
    score: Sequence[MetricFn] = ()
    postprocesses: bool = False
    left_out: Sequence[str] = ()

    @classmethod
    def of(cls, task: Any) -> TaskMetrics:
        """Those of a `seqio.Task`.

        Raises:
          UserError: a metric function has other arguments than SeqIO allows.
        """
        try:
            predict, score = task.predict_metric_fns, task.score_metric_fns
            with_aux = task.predict_with_aux_metric_fns
        except ValueError as error:
            raise UserError(f"task {task.name!r}: {str(error).splitlines()[0]}") from error
        own = task.metric_objs[: len(task.metric_objs) - len(task.metric_fns)]
        left_out = [
            f"metric {_name(fn)} of task {task.name!r} is not computed: it takes aux_values, which "
            "decoding does not give"
            for fn in with_aux
        ]
        left_out += [
            f"metric {_name(metric)} of task {task.name!r} is not computed: it is one of its "
            "metric_objs; give it as a function among the task's metric_fns"
            for metric in own
        ]
        return cls(
            task=task.name,
            predict=tuple(predict),
            score=tuple(score),
            postprocesses=task.postprocessor is not None,
            left_out=tuple(left_out),
        )


def postprocessed(task: Any, text: str, example: Mapping[str, Any], is_target: bool) -> Any:
    """What a task's `postprocess_fn` makes of a target or an output, as a JSON value.

    Args:
      task: a `seqio.Task`.
      text: the target or the output.
      example: as SeqIO gives it.
      is_target: which of the two `text` is.

    Raises:
      UserError: the function fails, or gives what a sample row cannot hold.
    """
    what = "target" if is_target else "output"
    try:
        return _plain(task.postprocess_fn(text, example=example, is_target=is_target))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"task {task.name!r}: its postprocess_fn fails on the {what} {text[:60]!r}: "
            f"{said(error)}"
        ) from error


def figures(
    metrics: TaskMetrics, rows: Sequence[Row], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[dict[str, Resampled], list[str]]:
    """The figures of one arm on one task.

    Args:
      metrics: the task's.
      rows: the arm's sample rows, in the order of the task's examples. A row has `target` and
        `prediction`; `postprocessed`, an object with both, where the task postprocesses; and
        `log_likelihood` where a metric is of scores.
      seed: of the resampling.
      resamples: number of bootstrap samples of metrics that score each anew.

    Returns:
      Name -> figure, in the order of the metric functions; and what is missing, a line each.

    Raises:
      UserError: a metric function fails, or two give a figure of the same name.
    """
    missing = list(metrics.left_out)
    old = metrics.postprocesses and any("postprocessed" not in row for row in rows)
    if old and (metrics.predict or metrics.score):
        why = (
            f"the metrics of task {metrics.task!r} are not computed: arm {rows[0]['arm']!r} has "
            "rows without what the task's postprocess_fn makes of them; evaluate it again into "
            "another folder or under another ARM"
        )
        return {}, [*missing, why]
    read = [row.get("postprocessed", row) for row in rows]
    targets = [of_row["target"] for of_row in read]
    predictions = [of_row.get("prediction") for of_row in read]
    clusters = [row["question_id"] for row in rows]
    work: list[tuple[MetricFn, Any]] = [(fn, predictions) for fn in metrics.predict]
    if all("log_likelihood" in row for row in rows):
        scores = np.array([row["log_likelihood"] for row in rows])
        work += [(fn, scores) for fn in metrics.score]
    else:
        missing += [
            f"metric {_name(fn)} of task {metrics.task!r} is not computed: arm {rows[0]['arm']!r} "
            "has rows without log_likelihood"
            for fn in metrics.score
        ]
    found: dict[str, Resampled] = {}
    for fn, outputs in work:
        metric = _Metric(metrics.task, fn, targets, outputs)
        for name, figure in metric.figures(clusters, seed, resamples, missing).items():
            if name in found:
                raise UserError(f"task {metrics.task!r}: two metric functions give {name!r}")
            found[name] = figure
    return found, missing


@dataclasses.dataclass(frozen=True)
class _Metric:
    """One metric function and all that it takes: entry i of both is of example i."""

    task: str
    fn: MetricFn
    targets: Sequence[Any]
    outputs: Any  # a list of predictions, or an array of scores

    def figures(
        self, clusters: Sequence[str], seed: int, resamples: int, missing: list[str]
    ) -> dict[str, Resampled]:
        """Name -> figure; adds to `missing` what is no number."""
        n = len(self.targets)
        if isinstance(self.fn, SummedMetric):
            sums_NxS = self._guarded(self.fn.statistics)
            again = functools.partial(_of_sums, self.fn, sums_NxS)
            return bootstrap_figures(again, n, clusters, seed)
        whole = self._numbers(self._guarded(self.fn), missing)
        alone = self._alone(whole)
        found = {
            name: _of_mean(whole[name], values, self._top(name, values), clusters, seed)
            for name, values in alone.items()
        }
        rest = {name: value for name, value in whole.items() if name not in alone}
        if rest:
            # With a bar: it may read long texts a thousand times.
            bar = tqdm(total=resamples, desc=f"resample {_name(self.fn)}", leave=False)

            def again_slowly(row_n: np.ndarray) -> dict[str, float]:
                bar.update()
                of_sample = self._try(row_n.tolist())
                return {name: of_sample.get(name, np.nan) for name in rest}

            with bar:
                drawn = bootstrap_figures(
                    again_slowly, n, clusters, seed, replicates=resamples, values=rest
                )
            found |= drawn
        return {name: found[name] for name in whole}

    def _guarded(self, function: Callable[..., Any]) -> Any:
        """What a function gives for all of the examples.

        Raises:
          UserError: it fails.
        """
        try:
            return function(self.targets, self.outputs)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"task {self.task!r}: its metric {_name(self.fn)} fails: {said(error)}; the rows "
                "are kept, mend it and run the same command again"
            ) from error

    def _try(self, row_n: Sequence[int]) -> dict[str, float]:
        """The figures of some examples; empty where the function cannot tell, as a correlation."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._numbers(self.fn(*self._some(row_n)))
        except Exception:
            return {}

    def _some(self, row_n: Sequence[int]) -> tuple[list[Any], Any]:
        outputs = [self.outputs[i] for i in row_n]
        of_scores = isinstance(self.outputs, np.ndarray)
        return [self.targets[i] for i in row_n], np.array(outputs) if of_scores else outputs

    def _numbers(
        self, given: Mapping[str, Any], missing: list[str] | None = None
    ) -> dict[str, float]:
        found = numbers(given)
        if missing is not None:
            missing += [
                f"figure {name!r} of metric {_name(self.fn)}, task {self.task!r}, is no number and "
                "not shown"
                for name in given
                if name not in found
            ]
        return found

    def _alone(self, whole: Mapping[str, float]) -> dict[str, np.ndarray]:
        """[n] values of single examples, of the figures that are means of them."""
        n = len(self.targets)
        few = sorted({round(i) for i in np.linspace(0, n - 1, PROBED)})
        of_few = {name: np.array(v) for name, v in self._singles(few).items()}
        of_part = self._try(few)
        means = [name for name in whole if _is_mean(of_part.get(name), of_few.get(name))]
        if not means:
            return {}
        alone = {name: np.array(v) for name, v in self._singles(range(n)).items()}
        return {name: alone[name] for name in means if _is_mean(whole[name], alone.get(name))}

    def _singles(self, row_n: Sequence[int]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for i in row_n:
            for name, value in self._try([i]).items():
                found.setdefault(name, []).append(value)
        return {name: values for name, values in found.items() if len(values) == len(row_n)}

    def _top(self, name: str, values: np.ndarray) -> float | None:
        """The upper end of the metric's scale, 1 or 100; None where it is not known."""
        if isinstance(self.outputs, np.ndarray):
            return None
        tops = set()
        for i in sorted({round(i) for i in np.linspace(0, len(self.targets) - 1, PROBED)}):
            target = self.targets[i]
            gained = [
                dataclasses.replace(self, targets=[target], outputs=[output])._try([0]).get(name)
                for output in perfect_outputs(target)
            ]
            tops.add(max((value for value in gained if value is not None), default=None))
        top = tops.pop() if len(tops) == 1 else None
        return top if top in (1.0, 100.0) and 0 <= values.min() and values.max() <= top else None


def numbers(given: Mapping[str, Any]) -> dict[str, float]:
    """What a metric function gives, without what is no number."""
    found = {}
    for name, value in given.items():
        with contextlib.suppress(TypeError, ValueError):
            found[name] = float(getattr(value, "value", value))  # seqio.metrics.Scalar has one
    return found


def perfect_outputs(target: Any) -> list[Any]:
    """Outputs of which one is right: the target is a label, or a list of accepted answers."""
    return [target, *(target[:1] if isinstance(target, list) else [])]


def _of_sums(metric: SummedMetric, sums_NxS: np.ndarray, row_n: np.ndarray) -> dict[str, float]:
    return metric.figures(sums_NxS[row_n].sum(axis=0))


def _of_mean(
    value: float, values: np.ndarray, top: float | None, clusters: Sequence[str], seed: int
) -> Resampled:
    """The mean `value` of `values` with its interval; `top` is as `_Metric._top` gives it."""
    if top is None:
        return bootstrap_figures(
            lambda row_n: {"mean": float(values[row_n].mean())},
            len(values),
            clusters,
            seed,
            values={"mean": value},
        )["mean"]
    bounded = bootstrap(values / top, clusters, seed)
    assert bounded.low is not None and bounded.high is not None
    return Resampled(
        value=value,
        low=min(top * bounded.low, value),
        high=max(top * bounded.high, value),
        n=bounded.n,
        clusters=bounded.clusters,
        resamples=REPLICATES,
    )


def _is_mean(whole: float | None, alone: np.ndarray | None) -> bool:
    if whole is None or alone is None:
        return False
    return bool(np.isclose(whole, alone.mean(), rtol=1e-6, atol=1e-9))


def _plain(value: Any) -> Any:
    """A JSON value of the same content: tuples and arrays become lists."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):  # a number or an array of numpy's, JAX's
        return _plain(value.tolist())
    if hasattr(value, "numpy"):  # a tensor of TensorFlow's
        return _plain(value.numpy())
    raise TypeError(f"gives a {type(value).__name__}, which a sample row cannot hold")


def _name(metric: Any) -> str:
    plain = metric.func if isinstance(metric, functools.partial) else metric
    names = (getattr(plain, "__name__", None), getattr(plain, "name", None), type(plain).__name__)
    return str(next(name for name in names if name))


def said(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
