"""What a comparison of ProMoT's arms shows: table, results.json and report page, from its rows."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import gin

from kaft_promot.evaluation import (
    grounding as grounding_lib,
)
from kaft_promot.evaluation import (
    page_retention,
    page_seeds,
    retention,
    retention_matched,
    retention_seeds,
    retention_steps,
    retention_words,
    words,
)
from kaft_promot.evaluation.page import Section
from kaft_promot.evaluation.report import Results, build, write_html, write_results
from kaft_promot.evaluation.seeds import OverSeeds
from kaft_promot.evaluation.table import render, render_changes, render_matched
from kaft_promot.promot.experiment import run
from kaft_promot.promot.measured import ROWS, Measured, read_whole
from kaft_promot.promot.settings import Promot

PROMOT = "promot"  # the comparison's folder in the quickstart's
TITLE = "Does the model keep what it could do?"
TITLES = "Does the model follow its context, and keep what it could do?"


@dataclasses.dataclass(frozen=True)
class Figures:
    """A comparison's figures.

    Attributes:
      sections: of the report page.
      results: further top-level keys of results.json.
      details: further top-level keys of details.json, everything else that the sections show.
      table: for the terminal.
      headline: the figures in one sentence.
    """

    sections: list[Section]
    results: dict[str, Any]
    details: dict[str, Any]
    table: str
    headline: str


@gin.configurable
def compare(settings: Promot, model_dir: str) -> str:
    """Runs a comparison and writes `report.html` and `results.json` into its folder.

    Args:
      settings: of the comparison.
      model_dir: made if it does not exist; a comparison that was stopped there is continued.

    Returns:
      The figures as a table, and the report's path.

    Raises:
      UserError: as `experiment.run`.
    """
    folder = pathlib.Path(model_dir)
    run(folder, settings)
    measured = {seed: Measured.read(folder, settings, seed) for seed in settings.seeds}
    figures = figures_of(measured, settings)
    grounded = {
        seed: [row for row in of_seed.rows if row["suite"] == "grounding"]
        for seed, of_seed in measured.items()
    }
    first = build(grounded[settings.seeds[0]])
    tables = [render(first.estimates)] if first.estimates else []
    if first.estimates and len(grounded) > 1:
        over = OverSeeds.of(
            grounding_lib.MAIN_NAMES,
            {seed: grounding_lib.Scores(rows) for seed, rows in grounded.items()},
            grounding_lib.differences,
            retention.REFERENCES,
        )
        title = f"Following its context, over {len(grounded)} seeds"
        figures = dataclasses.replace(
            figures,
            sections=[page_seeds.section("grounding-seeds", title, over), *figures.sections],
            results=figures.results | {"arms_seeds": over.to_json()},
            details=figures.details | {"arms_seeds": over.to_json()},
        )
        tables += [render_changes(over, reference) for reference in over.differences]
    report = _write(folder, first, figures)
    return "\n\n".join([*tables, figures.table, str(report)])


def figures_of(measured: Mapping[int, Measured], settings: Promot) -> Figures:
    """The figures of a comparison that has run.

    The first seed's stand in the table and under `promot` in the results; with several seeds
    `promot_seeds` tells each one's, how arms differ over all of them, and for how many what ProMoT
    promises holds. `promot_matched_target_score` tells the same of every arm where it is as good at
    the target task as plain fine-tuning. The details add paired differences and in-context tasks
    one by one.

    Args:
      measured: seed -> what it has measured, in the order of `settings.seeds`.
      settings: of the comparison.

    Raises:
      UserError: the rows are not of this target.
    """
    from kaft_promot.feeding.seqio_door import get_mixture_or_task  # imports TensorFlow

    get_mixture_or_task(settings.target, settings.module)  # registers the target's format
    rows = [row for of_seed in measured.values() for row in of_seed.rows]
    first = settings.seeds[0]
    by_seed = retention_seeds.tables_of(rows, settings.target)
    tables = {seed: by_seed[seed] for seed in settings.seeds}
    of_seed = {
        seed: {arm: table.estimates(arm) for arm in table.arms} for seed, table in tables.items()
    }
    results = retention.results_json(of_seed[first])
    curves = retention_steps.curves(measured[first].curve_rows, settings.target)
    results["promot_curves"] = {
        arm: {
            str(step): {name: estimate.to_json() for name, estimate in point.items()}
            for step, point in curve.items()
        }
        for arm, curve in curves.items()
    }
    matched = retention_matched.matched(
        {seed: [*found.rows, *found.matched_rows] for seed, found in measured.items()},
        {seed: found.curve_rows for seed, found in measured.items()},
        {seed: found.steps.pairs for seed, found in measured.items()},
        settings.target,
    )
    results["promot_matched_target_score"] = {
        arm: found.to_json() for arm, found in matched.items()
    }
    shown = [
        name for name in retention.NAMES if any(found[name].n for found in of_seed[first].values())
    ]
    changes = [render_matched(matched)] if matched else []
    if len(settings.seeds) > 1:
        over = retention_seeds.over_seeds(tables)
        claims = retention_seeds.claims_json(retention_seeds.claims_of_seeds(tables))
        results["promot_seeds"] = over.to_json() | {"claims": claims}
        changes += [render_changes(over, reference) for reference in over.differences]
    details = results | {"promot": retention.details_json(tables[first])}
    return Figures(
        sections=page_retention.sections(rows, tables, curves, matched, settings.target),
        results=results,
        details=details,
        table="\n\n".join([render(of_seed[first], shown), *changes]),
        headline=retention_words.headline(of_seed[first], tables[first].graded(retention.TARGET)),
    )


def write_both(folder: pathlib.Path, settings: Promot, seed: int) -> pathlib.Path:
    """The quickstart's report and results.json: whichever of its halves have run.

    Prints their tables; returns the report's path.
    """
    grounding = build(folder / ROWS, seed) if (folder / ROWS).is_file() else build([], seed)
    if grounding.estimates:
        print(render(grounding.estimates), end="\n\n")
    figures = None
    measured = read_whole(folder / PROMOT, settings)
    if not isinstance(measured, str):
        figures = figures_of(measured, settings)
        print(figures.table)
    elif (folder / PROMOT).exists():
        print(f"what the model keeps is left out: {measured}")
    return _write(folder, grounding, figures)


def _write(folder: pathlib.Path, grounding: Results, figures: Figures | None) -> pathlib.Path:
    """Grounding's figures, retention's, or both, as one page and one results.json."""
    report = folder / "report.html"
    title = TITLE if not grounding.estimates else TITLES
    headlines = [words.headline(grounding.estimates)] if grounding.estimates else []
    headlines += [figures.headline] if figures else []
    write_html(
        grounding,
        report,
        title=title if figures else "Does the model follow its context?",
        headline=". ".join(headlines),
        sections=figures.sections if figures else (),
    )
    write_results(
        grounding,
        folder,
        details=figures.details if figures else None,
        **(figures.results if figures else {}),
    )
    return report
