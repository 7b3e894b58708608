"""What the figures say, in sentences. Every number in them is computed."""

from __future__ import annotations

from collections.abc import Mapping

from kaft_promot.evaluation.formatting import p_value, percent, points
from kaft_promot.evaluation.statistics import Difference, Estimate

Estimates = Mapping[str, Mapping[str, Estimate]]
Differences = Mapping[str, Mapping[str, Difference]]

# measurement -> how a sentence calls it
_SUBJECTS = {
    "controllability_strict": "following the context against its own memory",
    "robustness_agree": "keeping its own answer before an irrelevant context",
    "reading_em": "reading the answer from a relevant context",
    "retention_em": "answering closed book",
}


def focus_arm(estimates: Estimates) -> str | None:
    """The arm that the report is about: `kaft`, else the best-grounded trained arm, else any."""
    if "kaft" in estimates:
        return "kaft"
    trained = [arm for arm in estimates if arm != "base"] or list(estimates)

    def grounded(arm: str) -> float:
        of_arm = estimates[arm]
        both = (of_arm["controllability_strict"].value, of_arm["robustness_agree"].value)
        return sum(value or 0.0 for value in both)

    return max(trained, key=grounded, default=None)


def headline(estimates: Estimates) -> str:
    """One sentence about the focus arm, with the base model beside it if it was evaluated."""
    arm = focus_arm(estimates)
    if arm is None:
        return "No arm was evaluated on grounding"
    of_arm, base = estimates[arm], estimates.get("base", {})
    clauses = []
    for name, clause in (
        ("controllability_strict", "follows its context in {} % of conflicts with its memory"),
        ("robustness_agree", "keeps its own answer in {} % of irrelevant contexts"),
    ):
        if of_arm[name].value is not None:
            text = clause.format(percent(of_arm[name].value))
            if arm != "base" and base and base[name].value is not None:
                text += f" (base: {percent(base[name].value)} %)"
            clauses.append(text)
    if not clauses:
        return f"{arm}: no conflict and no irrelevant context was evaluated"
    return f"{arm} " + " and ".join(clauses)


def findings(estimates: Estimates, to_base: Differences) -> list[tuple[str, list[str]]]:
    """Per trained arm, what changed against the base model: (arm, sentences).

    Args:
      estimates: arm -> measurement -> estimate.
      to_base: arm -> measurement -> paired difference to `base`; empty if there is no base.

    A change is called one only where the paired difference is `measurable`.
    """
    focus = focus_arm(estimates)
    arms = sorted(to_base, key=lambda arm: arm != focus)
    return [(arm, _arm_findings(estimates, to_base[arm], arm)) for arm in arms]


def _arm_findings(estimates: Estimates, to_base: Mapping[str, Difference], arm: str) -> list[str]:
    sentences = [
        _change(subject, estimates["base"][name], estimates[arm][name], to_base[name])
        for name, subject in _SUBJECTS.items()
        if to_base[name].value is not None
    ]
    free = estimates[arm]["robustness_no_extraction"]
    if free.value is not None:
        taken = percent(1 - free.value)
        sentences.append(f"It takes a wrong answer out of {taken} % of irrelevant contexts.")
    kept = estimates[arm]["retention_agree"]
    if kept.value is not None:
        sentences.append(
            f"It gives the base model's closed-book answer to {percent(kept.value)} % of questions."
        )
    return sentences


def _change(subject: str, before: Estimate, after: Estimate, difference: Difference) -> str:
    assert difference.value is not None
    subject = subject[0].upper() + subject[1:]
    by = f"{points(difference.value)} points, {points(difference.low)} to {points(difference.high)}"
    if not difference.measurable:
        # With p: on few questions the interval alone may exclude zero.
        return f"{subject}: no measurable change ({by}, {p_value(difference.p_value)})."
    verb = "rises" if difference.value > 0 else "falls"
    # Both figures are those of the table: the arms may have been evaluated on unlike examples, in
    # which case they need not differ by exactly the paired difference.
    return f"{subject} {verb} from {percent(before.value)} % to {percent(after.value)} % ({by})."
