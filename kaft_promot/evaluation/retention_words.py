"""What the retention figures say, in one sentence. Every number in it is computed."""

from __future__ import annotations

from kaft_promot.evaluation.formatting import percent
from kaft_promot.evaluation.retention import OTHER, TARGET, Estimates


def headline(estimates: Estimates, graded: str = "") -> str:
    """One sentence, without its full stop, about the arm that the page is about.

    Args:
      estimates: from `retention.measure`.
      graded: by which score the target's outputs are graded (`retention.Scores.graded`); empty
        where each is right or wrong.
    """
    arm = focus_arm(estimates)
    if arm is None:
        return "No arm was evaluated on retention"
    clauses = []
    for name, clause, others in (
        (TARGET, "gets {} % of the target task right", ("finetune",)),
        (OTHER, "scores {} % on in-context tasks of other formats", ("base", "finetune")),
    ):
        if estimates[arm][name].value is None:
            continue
        notes = []
        if name == TARGET and graded:
            clause = "scores {} % on the target task"
            notes.append(f"{graded}, mean over examples")
        notes += [
            f"{other}: {percent(estimates[other][name].value)} %"
            for other in others
            if other != arm and other in estimates and estimates[other][name].value is not None
        ]
        beside = "; ".join(notes)
        text = clause.format(percent(estimates[arm][name].value))
        clauses.append(f"{text} ({beside})" if beside else text)
    return f"{arm} {' and '.join(clauses)}" if clauses else f"{arm}: nothing was measured"


def focus_arm(estimates: Estimates) -> str | None:
    """The arm that the page is about: `promot`, else the trained arm that is best at both."""
    if "promot" in estimates:
        return "promot"
    trained = [arm for arm in estimates if arm != "base"] or list(estimates)

    def good(arm: str) -> float:
        return sum(estimates[arm][name].value or 0.0 for name in (TARGET, OTHER))

    return max(trained, key=good, default=None)
