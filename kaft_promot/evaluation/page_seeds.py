"""The report page's sections on figures over several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from kaft_promot.evaluation import measurements, page
from kaft_promot.evaluation.formatting import NOTHING, change, percent
from kaft_promot.evaluation.page import Section
from kaft_promot.evaluation.seeds import Change, OverSeeds, Spread


def section(anchor: str, title: str, over: OverSeeds, said: str = "") -> Section:
    """How figures spread over seeds, and how arms differ over all seeds together.

    Args:
      anchor, title: of the section.
      over: the figures.
      said: HTML that follows the tables.
    """
    numbers = ", ".join(str(seed) for seed in over.figures)
    spreads = over.spreads()
    shown = [measurements.by_name(name) for name in over.measured()]
    parts = [
        f'<p class="note">Seeds {numbers}: median, smallest and largest figure. What is not '
        f"said to be over seeds is of seed {next(iter(over.figures))}.</p>",
        _table(
            "median, range",
            {arm: [_spread(of_arm[m.name]) for m in shown] for arm, of_arm in spreads.items()},
            [m.title for m in shown],
            f"{title}: figures",
        ),
    ]
    for reference in over.differences:
        changes = over.changes(reference)
        parts.append(f"<h3>Differences to {escape(reference)} over seeds</h3>")
        parts.append(
            '<p class="note">Percentage points. Each seed is one observation: its difference on '
            "the same examples. The interval is Student's t at 95 % over seeds, not adjusted for "
            "the number of comparisons: where the mean over many seeds would lie on these "
            "examples.</p>"
        )
        parts.append(
            _table(
                f"arm minus {reference}",
                {
                    arm: [change_cell(of_arm[m.name], m.better) for m in shown]
                    for arm, of_arm in changes.items()
                },
                [m.title for m in shown],
                f"{title}: differences to {reference}",
            )
        )
    return Section(anchor, title, "".join(parts) + said)


def claims(held: Mapping[str, tuple[int, int]]) -> str:
    """A list of claims and in how many seeds each holds (`seeds_that_hold`); empty for none."""
    items = "".join(
        f"<li>{escape(page.tied(claim))}: in {count} of {of} seeds.</li>"
        for claim, (count, of) in held.items()
    )
    return f"<ul>{items}</ul>" if items else ""


def _table(corner: str, columns: dict[str, list[str]], titles: list[str], label: str) -> str:
    """A table of HTML cells: one column an arm, one line a title."""
    head = "".join(f'<th scope="col">{escape(arm)}</th>' for arm in columns)
    lines = "".join(
        f'<tr><th scope="row">{escape(title)}</th>'
        f"{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for title, *cells in zip(titles, *columns.values(), strict=True)
    )
    html = (
        f'<table><thead><tr><th scope="col">{escape(corner)}</th>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table>"
    )
    return page.scrolling(html, label)


def _spread(spread: Spread) -> str:
    if not spread.seeds:
        return NOTHING
    return (
        f'<b>{percent(spread.median)}</b> <span class="interval-text">'
        f"{percent(spread.minimum)} to {percent(spread.maximum)}</span>"
        f"<small>seeds: {spread.seeds}</small>"
    )


def change_cell(found: Change, better: str) -> str:
    """A mean over seeds as HTML, toned by whether it is better ('higher' or 'lower')."""
    if found.value is None:
        return NOTHING
    tone = "same"
    if found.low is not None and found.high is not None and (found.low > 0 or found.high < 0):
        tone = "up" if (found.low > 0) != (better == "lower") else "down"
    value, _, ends = change(found).partition(" ")
    ends = f' <span class="interval-text">{ends}</span>' if ends else ""
    return f'<span class="{tone}"><b>{value}</b></span>{ends}<small>seeds: {found.seeds}</small>'
