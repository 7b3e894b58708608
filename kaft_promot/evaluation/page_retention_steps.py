"""The report page's section on retention over training steps."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from kaft_promot.evaluation import curves, measurements
from kaft_promot.evaluation.page import Section
from kaft_promot.evaluation.retention import OTHER, SHARE, TARGET
from kaft_promot.evaluation.retention_steps import Curve
from kaft_promot.evaluation.retention_words import focus_arm


def section(found: Mapping[str, Curve]) -> Section:
    """Target score, in-context score and output share of every arm over steps.

    Args:
      found: from `retention_steps.curves`.
    """
    base = found.get("base", {})
    at_base = base[min(base)] if base else {}
    arms = [arm for arm in found if arm != "base"]
    styles = curves.styles_of(arms, focus_arm({arm: found[arm][max(found[arm])] for arm in arms}))
    plots = []
    for m in (measurements.by_name(name) for name in (TARGET, OTHER, SHARE)):
        series = {
            arm: {step: of_step[m.name] for step, of_step in found[arm].items()} for arm in arms
        }
        drawing = curves.plot(series, styles, m.title, at_base.get(m.name))
        aim = "lower is better" if m.better == "lower" else "higher is better"
        plots.append(
            f'<figure class="card"><figcaption><h3>{escape(m.title)}</h3>'
            f"<p>percent over training steps; {aim}</p></figcaption>{drawing}</figure>"
        )
    note = (
        '<p class="note">On validation, whatever the figures above are of. Each point stands on '
        f"{_sizes(found, TARGET)} examples of the target task and {_sizes(found, OTHER)} of "
        "in-context tasks of other formats. Whiskers are 95 % intervals; arms at the same step "
        "stand a little apart.</p>"
    )
    html = f'{note}{curves.legend(styles, bool(base))}<div class="cards">{"".join(plots)}</div>'
    return Section("retention-curves", "Over the training steps", html)


def _sizes(found: Mapping[str, Curve], name: str) -> str:
    """The number of examples of a figure's points, or the range where points differ."""
    counts = {of_step[name].n for of_arm in found.values() for of_step in of_arm.values()}
    return " to ".join(str(n) for n in dict.fromkeys((min(counts), max(counts))))
