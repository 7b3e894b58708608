"""The report page's sections on retention: figures, curves, tasks, examples, seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from kaft_promot.evaluation import (
    measurements,
    page,
    page_retention_examples,
    page_retention_matched,
    page_retention_steps,
    page_retention_tasks,
    page_seeds,
)
from kaft_promot.evaluation.formatting import percent
from kaft_promot.evaluation.page import Section
from kaft_promot.evaluation.retention import (
    IN_CONTEXT_SUITE,
    NAMES,
    REFERENCES,
    TARGET,
    TARGET_SUITE,
    Estimates,
    Scores,
    differences,
)
from kaft_promot.evaluation.retention_matched import Matched
from kaft_promot.evaluation.retention_seeds import claims_of_seeds, over_seeds
from kaft_promot.evaluation.retention_steps import Curve
from kaft_promot.evaluation.retention_words import focus_arm, headline
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.seeds import by_seed
from kaft_promot.evaluation.statistics import Difference

_SUITES = (TARGET_SUITE, IN_CONTEXT_SUITE)


def sections(
    rows: Sequence[Row],
    tables: Mapping[int, Scores],
    curves: Mapping[str, Curve],
    matched: Mapping[str, Matched],
    target: str,
    seed: int = 0,
) -> list[Section]:
    """Everything that the page shows about retention.

    Args:
      rows: sample rows of `base` and the arms, of every seed.
      tables: of the same rows, from `retention_seeds.tables_of`. With several seeds the figures are
        those of the first one, and a section shows how they spread.
      curves: from `retention_steps.curves`; empty for none.
      matched: from `retention_matched.matched`; empty for none.
      target: name of the target task, which has a registered format.
      seed: of the bootstrap.

    Returns:
      The sections in the order of the page; empty without tables.
    """
    if not tables:
        return []
    first, table = next(iter(tables.items()))
    estimates = {arm: table.estimates(arm, seed) for arm in table.arms}
    found = [_figures(table, estimates, seed)]
    if curves:
        found.append(page_retention_steps.section(curves))
    if matched:
        found.append(page_retention_matched.section(matched))
    if table.tasks:
        found.append(page_retention_tasks.section(table, seed))
    shown = [row for row in by_seed(rows)[first] if row.get("suite") in _SUITES]
    found.append(page_retention_examples.section(shown, table, target))
    if len(tables) > 1:
        found.append(_seeds(tables, seed))
    found.append(_definitions(table))
    return found


def _figures(table: Scores, estimates: Estimates, seed: int) -> Section:
    focus = focus_arm(estimates)
    parts = [f'<p class="said">{escape(page.tied(headline(estimates, table.graded(TARGET))))}.</p>']
    parts += [f'<p class="warning">{escape(text)}</p>' for text in _warnings(estimates)]
    parts.append(
        '<p class="note">Percent with 95 % intervals; the dashed line marks the base model. Soft '
        "prompts are attached on the target task only.</p>"
    )
    shown = [name for name in NAMES if any(of_arm[name].n for of_arm in estimates.values())]
    parts.append(page.figure_cards(estimates, shown, focus))
    parts.append(page.figures_table(estimates, shown, focus))
    for reference in REFERENCES:
        if reference in estimates and len(estimates) > 1:
            to_reference = differences(table, reference, seed, shown)
            parts.append(f"<h3>Paired differences to {escape(reference)}</h3>")
            if reference != "base":
                parts.append(_at_worst(reference, to_reference))
            parts.append(page.differences_table(reference, to_reference, shown))
    return Section("retention", "What else can it still do?", "".join(parts))


def _at_worst(reference: str, to_reference: Mapping[str, Mapping[str, Difference]]) -> str:
    """How much worse than the reference each arm may be, read off its interval."""
    said = []
    for arm, of_arm in to_reference.items():
        low = of_arm[TARGET].low if TARGET in of_arm else None
        if arm != "base" and low is not None:
            worst = "not below" if low >= 0 else f"at most {percent(-low)} points below"
            said.append(f"{arm} {worst}")
    if not said:
        return ""
    text = f"On the target task, by the lower ends of the intervals against {reference}: "
    return f'<p class="note">{escape(page.tied(text + ", ".join(said)))}.</p>'


def _warnings(estimates: Estimates) -> list[str]:
    """Figures that stand on unlike numbers of examples must not be compared side by side."""
    unlike = []
    for name in NAMES:
        counts = {arm: of_arm[name].n for arm, of_arm in estimates.items()}
        if len(set(counts.values())) > 1:
            each = ", ".join(f"{arm} {n}" for arm, n in counts.items())
            unlike.append(f"{measurements.by_name(name).title}: {each}")
    if not unlike:
        return []
    return [
        f"The arms were evaluated on unlike numbers of examples ({'; '.join(unlike)}). Figures "
        "side by side are not on the same examples; the paired differences are."
    ]


def _seeds(tables: Mapping[int, Scores], seed: int) -> Section:
    return page_seeds.section(
        "retention-seeds",
        f"What it can still do, over {len(tables)} seeds",
        over_seeds(tables),
        page_seeds.claims(claims_of_seeds(tables, seed)),
    )


def _definitions(table: Scores) -> Section:
    items = "".join(
        f"<dt>{escape(m.title)} <code>{escape(m.name)}</code></dt>"
        f"<dd>On {escape(m.on)}. {escape(m.definition)}"
        f"{' Lower is better.' if m.better == 'lower' else ''}{graded}</dd>"
        for m in measurements.RETENTION
        for score in [table.graded(m.name)]
        for graded in [f" Here scored by {escape(score)}, mean over examples." if score else ""]
    )
    method = (
        '<p class="note">A task shares the target task\'s format if all of its targets are in it. '
        "In a mean over tasks every task counts the same however many examples it has; its "
        "interval is the percentile bootstrap over questions within tasks (tasks are fixed, a "
        "question that several tasks ask is drawn for all of them), widened where needed as the "
        "other intervals are, and its paired test flips signs by question.</p>"
    )
    return Section("retention-definitions", "What retention means", f"<dl>{items}</dl>{method}")
