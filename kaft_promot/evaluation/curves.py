"""Scores over training steps as inline SVG.

As in `plots`: positions are percentages of the drawing's size and text is HTML beside it, so that a
plot fits a phone as well as a wide screen; colours come from the page's style. Arms differ in
colour and in the shape of their marks, whiskers are the intervals, and arms stand a few pixels
apart so that whiskers at the same step do not cover each other. Every drawing carries its figures
as alternative text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from kaft_promot.evaluation.formatting import percent, spoken
from kaft_promot.evaluation.statistics import Estimate

# Marks of about equal area, centred on 0.
_SHAPES = (
    '<circle r="4.5"/>',
    '<rect x="-4" y="-4" width="8" height="8"/>',
    '<path d="M0 -6L6 0L0 6L-6 0Z"/>',
    '<path d="M0 -5.5L5.5 4.5H-5.5Z"/>',
)
COLOURS = 7  # of the page's style: --series-0 to --series-6
_HEIGHT = 200  # pixels
_APART = 5  # pixels between arms at the same step

Series = Mapping[int, Estimate]  # step -> estimate


def styles_of(arms: Sequence[str], focus: str | None) -> dict[str, int]:
    """The number of each arm's colour and shape, the same in every plot; 0 is the focus arm's."""
    ordered = sorted(arms, key=lambda arm: arm != focus)  # stable
    return {arm: number for number, arm in enumerate(ordered, start=focus not in arms)}


def legend(styles: Mapping[str, int], base: bool) -> str:
    """Which mark is which arm's; `base` if a dashed line stands for the base model."""
    entries = [
        f'<li><svg class="series {_class(number)}" width="28" height="14" aria-hidden="true">'
        f'<line x1="0" x2="28" y1="7" y2="7"/>{_mark("50%", "50%", number)}</svg>'
        f"{escape(arm)}</li>"
        for arm, number in styles.items()
    ]
    if base:
        entries.append(
            '<li><svg class="series" width="28" height="14" aria-hidden="true">'
            '<line class="mark" x1="0" x2="28" y1="7" y2="7"/></svg>base</li>'
        )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def plot(
    series: Mapping[str, Series],
    styles: Mapping[str, int],
    title: str,
    base: Estimate | None = None,
) -> str:
    """One figure over steps, on 0 to 100 %, a line for every arm.

    Args:
      series: arm -> step -> estimate; points without a value are left out.
      styles: from `styles_of`.
      title: what the figure is called, for the alternative text.
      base: the base model's figure, drawn as a dashed line.
    """
    found = {}
    for arm, of_arm in series.items():
        measured = {step: of_arm[step] for step in sorted(of_arm) if of_arm[step].value is not None}
        if measured:
            found[arm] = measured
    last = max((step for of_arm in found.values() for step in of_arm), default=0) or 1
    parts = [
        f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>' for y in (0, 25, 50, 75, 100)
    ]
    if base is not None and base.value is not None:
        y = _up(base.value)
        parts.append(f'<line class="mark" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    for place, (arm, of_arm) in enumerate(found.items()):
        aside = _APART * (place - (len(found) - 1) / 2)
        parts.append(_line(arm, of_arm, last, styles[arm], aside))
    said = [f"base: {spoken(base)}"] if base is not None else []
    said += [
        f"{arm}: " + "; ".join(f"step {step} {spoken(e)}" for step, e in of_arm.items())
        for arm, of_arm in found.items()
    ]
    label = escape(f"{title} over training steps. {'. '.join(said)}", quote=True)
    drawing = (
        f'<svg role="img" aria-label="{label}" width="100%" height="{_HEIGHT}">'
        f"{''.join(parts)}</svg>"
    )
    vertical = "".join(f'<span style="top:{100 - y}%">{y}</span>' for y in (0, 25, 50, 75, 100))
    horizontal = "".join(
        f'<span style="left:{100 * step / last:.2f}%">{step}</span>'
        for step in sorted({0, last // 2, last})
    )
    return (
        f'<div class="curve"><div class="vertical" aria-hidden="true">{vertical}</div>'
        f'<div class="plot">{drawing}</div>'
        f'<div class="horizontal" aria-hidden="true">{horizontal}</div></div>'
    )


def _line(arm: str, series: Series, last: int, number: int, aside: float) -> str:
    at = {step: f"{100 * step / last:.2f}%" for step in series}
    parts = []
    for (step, here), (next_step, there) in pairwise(series.items()):
        parts.append(
            f'<line x1="{at[step]}" x2="{at[next_step]}" y1="{_up(here.value)}" '
            f'y2="{_up(there.value)}"/>'
        )
    for step, estimate in series.items():
        parts.append(
            f'<line class="whisker" x1="{at[step]}" x2="{at[step]}" y1="{_up(estimate.low)}" '
            f'y2="{_up(estimate.high)}"/>'
        )
    for step, estimate in series.items():
        parts.append(
            f"<g><title>{escape(f'{arm}, step {step}: {percent(estimate.value)} %')}</title>"
            f"{_mark(at[step], _up(estimate.value), number)}</g>"
        )
    shift = f' transform="translate({aside:g} 0)"' if aside else ""
    return f'<g class="series {_class(number)}"{shift}>{"".join(parts)}</g>'


def _mark(x: str, y: str, number: int) -> str:
    """A mark at percentages, which only an inner drawing can be placed at."""
    shape = _SHAPES[number % len(_SHAPES)]
    return f'<svg class="dot" x="{x}" y="{y}" overflow="visible">{shape}</svg>'


def _class(number: int) -> str:
    return f"series-{number % COLOURS}"


def _up(fraction: float | None) -> str:
    assert fraction is not None  # points without a value were left out
    return f"{100 * (1 - fraction):.2f}%"
