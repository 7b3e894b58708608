"""The report page: one HTML file that stands alone and is computed from sample rows alone.

    rows = read_rows("runs/quickstart/rows.jsonl")
    write_report(rows, "runs/quickstart/report.html")

The page loads nothing from anywhere, runs no script, and follows the reader's light or dark mode.
`build` computes, `write_html` writes; a run's verb usually calls `write_report`.
"""

from __future__ import annotations

import importlib.resources
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaft_promot.evaluation import grounding, page, samples, words
from kaft_promot.evaluation.results import details_json, results_json, write_json, write_whole
from kaft_promot.evaluation.rows import Row, Rows, read_rows
from kaft_promot.evaluation.statistics import Difference, Estimate


@dataclass(frozen=True)
class Results:
    """All figures of a report.

    Attributes:
      estimates: arm -> measurement -> estimate.
      differences: reference arm -> arm -> measurement -> paired difference.
      rows: what they were computed from.
      examples: arm -> the ids of its examples.
      seed: of the bootstrap.
    """

    estimates: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, dict[str, Difference]]]
    rows: Rows
    examples: dict[str, set[str]]
    seed: int = 0

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before comparing arms."""
        return page.warnings(self.examples)


Source = Rows | Sequence[Row] | str | os.PathLike[str]


def build(source: Source, seed: int = 0) -> Results:
    """Computes every figure.

    Args:
      source: rows, or a path that `read_rows` takes: a run's folder, a rows file, a folder of them.
      seed: of the bootstrap; the same rows and seed give the same report.
    """
    if isinstance(source, (str, os.PathLike)):
        rows = read_rows(source)
    else:
        rows = source if isinstance(source, Rows) else Rows(samples=list(source))
    table = grounding.Scores(rows.samples)
    estimates = {arm: table.estimates(arm, seed) for arm in table.arms}
    differences = {
        reference: grounding.differences(table, reference, seed)
        for reference in table.arms
        if len(table.arms) > 1
    }
    return Results(estimates, differences, rows, table.examples, seed)


def write_report(
    source: Source,
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    title: str = "Does the model follow its context?",
    sections: Sequence[page.Section] = (),
) -> Results:
    """Computes every figure from the rows and writes the page.

    Args:
      source, seed: as for `build`.
      path: of the page, for example `runs/quickstart/report.html`.
      title: above the headline.
      sections: further sections, shown after those on grounding.
    """
    results = build(source, seed)
    write_html(results, path, title=title, sections=sections)
    return results


def write_results(
    results: Results,
    folder: str | os.PathLike[str],
    *,
    details: Mapping[str, object] | None = None,
    **more: object,
) -> None:
    """Writes `results.json` (the eight figures of each arm) and `details.json` (all figures).

    Args:
      results: from `build` or `write_report`.
      folder: of the run.
      details: further top-level keys of details.json beside `arms` and `differences`.
      **more: further top-level keys of results.json beside `arms`.
    """
    folder = pathlib.Path(folder)
    write_json(results_json(results.estimates, **more), folder / "results.json")
    of_grounding = details_json(results.estimates, results.differences)
    write_json({**of_grounding, **(details or {})}, folder / "details.json")


def write_html(
    results: Results,
    path: str | os.PathLike[str],
    *,
    title: str = "Does the model follow its context?",
    headline: str | None = None,
    sections: Sequence[page.Section] = (),
) -> None:
    """Writes the page of figures that are computed already; arguments as for `write_report`.

    Results without an arm give a page of `sections` alone. `headline` is one sentence, without its
    full stop; None for one about grounding.
    """
    # The page shows differences to the base and to the arm that it is about; details.json has all.
    shown = dict.fromkeys(("base", words.focus_arm(results.estimates)))
    to_shown = {arm: results.differences[arm] for arm in shown if arm in results.differences}
    style = importlib.resources.files("kaft_promot").joinpath("assets/report/report.css")
    grounding = [
        page.findings(results.estimates, results.differences.get("base", {})),
        page.figures(results.estimates),
        page.table(results.estimates),
        *(page.differences(name, table) for name, table in to_shown.items()),
        page.details(results.estimates),
    ]
    run = [
        page.examples(samples.choose(results.rows.samples)),
        page.how_it_was_run(results.rows, list(results.estimates), results.seed),
        page.definitions(results.estimates),
    ]
    content = [*grounding, *sections, *run] if results.estimates else sections
    text = page.document(
        title=title,
        headline=headline or words.headline(results.estimates),
        style=style.read_text(encoding="utf-8"),
        warnings=results.warnings,
        sections=[section for section in content if section is not None],
    )
    write_whole(text, path)
