"""results.json: the figures for programs."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.evaluation import measurements
from kaft_promot.evaluation.statistics import Estimate

Estimates = Mapping[str, Mapping[str, Estimate]]


def results_json(estimates: Estimates, **sections: Any) -> dict[str, Any]:
    """The content of results.json.

    Args:
      estimates: arm -> measurement -> estimate, from `grounding.measure`.
      **sections: further top-level keys beside `arms`.

    Returns:
      `{"arms": {ARM: {MEASUREMENT: {"value", "low", "high", "n"}}}}` with the eight measurements of
      `measurements.MAIN`, as fractions; value, low and high are null where n is 0.
    """
    names = [m.name for m in measurements.MAIN]
    arms = {
        arm: {name: of_arm[name].to_json() for name in names} for arm, of_arm in estimates.items()
    }
    return {"arms": arms, **sections}


def details_json(estimates: Estimates, differences: Mapping[str, Estimates]) -> dict[str, Any]:
    """Everything that the report page shows about grounding, as data.

    Returns:
      `{"arms": {ARM: {NAME: figure}}, "differences": {REFERENCE: {ARM: {NAME: figure}}}}` with all
      measurements; a difference has `p_value`, `wins` and `losses` too.
    """

    def plain(table: Estimates) -> dict[str, Any]:
        return {
            arm: {name: estimate.to_json() for name, estimate in of_arm.items()}
            for arm, of_arm in table.items()
        }

    return {
        "arms": plain(estimates),
        "differences": {reference: plain(table) for reference, table in differences.items()},
    }


def earlier(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What earlier calls wrote into a folder's results.json; empty where there is none.

    Raises:
      UserError: it holds no JSON object.
    """
    path = pathlib.Path(folder) / "results.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: no JSON object; delete it")
    return found


def write_json(content: Any, path: str | os.PathLike[str]) -> None:
    """Writes JSON for people and programs, whole or not at all."""
    write_whole(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", path)


def write_whole(text: str, path: str | os.PathLike[str]) -> None:
    """Writes a text file so that a reader sees the old file or the new one, never a part.

    Raises:
      UserError: the file cannot be written.
    """
    target = pathlib.Path(path)
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A prediction can hold a lone surrogate, which UTF-8 has no bytes for.
        partial.write_text(text, encoding="utf-8", errors="replace")
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{target}: cannot write: {error.strerror}") from error
