"""The report page's section on arms at matched target score."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from kaft_promot.evaluation import measurements, page, page_seeds
from kaft_promot.evaluation.formatting import interval, percent, points
from kaft_promot.evaluation.page import Section
from kaft_promot.evaluation.retention import NAMES, Scores
from kaft_promot.evaluation.retention_matched import REFERENCE, Matched


def section(matched: Mapping[str, Matched]) -> Section:
    """Every arm beside plain fine-tuning where both are equally good at the target task.

    Args:
      matched: from `retention_matched.matched`, not empty.
    """
    several = len(next(iter(matched.values())).pairs) > 1
    lines = "".join(_lines(found, several) for found in matched.values())
    heads = ["arm", *(measurements.by_name(name).title for name in NAMES)]
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    table = f'<table class="matched"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
    note = (
        '<p class="note">At the same step an arm may keep more only because it has learned less. '
        f"Here each is beside <b>{REFERENCE}</b> where both were most nearly equally good at the "
        "target task on validation: whichever scored more is taken back to the measured step whose "
        "score was nearest to the other's. Where the two still differ there measurably, it is said "
        f"so. Each cell: the arm / {REFERENCE} at these steps, percent, on the same examples as "
        "the figures above; below it their difference in points with its 95 % interval.</p>"
    )
    html = note + page.scrolling(table, "Matched target score")
    if several and "promot" in matched:
        html += page_seeds.claims(matched["promot"].claims())
    return Section("retention-matched", "At matched target score", html)


def _lines(found: Matched, several: bool) -> str:
    """One line a seed, and one of all seeds together."""
    lines = []
    for seed, table in found.tables.items():
        steps, scores = found.pairs[seed].steps, found.pairs[seed].scores
        cells = "".join(f"<td>{_cell(table, found.arm, name)}</td>" for name in NAMES)
        number = f", seed {seed}" if several else ""
        lines.append(
            f'<tr><th scope="row">{escape(found.arm)}{number}'
            f"<small>steps {steps[found.arm]} / {steps[REFERENCE]}</small>"
            f"<small>validation {percent(scores[found.arm])} / {percent(scores[REFERENCE])}</small>"
            f"{'' if seed in found.matched else '<small>not equally good</small>'}</th>{cells}</tr>"
        )
    if several:
        changes = found.over_seeds().changes(REFERENCE)[found.arm]
        cells = "".join(
            f"<td>{page_seeds.change_cell(changes[name], measurements.by_name(name).better)}</td>"
            for name in NAMES
        )
        lines.append(
            f'<tr><th scope="row">{escape(found.arm)} minus {REFERENCE}'
            f"<small>mean over seeds</small></th>{cells}</tr>"
        )
    return "".join(lines)


def _cell(table: Scores, arm: str, name: str) -> str:
    there, reference = (table.estimate(of, name) for of in (arm, REFERENCE))
    change = table.difference(arm, REFERENCE, name)
    return (
        f"<b>{percent(there.value)}</b> / {percent(reference.value)}"
        f"<small>{points(change.value)} {interval(change)}</small>"
    )
