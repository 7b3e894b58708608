"""The report page's section on in-context tasks one by one."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from kaft_promot.evaluation import page
from kaft_promot.evaluation.formatting import interval, p_value, percent, points
from kaft_promot.evaluation.page import Section
from kaft_promot.evaluation.retention import ALL, OTHER, SAME, SHARE, Scores, losses
from kaft_promot.evaluation.statistics import Difference


def section(table: Scores, seed: int = 0) -> Section:
    """Every in-context task: each arm's score, loss against the base, and output share."""
    of_arms = losses(table, seed=seed) if "base" in table.arms else {}
    head = "".join(f'<th scope="col">{escape(arm)}</th>' for arm in table.arms)
    lines = []
    for same, mean, title in (
        (False, OTHER, "Tasks of other formats"),
        (True, SAME, "Tasks that share the target task's format"),
    ):
        tasks = [task for task, shares in table.tasks.items() if shares == same]
        if not tasks:
            continue
        lines.append(
            f'<tr class="group"><th scope="rowgroup" colspan="{len(table.arms) + 1}">'
            f"<span>{escape(title)}</span></th></tr>"
        )
        for task in tasks:
            lines.append(_task_line(table, of_arms, task, table.labels[task], seed))
        lines.append(_task_line(table, of_arms, mean, "mean of these", seed, bold=True))
    lines.append(_task_line(table, of_arms, ALL, "mean of all tasks", seed, bold=True))
    score = table.graded(ALL)
    shown = f"Score ({escape(score)}, mean over examples) in percent" if score else "Percent right"
    note = (
        f'<p class="note">{shown} with 95 % interval. Loss: the base model\'s score minus the '
        "arm's on the same examples, in points, with interval and the p-value of a paired test. "
        "Share: outputs in the target task's format.</p>"
    )
    html = (
        f'<table class="tasks"><thead><tr><th scope="col">in-context task</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
    html = note + page.scrolling(html, "In-context tasks")
    return Section("retention-tasks", "Format-specialization loss by task", html)


def _task_line(
    table: Scores,
    of_arms: Mapping[str, Mapping[str, Difference]],
    name: str,
    label: str,
    seed: int,
    bold: bool = False,
) -> str:
    cells = []
    for arm in table.arms:
        estimate = table.estimate(arm, name, seed)
        cell = (
            f"<b>{percent(estimate.value)}</b> "
            f'<span class="interval-text">{interval(estimate)}</span>'
        )
        if arm in of_arms and of_arms[arm][name].value is not None:
            loss = of_arms[arm][name]
            cell += (
                f"<small>loss {points(loss.value)} {interval(loss)}</small>"
                f"<small>{p_value(loss.p_value)}, n = {loss.n}</small>"
            )
        else:
            cell += f"<small>n = {estimate.n}</small>"
        share = table.estimate(arm, SHARE, seed) if name == OTHER else table.share(arm, name, seed)
        if share.value is not None:
            cell += f"<small>share {percent(share.value)} %</small>"
        cells.append(f"<td>{cell}</td>")
    shown = f"<b>{escape(label)}</b>" if bold else escape(label)
    return f'<tr><th scope="row">{shown}</th>{"".join(cells)}</tr>'
