"""Dots with intervals as inline SVG.

Positions are percentages of the drawing's width and text is HTML beside it, so a plot fits a phone
as well as a wide screen without shrinking its letters; colours come from the page's style, so it
follows light and dark mode. Every drawing carries its figures as alternative text.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from kaft_promot.evaluation.formatting import interval, percent, spoken
from kaft_promot.evaluation.statistics import Difference, Estimate

_HEIGHT = 22
_GRID = (0, 25, 50, 75, 100)


def strip(estimate: Estimate, label: str, kind: str, mark: float | None = None) -> str:
    """One dot with its interval, on 0 to 100 % (a Difference: on -100 to +100 points).

    Args:
      estimate: what to draw; without a value only the grid is drawn.
      label: whose figure it is, for the alternative text.
      kind: style of the dot: 'focus', 'base' or 'other'.
      mark: a value to mark by a dashed line.
    """
    difference = isinstance(estimate, Difference)

    def place(value: float) -> str:
        return f"{50 * (value + 1) if difference else 100 * value:.2f}%"

    parts = [
        f'<line class="grid" x1="{x}%" x2="{x}%" y1="0" y2="{_HEIGHT}"/>'
        for x in _GRID
        if not (difference and x == 50)
    ]
    if difference:
        parts.append(f'<line class="zero" x1="50%" x2="50%" y1="0" y2="{_HEIGHT}"/>')
    if mark is not None:
        x = place(mark)
        parts.append(f'<line class="mark" x1="{x}" x2="{x}" y1="0" y2="{_HEIGHT}"/>')
    if estimate.value is not None and estimate.low is not None and estimate.high is not None:
        y = _HEIGHT // 2
        parts.append(
            f'<line class="interval" x1="{place(estimate.low)}" x2="{place(estimate.high)}" '
            f'y1="{y}" y2="{y}"/><circle cx="{place(estimate.value)}" cy="{y}" r="5"/>'
        )
    text = escape(f"{label}: {spoken(estimate)}", quote=True)
    return (
        f'<svg class="strip {kind}" role="img" aria-label="{text}" width="100%" '
        f'height="{_HEIGHT}"><title>{text}</title>{"".join(parts)}</svg>'
    )


def forest(estimates: Mapping[str, Estimate], focus: str | None) -> str:
    """One measurement: a line for every arm with its dot, interval and figures.

    Args:
      estimates: arm -> estimate.
      focus: the arm that is drawn in the accent colour. The base model's value, if it is there, is
        marked by a dashed line in every row.
    """
    base = estimates["base"].value if "base" in estimates else None
    rows = []
    for arm, estimate in estimates.items():
        kind = "focus" if arm == focus else "base" if arm == "base" else "other"
        value = percent(estimate.value) + (" %" if estimate.value is not None else "")
        rows.append(
            f'<div class="row {kind}"><span class="arm">{escape(arm)}</span>'
            f'<span class="figure"><b>{value}</b> <span class="interval-text">'
            f"{interval(estimate)}</span></span>"
            f'<span class="drawing">{strip(estimate, arm, kind, base)}</span></div>'
        )
    ticks = "".join(f'<span style="left:{x}%">{x}</span>' for x in (0, 50, 100))
    axis = f'<div class="row axis" aria-hidden="true"><span class="drawing">{ticks}</span></div>'
    return f'<div class="forest">{"".join(rows)}{axis}</div>'
