"""Grounding: does the model follow a context that has the answer, and ignore one that has not?

METHODS.md section 3, after KAFT (Li et al., Findings of ACL 2023, arXiv 2211.05110); p_s, p_o and
the memorization ratio after Longpre et al. (EMNLP 2021, arXiv 2109.05052). `score_row` says which
scores a single sample row earns; everything else is means of those over rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kaft_promot.evaluation import measurements, metrics
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.statistics import Difference, Estimate, bootstrap, paired_difference
from kaft_promot.knowledge.targets import KINDS, source_of
from kaft_promot.knowledge.text import normalize_answer

MAIN_NAMES = tuple(m.name for m in measurements.MAIN)

# Arms are shown in this order; others follow in order of appearance.
ARM_ORDER = ("base", "relevant_only", "noisy", "no_counterfactual", "abstain", "kaft")


def knew(row: Mapping[str, Any]) -> bool:
    """Whether the base model's closed-book answer to the row's question was right."""
    parametric = row.get("parametric_answer")
    return parametric is not None and bool(metrics.exact_match(parametric, row["gold_answers"]))


def score_row(row: Mapping[str, Any]) -> dict[str, float]:
    """All scores that this row earns, by measurement name; a score that does not apply is absent.

    Args:
      row: a sample row; read are `context_kind`, `answer` (the output without its suffix), `source`
        (as announced), `question`, `context`, `contextual_answers`, `gold_answers` and
        `parametric_answer`.
    """
    kind, output = row["context_kind"], row["answer"]
    if kind not in KINDS:
        return {}
    scores = {"source_accuracy": float(row["source"] == source_of(kind))}
    parametric, gold = row.get("parametric_answer"), row["gold_answers"]
    if kind == "relevant":
        scores["reading_em"] = metrics.exact_match(output, row["contextual_answers"])
        scores["reading_f1"] = metrics.f1(output, row["contextual_answers"])
    elif kind == "counterfactual" and knew(row):
        follows = metrics.exact_match(output, row["contextual_answers"])
        scores["controllability_strict"] = follows * (1 - metrics.exact_match(output, gold))
        scores["p_s"] = metrics.recall(output, row["contextual_answers"])
        scores["p_o"] = metrics.recall(output, gold)
    elif kind == "irrelevant" and parametric is not None:
        agrees = metrics.exact_match(output, [parametric])
        extracts = metrics.extracts(output, row["context"] or "", row["question"])
        scores["robustness_agree"] = agrees
        scores["robustness_no_extraction"] = max(agrees, 1 - extracts)
    elif kind == "empty":
        if gold:
            scores["retention_em"] = metrics.exact_match(output, gold)
        if parametric is not None:
            scores["retention_agree"] = metrics.exact_match(output, [parametric])
    return scores


def arms_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The arms in the rows, in the order in which reports show them."""
    found = dict.fromkeys(row["arm"] for row in rows)
    return [a for a in ARM_ORDER if a in found] + [a for a in found if a not in ARM_ORDER]


def measure(rows: Sequence[Row], seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """Every grounding figure of every arm, from sample rows alone.

    Args:
      rows: sample rows of any number of arms and suites; rows without a known context kind are left
        out.
      seed: of the bootstrap.

    Returns:
      arm -> measurement name -> estimate. The names of `measurements.MAIN` and `DETAILS` are always
      there (value None, n 0 where nothing was measured), then the irrelevant kinds apart
      (`robustness_agree_random`, ...).
    """
    table = Scores(rows)
    return {arm: table.estimates(arm, seed) for arm in table.arms}


class Scores:
    """The scores of sample rows, computed once and looked up by arm and measurement.

    Attributes:
      arms: in the order in which reports show them.
      irrelevant_kinds: the kinds that stand in the rows, sorted.
      examples: arm -> the ids of its examples.
    """

    def __init__(self, rows: Sequence[Row]):
        grounded = [row for row in rows if row.get("context_kind") in KINDS]
        self.arms = arms_of(grounded)
        # arm -> measurement -> example -> (score, question)
        self._scores: dict[str, dict[str, dict[str, tuple[float, str]]]] = {
            arm: defaultdict(dict) for arm in self.arms
        }
        self.examples: dict[str, set[str]] = {arm: set() for arm in self.arms}
        shared = shared_conflicts(grounded)
        kinds = set()
        for row in grounded:
            scores = score_row(row)
            self.examples[row["arm"]].add(row["example_id"])
            if "controllability_strict" in scores and row["question_id"] in shared:
                scores["controllability_strict_shared"] = scores["controllability_strict"]
            if row["context_kind"] == "irrelevant" and row.get("irrelevant_kind"):
                kinds.add(row["irrelevant_kind"])
                for name in [name for name in scores if name.startswith("robustness")]:
                    scores[f"{name}_{row['irrelevant_kind']}"] = scores[name]
            for name, score in scores.items():
                by_example = self._scores[row["arm"]][name]
                by_example[row["example_id"]] = (score, _question(row))
        self.irrelevant_kinds = sorted(kinds)

    @property
    def names(self) -> list[str]:
        """Measurement names in the order in which reports show them."""
        robust = [name for name in MAIN_NAMES if name.startswith("robustness")]
        apart = [f"{name}_{kind}" for kind in self.irrelevant_kinds for name in robust]
        return [*MAIN_NAMES, *(m.name for m in measurements.DETAILS), *apart]

    def estimates(self, arm: str, seed: int = 0) -> dict[str, Estimate]:
        """Every figure of one arm, by measurement name."""
        return {name: self.estimate(arm, name, seed) for name in self.names}

    def estimate(self, arm: str, name: str, seed: int = 0) -> Estimate:
        """One figure of one arm with its interval; value None and n 0 if there are no such rows."""
        if name == "memorization_ratio":
            substituted, original = self._scores[arm]["p_s"], self._scores[arm]["p_o"]
            pairs = [(original[i][0], substituted[i][0] + original[i][0]) for i in original]
            questions = [question for _, question in original.values()]
            return bootstrap(
                [p_o for p_o, _ in pairs], questions, seed, weights=[both for _, both in pairs]
            )
        found = self._scores[arm][name].values()
        return bootstrap([score for score, _ in found], [question for _, question in found], seed)

    def difference(self, arm: str, reference: str, name: str, seed: int = 0) -> Difference:
        """`arm` minus `reference` in one measurement, over the examples that both have."""
        of_arm, of_reference = self._scores[arm][name], self._scores[reference][name]
        both = [example for example in of_arm if example in of_reference]
        return paired_difference(
            [of_arm[example][0] for example in both],
            [of_reference[example][0] for example in both],
            [of_arm[example][1] for example in both],
            seed,
        )


def _question(row: Row) -> str:
    """What a row's interval draws it with: rows that ask the same, whatever they are read from.

    One question is often asked before several passages, each a source row of its own.
    """
    return normalize_answer(row["question"]) or row["question_id"]


def shared_conflicts(rows: Iterable[Row]) -> set[str]:
    """Questions that every compared arm, and the base of every arm, answers right closed book.

    An arm's own closed-book answer is its row with an empty context; an arm without such a row for
    a question is judged by its base's answer alone.
    """
    wrong, seen = set(), set()
    for row in rows:
        seen.add(row["question_id"])
        forgot = row["context_kind"] == "empty" and not metrics.exact_match(
            row["answer"], row["gold_answers"]
        )
        if forgot or not knew(row):
            wrong.add(row["question_id"])
    return seen - wrong


def differences(table: Scores, reference: str, seed: int = 0) -> dict[str, dict[str, Difference]]:
    """Paired differences of every other arm to `reference`: arm -> measurement -> difference."""
    return {
        arm: {name: table.difference(arm, reference, name, seed) for name in MAIN_NAMES}
        for arm in table.arms
        if arm != reference
    }
