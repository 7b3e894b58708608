"""The figures as a table for the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from kaft_promot.evaluation import measurements
from kaft_promot.evaluation.formatting import change, interval, percent, points
from kaft_promot.evaluation.retention import NAMES, Scores
from kaft_promot.evaluation.retention_matched import REFERENCE, Matched
from kaft_promot.evaluation.seeds import OverSeeds
from kaft_promot.evaluation.statistics import Estimate


def render(
    estimates: Mapping[str, Mapping[str, Estimate]],
    names: Sequence[str] | None = None,
    width: int | None = None,
) -> str:
    """Arms side by side, one line a measurement: `percent [95 % interval]`, and n.

    Args:
      estimates: arm -> measurement -> estimate.
      names: measurements to show, in this order (None: the eight of results.json).
      width: columns of the terminal (None: ask it). Where the arms do not fit side by side, each
        measurement gets a block with one line an arm.
    """
    shown = [measurements.by_name(name) for name in names or [m.name for m in measurements.MAIN]]
    if not estimates:
        return "no arm was evaluated"
    width = width or shutil.get_terminal_size((120, 24)).columns
    head = ["percent [95 % interval]", *estimates, "n"]
    body = [
        [m.title, *(_cell(of_arm[m.name]) for of_arm in estimates.values()), _n(estimates, m.name)]
        for m in shown
    ]
    blocks = [
        [
            [f"  {arm}", _cell(of_arm[m.name]), f"n = {of_arm[m.name].n}"]
            for arm, of_arm in estimates.items()
        ]
        for m in shown
    ]
    return _fitted([head, *body], blocks, [m.group for m in shown], width)


def render_changes(over: OverSeeds, reference: str, width: int | None = None) -> str:
    """How arms differ from `reference` over seeds: `mean [95 % interval over seeds]`, in points.

    Args:
      over: the figures.
      reference: an arm that has differences.
      width: as for `render`.
    """
    changes = over.changes(reference)
    shown = [measurements.by_name(name) for name in over.measured()]
    width = width or shutil.get_terminal_size((120, 24)).columns
    title = f"minus {reference} over {len(over.figures)} seeds [95 % over seeds]"

    def cell(arm: str, name: str) -> str:
        found = changes[arm][name]
        fewer = f" ({found.seeds} of them)" if 0 < found.seeds < len(over.figures) else ""
        return change(found) + fewer

    body = [[m.title, *(cell(arm, m.name) for arm in changes)] for m in shown]
    blocks = [[[f"  {arm}", cell(arm, m.name)] for arm in changes] for m in shown]
    return _fitted([[title, *changes], *body], blocks, [m.group for m in shown], width)


def render_matched(matched: Mapping[str, Matched], width: int | None = None) -> str:
    """Arms beside plain fine-tuning at matched target score: `arm / finetune`, and the difference.

    Args:
      matched: from `retention_matched.matched`.
      width: as for `render`.
    """
    width = width or shutil.get_terminal_size((120, 24)).columns
    shown = [measurements.by_name(name) for name in NAMES]
    several = any(len(found.tables) > 1 for found in matched.values())
    columns = {
        f"{found.arm}, seed {seed}" if several else found.arm: (found, seed, table)
        for found in matched.values()
        for seed, table in found.tables.items()
    }

    def cell(found: Matched, table: Scores, name: str) -> str:
        there, reference = (table.estimate(arm, name).value for arm in (found.arm, REFERENCE))
        both = f"{percent(there)} / {percent(reference)}"
        difference = table.difference(found.arm, REFERENCE, name)
        return f"{both}, {points(difference.value)} {interval(difference)}".strip(", ")

    pairs = [(found, found.pairs[seed]) for found, seed, _ in columns.values()]
    head = [f"arm / {REFERENCE} at matched target score", *columns]
    steps = ["steps", *(f"{p.steps[f.arm]} / {p.steps[REFERENCE]}" for f, p in pairs)]
    scores = [
        "Target task on validation",
        *(
            f"{percent(pair.scores[found.arm])} / {percent(pair.scores[REFERENCE])}"
            + ("" if seed in found.matched else ", not matched")
            for (found, pair), (_, seed, _) in zip(pairs, columns.values(), strict=True)
        ),
    ]
    body = [[m.title, *(cell(f, t, m.name) for f, _, t in columns.values())] for m in shown]
    blocks = [
        [[f"  {c}", text] for c, text in zip(columns, line[1:], strict=True)]
        for line in [steps, scores, *body]
    ]
    groups = ["", "", *(m.group for m in shown)]
    return _fitted([head, steps, scores, *body], blocks, groups, width)


def _fitted(
    cells: Sequence[Sequence[str]],
    blocks: Sequence[Sequence[Sequence[str]]],
    groups: Sequence[str],
    width: int,
) -> str:
    """The table of `cells` (a head, then lines in groups) where it fits, else a block a line."""
    lines = _aligned(cells)
    longest = max(map(len, lines))
    if longest <= width:
        return "\n".join([lines[0], "-" * longest, *_grouped(lines[1:], groups)])
    titles = [line[0] for line in cells]
    texts = ["\n".join([title, *_aligned(b)]) for title, b in zip(titles[1:], blocks, strict=True)]
    return "\n\n".join([titles[0], *texts])


def _cell(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} {interval(estimate)}".strip()


def _n(estimates: Mapping[str, Mapping[str, Estimate]], name: str) -> str:
    """The number of examples, or one for each arm where they differ."""
    counts = [of_arm[name].n for of_arm in estimates.values()]
    return str(counts[0]) if len(set(counts)) == 1 else "/".join(map(str, counts))


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return lines


def _grouped(lines: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The lines with an empty one between groups."""
    out: list[str] = []
    for index, line in enumerate(lines):
        if index and groups[index] != groups[index - 1]:
            out.append("")
        out.append(line)
    return out
