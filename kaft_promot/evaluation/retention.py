"""Retention: what can a model still do after it was tuned on one target task?

METHODS.md section 2 ("Format specialization") and section 3, after ProMoT (Wang et al., ICLR 2024,
arXiv 2211.00635, section 2). Rows of the suite `target` give the target score, rows of the suite
`in_context` everything else:

* the in-context score, plain mean over tasks, *apart* for tasks that share the target task's format
  and for those that do not: a model that answers True or False to everything loses little in a mean
  over both;
* the output share: how many outputs on tasks of other formats are in the target task's format;
* the format-specialization loss: the base model's score minus the arm's on the same examples.

Which tasks share the format follows from the data: those all of whose targets satisfy the predicate
that the target task registers (`output_share.register_format`). Means over tasks and their
intervals are those of `task_means`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kaft_promot.errors import UserError
from kaft_promot.evaluation import measurements
from kaft_promot.evaluation.output_share import format_of
from kaft_promot.evaluation.row_checks import problem
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.statistics import Difference, Estimate
from kaft_promot.evaluation.suites import MAIN_SCORE
from kaft_promot.evaluation.task_means import difference_of_tasks, mean_of_tasks

TARGET, OTHER, SAME, SHARE = NAMES = tuple(m.name for m in measurements.RETENTION)
ALL = "in_context"  # the mean over all in-context tasks: shown beside the four, never alone

TARGET_SUITE, IN_CONTEXT_SUITE = "target", "in_context"

# Arms are shown in this order; others follow by name.
ARM_ORDER = ("base", "prompt_tuning", "finetune", "promot", "promot_1shot", "joint", "lora")

# Scores that say whether an output is right; of any other one, reports name it and show its value.
RIGHT_OR_WRONG = frozenset({MAIN_SCORE, "accuracy", "em", "sequence_accuracy"})

# Arms that reports show differences to.
REFERENCES = ("base", "finetune")

Estimates = Mapping[str, Mapping[str, Estimate]]


class _Point(NamedTuple):
    """One example of one arm: what it scores, in which task, for which question."""

    value: float
    task: str
    question: str


def measure(rows: Sequence[Row], target: str, seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """The four retention figures of every arm, from sample rows alone.

    Args:
      rows: sample rows of one seed; rows of suites other than `target` and `in_context` are left
        out.
      target: name of the target task, which has a registered format.
      seed: of the bootstrap.

    Returns:
      arm -> name of `measurements.RETENTION` -> estimate (value None, n 0 where nothing was
      measured).

    Raises:
      UserError: the target has no format, or a row is of another target or lacks a field.
      ValueError: an arm has the same example twice (rows of several seeds or steps).
    """
    table = Scores(rows, target)
    return {arm: table.estimates(arm, seed) for arm in table.arms}


def results_json(estimates: Estimates) -> dict[str, Any]:
    """What results.json says about retention.

    Returns:
      `{"promot": {ARM: {"target", "in_context_other_formats", "in_context_same_format",
      "output_share"}}}`, each `{"value", "low", "high", "n"}`, as fractions.
    """
    return {
        "promot": {
            arm: {name: of_arm[name].to_json() for name in NAMES}
            for arm, of_arm in estimates.items()
        }
    }


def details_json(table: Scores, seed: int = 0) -> dict[str, Any]:
    """What details.json says about retention: what the report page shows beside results.json's.

    Args:
      table: one seed's scores.
      seed: of the bootstrap.

    Returns:
      `{"arms": {ARM: {NAME: figure}}, "differences": {REFERENCE: {ARM: {NAME: figure}}}, "tasks":
      {TASK: {"target_format", "scores": {ARM: figure}, "losses": {ARM: figure}, "output_shares":
      {ARM: figure}}}}`: the four figures and the mean over all in-context tasks; paired differences
      to `REFERENCES`; and every in-context task, whether it shares the target's format, with each
      arm's score, format-specialization loss and output share (in a task of another format).
    """
    names = (*NAMES, ALL)
    lost = losses(table, seed=seed) if "base" in table.arms else {}
    return {
        "arms": {
            arm: {name: table.estimate(arm, name, seed).to_json() for name in names}
            for arm in table.arms
        },
        "differences": {
            reference: {
                arm: {name: figure.to_json() for name, figure in of_arm.items()}
                for arm, of_arm in differences(table, reference, seed, names).items()
            }
            for reference in REFERENCES
            if reference in table.arms
        },
        "tasks": {
            task: {
                "target_format": same,
                "scores": {arm: table.estimate(arm, task, seed).to_json() for arm in table.arms},
                "losses": {arm: of_arm[task].to_json() for arm, of_arm in lost.items()},
                "output_shares": {}
                if same
                else {arm: table.share(arm, task, seed).to_json() for arm in table.arms},
            }
            for task, same in table.tasks.items()
        },
    }


def differences(
    table: Scores, reference: str, seed: int = 0, names: Sequence[str] = NAMES
) -> dict[str, dict[str, Difference]]:
    """Paired differences of every other arm to `reference`: arm -> name -> difference."""
    return {
        arm: {name: table.difference(arm, reference, name, seed) for name in names}
        for arm in table.arms
        if arm != reference
    }


def losses(
    table: Scores, reference: str = "base", seed: int = 0
) -> dict[str, dict[str, Difference]]:
    """Format-specialization loss: `reference` minus arm, on the same examples.

    Returns:
      arm -> in-context task, or mean over tasks (OTHER, SAME, ALL) -> paired difference, above 0
      where the arm does worse than the reference.
    """
    return {
        arm: {
            name: table.difference(reference, arm, name, seed)
            for name in (*table.tasks, OTHER, SAME, ALL)
        }
        for arm in table.arms
        if arm != reference
    }


class Scores:
    """Scores of one seed's sample rows, looked up by arm and figure.

    A figure is one of `NAMES`, or `ALL`, or the name of an in-context task. Each is computed once:
    the table, the page and the JSON files show many of the same ones.

    Attributes:
      arms: in the order in which reports show them.
      tasks: in-context tasks -> whether they share the target's format; those that do not first.
      labels: in-context task -> how people call it (`first, 2 shots`).
    """

    def __init__(self, rows: Iterable[Row], target: str):
        """Arguments and errors as for `measure`."""
        predicate = format_of(target)
        used = [row for row in rows if row.get("suite") in (TARGET_SUITE, IN_CONTEXT_SUITE)]
        for row in used:
            _check(row, target)
        # Sorted, so that no figure depends on the order in which rows were written.
        used.sort(key=lambda row: (row["arm"], row["example_id"]))
        in_context = [row for row in used if row["suite"] == IN_CONTEXT_SUITE]
        same = {row["task"]: True for row in in_context}
        for row in in_context:
            same[row["task"]] &= predicate(row["target"])
        self.arms = arms_of(used)
        self.tasks = dict(sorted(same.items(), key=lambda item: (item[1], item[0])))
        self.labels = {row["task"]: _label(row) for row in in_context}
        # arm -> figure -> example -> point
        self._points: dict[str, dict[str, dict[str, _Point]]] = {
            arm: defaultdict(dict) for arm in self.arms
        }
        self._score_names: dict[str, set[str]] = defaultdict(set)  # figure -> of all arms
        self._graded: set[str] = set()  # figures in which an output may be half right
        self._known: dict[tuple[Any, ...], Any] = {}
        for row in used:
            self._add(row, same.get(row["task"], False), in_format(row, predicate))

    def _add(self, row: Row, same: bool, formatted: bool) -> None:
        of_arm = self._points[row["arm"]]
        point = _Point(main_score(row), row["task"], row["question_id"])
        if row["suite"] == TARGET_SUITE:
            names = {TARGET: point}
        elif same:
            names = {SAME: point, ALL: point, row["task"]: point}
        else:
            share = point._replace(value=float(formatted))
            names = {OTHER: point, ALL: point, row["task"]: point, SHARE: share}
        for name, of_name in names.items():
            if row["example_id"] in of_arm[name]:
                raise ValueError(
                    f"arm {row['arm']!r} has example {row['example_id']!r} twice; measure the rows "
                    "of each seed and step apart"
                )
            of_arm[name][row["example_id"]] = of_name
            if name != SHARE:
                self._score_names[name].add(score_name(row))
                if score_name(row) not in RIGHT_OR_WRONG or point.value not in (0, 1):
                    self._graded.add(name)

    def graded(self, name: str) -> str:
        """By which scores a figure's outputs are graded; empty where each is right or wrong."""
        return ", ".join(sorted(self._score_names[name])) if name in self._graded else ""

    def estimates(self, arm: str, seed: int = 0) -> dict[str, Estimate]:
        """The four figures of one arm."""
        return {name: self.estimate(arm, name, seed) for name in NAMES}

    def estimate(self, arm: str, name: str, seed: int = 0) -> Estimate:
        """One figure of one arm with its interval; value None and n 0 without such rows."""
        return self._mean(("estimate", arm, name), list(self._points[arm][name].values()), seed)

    def share(self, arm: str, task: str, seed: int = 0) -> Estimate:
        """Output share on one in-context task; n 0 for one that shares the target's format."""
        points = [point for point in self._points[arm][SHARE].values() if point.task == task]
        return self._mean(("share", arm, task), points, seed)

    def _mean(self, key: tuple[Any, ...], points: Sequence[_Point], seed: int) -> Estimate:
        key = (*key, seed)
        if key not in self._known:
            self._known[key] = mean_of_tasks(
                [point.value for point in points],
                [point.task for point in points],
                [point.question for point in points],
                seed,
            )
        return self._known[key]

    def difference(self, arm: str, reference: str, name: str, seed: int = 0) -> Difference:
        """`arm` minus `reference` in one figure, over the examples that both have.

        A mean over tasks is over the tasks of those examples.
        """
        key = ("difference", arm, reference, name, seed)
        if key not in self._known:
            of_arm, of_reference = self._points[arm][name], self._points[reference][name]
            both = [example for example in of_arm if example in of_reference]
            self._known[key] = difference_of_tasks(
                [of_arm[example].value for example in both],
                [of_reference[example].value for example in both],
                [of_arm[example].task for example in both],
                [of_arm[example].question for example in both],
                seed,
            )
        return self._known[key]


def arms_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The arms in the rows, in the order in which reports show them."""
    found = {row["arm"] for row in rows}
    return [arm for arm in ARM_ORDER if arm in found] + sorted(found - set(ARM_ORDER))


def main_score(row: Row) -> float:
    """The score, from 0 to 1, that arms are compared by: `main_score` of the row says which.

    Exact match, where it says nothing.
    """
    return float(row["scores"][score_name(row)])


def score_name(row: Row) -> str:
    """The name of the score that arms are compared by."""
    return row.get("main_score", MAIN_SCORE)


def in_format(row: Row, predicate: Any) -> bool:
    """Whether the row's output is in a format, as the model wrote it or as it was read.

    A format may stand in what reading cuts off (an announced source), and sentinels around a label
    must not hide it.
    """
    return predicate(row["prediction"]) or predicate(row["answer"])


def _label(row: Row) -> str:
    if "in_context_task" not in row or "shots" not in row:
        return row["task"]
    shots = row["shots"]
    return f"{row['in_context_task']}, {shots} shot{'' if shots == 1 else 's'}"


def _check(row: Row, target: str) -> None:
    """A row that these figures cannot be computed from is an error that names it."""
    wrong = problem(row)
    if wrong is not None:
        raise UserError(
            f"arm {row.get('arm')!r}, example {row.get('example_id')!r}: the sample row {wrong}; "
            "evaluate that arm again"
        )
    if row["suite"] == TARGET_SUITE and row["task"] != target:
        raise UserError(
            f"arm {row['arm']!r}: a sample row is of the target task {row['task']!r}, not of "
            f"{target!r}; name the target that the arms were tuned on"
        )
