"""Figures as text: the same rounding in the table, the page and the headline."""

from __future__ import annotations

from kaft_promot.evaluation.seeds import Change
from kaft_promot.evaluation.statistics import Difference, Estimate

NOTHING = "–"
_MINUS = "\N{MINUS SIGN}"


def percent(fraction: float | None) -> str:
    """
    >>> percent(0.98765), percent(None)
    ('98.8', '–')
    """
    return NOTHING if fraction is None else f"{100 * fraction:.1f}"


def points(fraction: float | None) -> str:
    """A difference in percentage points, always with its sign.

    >>> points(0.031), points(-0.5), points(-0.0001)
    ('+3.1', '−50.0', '0.0')
    """
    if fraction is None:
        return NOTHING
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", _MINUS)


def interval(estimate: Estimate) -> str:
    """`[93.1, 98.0]`, in percent; signed for a difference; empty where nothing was measured."""
    if estimate.low is None:
        return ""
    show = points if isinstance(estimate, Difference) else percent
    return f"[{show(estimate.low)}, {show(estimate.high)}]"


def change(found: Change) -> str:
    """Mean over seeds in percentage points, with its interval: `+3.1 [−0.2, +6.4]`.

    Without an interval where it has none.
    """
    ends = "" if found.low is None else f" [{points(found.low)}, {points(found.high)}]"
    return points(found.value) + ends


def p_value(value: float | None) -> str:
    """
    >>> p_value(0.00004), p_value(0.0312), p_value(1.0), p_value(None)
    ('p < 0.001', 'p = 0.031', 'p = 1', '–')
    """
    if value is None:
        return NOTHING
    if value < 0.001:
        return "p < 0.001"
    return "p = 1" if value > 0.9995 else f"p = {value:.3f}"


def spoken(estimate: Estimate) -> str:
    """For alternative texts: `96.0 percent (95 % interval 93.1 to 98.0, n = 300)`."""
    if estimate.value is None:
        return f"not measured (n = {estimate.n})"
    difference = isinstance(estimate, Difference)
    show, unit = (points, "points") if difference else (percent, "percent")
    ends = f"95 % interval {show(estimate.low)} to {show(estimate.high)}, n = {estimate.n}"
    return f"{show(estimate.value)} {unit} ({ends})"
