"""The parts of the report page. Everything that comes from data is escaped here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from kaft_promot.evaluation import measurements, plots, statistics, words
from kaft_promot.evaluation.formatting import NOTHING, interval, p_value, percent, points
from kaft_promot.evaluation.rows import Rows
from kaft_promot.evaluation.samples import Sample
from kaft_promot.evaluation.statistics import Difference, Estimate

Estimates = Mapping[str, Mapping[str, Estimate]]

_CONTEXT_LIMIT = 420  # characters of a context that are shown

_KIND_TEXT = {
    "relevant": "The context holds the answer: read it.",
    "counterfactual": "The answer was replaced by another one: believe the context, not memory.",
    "irrelevant": "The context does not hold the answer: answer as the base does closed book.",
    "empty": "No context: answer as the base model does.",
}


@dataclass(frozen=True)
class Section:
    """A section of the page: anchor, heading, and content as HTML (already escaped)."""

    anchor: str
    title: str
    html: str


def document(
    *,
    title: str,
    headline: str,
    style: str,
    warnings: Sequence[str],
    sections: Sequence[Section],
) -> str:
    """The whole page as HTML."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    headline, warnings = tied(headline), [tied(warning) for warning in warnings]
    notes = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{s.html}</section>' for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><p class="kicker">{escape(title)}</p><h1>{escape(headline)}.</h1></header>
{notes}
<nav aria-label="Sections">{links}</nav>
<main>{body}</main>
</body>
</html>
"""


def tied(sentence: str) -> str:
    """The sentence with each unit kept on the line of its number."""
    return re.sub(
        r"(?<=\d) (?=%|points)|(?<=\bn) (?== )|(?<=\bn =) ", "\N{NO-BREAK SPACE}", sentence
    )


def warnings(examples: Mapping[str, set[str]]) -> list[str]:
    """What a reader must know before comparing: arms that were evaluated on unlike examples.

    Args:
      examples: arm -> the ids of its examples.
    """
    found = list(examples.values())
    if all(of_arm == found[0] for of_arm in found):
        return []
    each = ", ".join(f"{arm} {len(of_arm)}" for arm, of_arm in examples.items())
    common = len(set.intersection(*found))
    return [
        f"The arms were evaluated on unlike examples ({each}; {common} in common). Figures side by "
        "side are not on the same questions; the paired differences are on those that two arms "
        "have in common."
    ]


def findings(
    estimates: Estimates, to_base: Mapping[str, Mapping[str, Difference]]
) -> Section | None:
    """What changed against the base model, in sentences."""
    found = words.findings(estimates, to_base)
    if not found:
        return None
    cards = "".join(
        f'<div class="card"><h3>{escape(arm)} <small>against base</small></h3>'
        f"<ul>{''.join(f'<li>{escape(tied(sentence))}</li>' for sentence in sentences)}</ul></div>"
        for arm, sentences in found
    )
    return Section("findings", "In words", f'<div class="cards">{cards}</div>')


def figures(estimates: Estimates) -> Section:
    """A dot plot per measurement."""
    names = [m.name for m in measurements.MAIN]
    cards = figure_cards(estimates, names, words.focus_arm(estimates))
    note = (
        '<p class="note">Percent of examples (higher is better), with 95 % intervals. '
        "The dashed line marks the base model.</p>"
    )
    return Section("figures", "In pictures", f"{note}{cards}")


def figure_cards(estimates: Estimates, names: Sequence[str], focus: str | None) -> str:
    """A card with a dot plot for each of these measurements, `focus` in the accent colour."""
    cards = "".join(
        f'<figure class="card"><figcaption><h3>{escape(m.title)}</h3>'
        f"<p>on {escape(m.on)}{_count(estimates, m.name)}</p></figcaption>"
        f"{plots.forest({arm: of_arm[m.name] for arm, of_arm in estimates.items()}, focus)}"
        "</figure>"
        for m in map(measurements.by_name, names)
    )
    return f'<div class="cards figures">{cards}</div>'


def table(estimates: Estimates) -> Section:
    """The main table."""
    names = [m.name for m in measurements.MAIN]
    return Section(
        "table", "In figures", figures_table(estimates, names, words.focus_arm(estimates))
    )


def details(estimates: Estimates) -> Section | None:
    """Everything that is measured beside the main table."""
    main = {m.name for m in measurements.MAIN}
    first = next(iter(estimates.values()), {})
    names = [name for name in first if name not in main]
    if not any(of_arm[name].n for of_arm in estimates.values() for name in names):
        return None
    return Section(
        "details",
        "Conflicts and irrelevant contexts in detail",
        figures_table(estimates, names, words.focus_arm(estimates)),
    )


def differences(reference: str, to_reference: Mapping[str, Mapping[str, Difference]]) -> Section:
    """Paired differences of every other arm to one."""
    html = differences_table(reference, to_reference, [m.name for m in measurements.MAIN])
    return Section(f"to-{_anchor(reference)}", f"Paired differences to {reference}", html)


def differences_table(
    reference: str,
    to_reference: Mapping[str, Mapping[str, Difference]],
    names: Sequence[str],
) -> str:
    """The table of these measurements' paired differences to one arm, with what it shows."""
    head = "".join(f'<th scope="col">{escape(arm)}</th>' for arm in to_reference)
    lines = []
    for m in map(measurements.by_name, names):
        cells = "".join(
            f"<td>{_difference_cell(of_arm[m.name], f'{arm} against {reference}', m.better)}</td>"
            for arm, of_arm in to_reference.items()
        )
        lines.append(f'<tr><th scope="row">{escape(m.title)}</th>{cells}</tr>')
    note = (
        f'<p class="note">Percentage points above or below <b>{escape(reference)}</b> on the same '
        "examples, with 95 % interval and the p-value of a paired test (not adjusted for the "
        "number of comparisons). Coloured where the interval excludes zero and p is at most "
        f"{statistics.SIGNIFICANCE}. The plot runs from −100 to +100 points.</p>"
    )
    html = (
        f'<table class="differences"><thead><tr><th scope="col">arm minus {escape(reference)}</th>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )
    return note + scrolling(html, f"Paired differences to {reference}")


def scrolling(html: str, label: str) -> str:
    """A table that scrolls sideways on a narrow screen, also by keyboard."""
    name = escape(label, quote=True)
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{html}</div>'


def examples(chosen: Mapping[str, Sequence[Sample]]) -> Section | None:
    """Sample rows of every context kind."""
    if not chosen:
        return None
    parts = [
        '<p class="note">Chosen by a hash of the question, without a look at any output. '
        "✓ and ✗ say whether the answer is the one that the context kind asks for.</p>"
    ]
    for kind, of_kind in chosen.items():
        cards = "".join(_sample(sample) for sample in of_kind)
        parts.append(
            f'<h3 class="kind">{escape(kind.capitalize())}</h3>'
            f'<p class="note">{escape(_KIND_TEXT[kind])}</p><div class="cards">{cards}</div>'
        )
    return Section("examples", "Examples", "".join(parts))


def how_it_was_run(rows: Rows, arms: Sequence[str], seed: int) -> Section:
    """The run notes of each arm, the numbers of rows, and the statistics' settings."""
    notes = {arm: _flat(rows.notes.get(arm, {})) for arm in arms}
    for arm in arms:
        of_arm = [row for row in rows.samples if row["arm"] == arm]
        notes[arm]["examples"] = str(len(of_arm))
        notes[arm]["questions"] = str(len({row.get("question_id") for row in of_arm}))
    keys = list(dict.fromkeys(key for note in notes.values() for key in note))
    head = "".join(f'<th scope="col">{escape(arm)}</th>' for arm in arms)
    lines = []
    for key in keys:
        values = [notes[arm].get(key, NOTHING) for arm in arms]
        if len(set(values)) == 1:
            cells = f'<td class="text all" colspan="{len(arms)}">{escape(values[0])}</td>'
        else:
            cells = "".join(f'<td class="text">{escape(value)}</td>' for value in values)
        lines.append(f'<tr><th scope="row">{escape(key)}</th>{cells}</tr>')
    html = (
        f'<table class="run"><thead><tr><th scope="col"></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
    note = (
        f'<p class="note">Intervals: {statistics.REPLICATES:,} bootstrap samples, '
        f"seed {seed}. All figures on this page are computed from the sample rows alone.</p>"
    )
    return Section("run", "How it was run", scrolling(html, "How it was run") + note)


def definitions(estimates: Estimates) -> Section:
    """What each measurement means, and how intervals and tests are made."""
    names = list(next(iter(estimates.values()), {})) or [m.name for m in measurements.MAIN]
    items = []
    for name in names:
        m = measurements.by_name(name)
        aim = " Lower is better." if m.better == "lower" else ""
        items.append(
            f"<dt>{escape(m.title)} <code>{escape(name)}</code></dt>"
            f"<dd>On {escape(m.on)}. {escape(m.definition)}{aim}</dd>"
        )
    method = (
        "<h3>Intervals and tests</h3><p>Every figure is a mean over examples with a 95 % interval: "
        "the percentile bootstrap over questions (all rows of one question are drawn together), "
        "widened where needed to Agresti and Coull’s interval at the effective number of "
        "examples, so that 100 % on a few examples does not look certain. Differences are taken "
        "on the same examples; their interval is the same bootstrap, widened where needed to "
        "Agresti and Min’s. The p-value is that of the sign-flip permutation test over questions, "
        "which for one right-or-wrong answer a question is McNemar’s exact test.</p>"
    )
    return Section("definitions", "What is measured", f"<dl>{''.join(items)}</dl>{method}")


def figures_table(estimates: Estimates, names: Sequence[str], focus: str | None) -> str:
    """The table of these measurements, arms side by side, the column of `focus` tinted."""
    head = "".join(f'<th scope="col"{_focused(arm, focus)}>{escape(arm)}</th>' for arm in estimates)
    lines, group = [], None
    for m in (measurements.by_name(name) for name in names):
        if m.group != group:
            group = m.group
            lines.append(
                f'<tr class="group"><th scope="rowgroup" colspan="{len(estimates) + 1}">'
                f"<span>{escape(group)}</span></th></tr>"
            )
        cells = "".join(
            f"<td{_focused(arm, focus)}><b>{percent(of_arm[m.name].value)}</b> "
            f'<span class="interval-text">{interval(of_arm[m.name])}</span>'
            f"<small>n = {of_arm[m.name].n}</small></td>"
            for arm, of_arm in estimates.items()
        )
        lines.append(f'<tr><th scope="row">{escape(m.title)}</th>{cells}</tr>')
    html = (
        f'<table><thead><tr><th scope="col">percent [95 % interval]</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
    return scrolling(html, "Table of figures")


def _difference_cell(difference: Difference, label: str, better: str) -> str:
    if difference.value is None:
        return f"{NOTHING}<small>n = 0</small>"
    good = (difference.value > 0) != (better == "lower")
    tone = ("up" if good else "down") if difference.measurable else "same"
    return (
        f'<span class="{tone}"><b>{points(difference.value)}</b></span> '
        f'<span class="interval-text">{interval(difference)}</span>'
        f"{plots.strip(difference, label, tone)}"
        f"<small>{p_value(difference.p_value)}, n = {difference.n}</small>"
    )


def _sample(sample: Sample) -> str:
    row = sample.row
    context = row.get("context")
    if context:
        answers = row.get("contextual_answers") or []
        shown = f"<blockquote>{_marked(_excerpt(context, answers), answers)}</blockquote>"
    else:
        shown = '<blockquote class="none">no context</blockquote>'
    if sample.kind == "irrelevant" and row.get("irrelevant_kind"):
        shown += f'<p class="fact">kind: {escape(str(row["irrelevant_kind"]))}</p>'
    outputs = "".join(
        f'<tr class="{"right" if sample.right[arm] else "wrong"}"><th scope="row">{escape(arm)}'
        f"</th><td>{verdict(sample.right[arm])} {output(of_arm['prediction'])}</td></tr>"
        for arm, of_arm in sample.rows.items()
    )
    gold = ", ".join(dict.fromkeys(row.get("gold_answers") or [])) or "none"
    return (
        f'<article class="card"><h4>{escape(row["question"])}</h4>{shown}'
        f'<p class="fact">target: <b>{escape(row["target"])}</b></p>'
        f'<p class="fact">base, closed book: {escape(str(row.get("parametric_answer") or NOTHING))}'
        f" · gold: {escape(gold if len(gold) <= 120 else gold[:117] + '...')}</p>"
        f'<table class="outputs"><tbody>{outputs}</tbody></table></article>'
    )


def output(prediction: str) -> str:
    """What a model wrote, escaped."""
    return escape(prediction) or "<i>(nothing)</i>"


def verdict(right: bool) -> str:
    """✓ or ✗, with its alternative text."""
    mark, text = ("✓", "right") if right else ("✗", "wrong")
    return f'<span class="verdict" role="img" aria-label="{text}">{mark}</span>'


def _excerpt(context: str, answers: Sequence[str]) -> str:
    """The context, or the part of a long one around the first mention of an answer."""
    if len(context) <= _CONTEXT_LIMIT:
        return context
    mention = re.search(_mention(answers), context, re.IGNORECASE) if answers else None
    start = max(0, mention.start() - _CONTEXT_LIMIT // 2) if mention else 0
    start = min(start, len(context) - _CONTEXT_LIMIT)
    end = start + _CONTEXT_LIMIT
    if start:
        start = context.find(" ", start) + 1
    if end < len(context):
        end = max(context.rfind(" ", start, end), mention.end() if mention else start + 1)
    return ("… " if start else "") + context[start:end] + (" …" if end < len(context) else "")


def _mention(answers: Sequence[str]) -> str:
    """A pattern that finds any of the answers as written; for showing, never for measuring."""
    longest_first = sorted(filter(None, answers), key=len, reverse=True)
    return rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)"


def _marked(text: str, answers: Sequence[str]) -> str:
    """The escaped text with its mentions of the answers marked."""
    if not any(answers):
        return escape(text)
    pieces = re.split(_mention(answers), text, flags=re.IGNORECASE)
    return "".join(
        f"<mark>{escape(piece)}</mark>" if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    )


def _count(estimates: Estimates, name: str) -> str:
    counts = list(dict.fromkeys(of_arm[name].n for of_arm in estimates.values()))
    return tied(f", n = {' / '.join(map(str, counts))}") if counts else ""


def _focused(arm: str, focus: str | None) -> str:
    return ' class="focus"' if arm == focus else ""


def _flat(note: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in note.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name} "))
        else:
            flat[prefix + name] = str(value) or NOTHING
    return flat


def _anchor(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)
