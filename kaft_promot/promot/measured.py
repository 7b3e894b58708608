"""What a comparison has measured: its rows, read once, and the steps that follow from them.

Rows of one seed are in three files: of each arm on its way (`CURVES`, validation examples), at the
step that is reported (`ROWS`, test examples), and at another step where arms are compared at
matched target score (`MATCHED`, the same test examples).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping

from kaft_promot.errors import UserError
from kaft_promot.evaluation import retention_matched
from kaft_promot.evaluation.retention import IN_CONTEXT_SUITE, TARGET_SUITE
from kaft_promot.evaluation.retention_matched import Pair, target_scores
from kaft_promot.evaluation.rows import Row, read_rows
from kaft_promot.promot.arms import BASE
from kaft_promot.promot.settings import Promot

ROWS, CURVES, MATCHED = "rows.jsonl", "curves.jsonl", "matched.jsonl"
SETTINGS = "settings.json"


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps that arms are read at.

    Attributes:
      reported: arm -> the step that its figures are of.
      pairs: arm -> where it and plain fine-tuning are equally good at the target (validation).
    """

    reported: Mapping[str, int]
    pairs: Mapping[str, Pair]

    @classmethod
    def of(cls, curve_rows: list[Row], settings: Promot) -> Steps:
        """From a seed's rows of `CURVES`.

        Reported is the last step, or where `settings.select` is 'best' the one with the best target
        score on the validation split, the first of equals.
        """
        scores = target_scores(curve_rows)
        last = settings.select == "last"
        reported = {
            arm: max(of_arm, key=None if last else of_arm.__getitem__)
            for arm, of_arm in scores.items()
        }
        return cls(reported, retention_matched.pairs(scores, reported))

    @property
    def taken_back(self) -> list[tuple[str, int]]:
        """Arms and steps of pairs that are not those that are reported."""
        found = {at for pair in self.pairs.values() for at in pair.steps.items()}
        return sorted(at for at in found if at[1] != self.reported[at[0]])


@dataclasses.dataclass(frozen=True)
class Measured:
    """One seed's rows, each with its `step`.

    Attributes:
      curve_rows: of validation examples, at every measured step.
      rows: of test examples, at the steps that are reported.
      matched_rows: of test examples, at other steps of pairs.
      steps: which these are.
    """

    curve_rows: list[Row]
    rows: list[Row]
    matched_rows: list[Row]
    steps: Steps

    @classmethod
    def read(cls, folder: pathlib.Path, settings: Promot, seed: int) -> Measured:
        """Reads `folder/seedN/`.

        Raises:
          UserError: a file of rows is not there, or damaged.
        """
        curve_rows = rows_of(folder, seed, CURVES)
        steps = Steps.of(curve_rows, settings)
        rows = [
            {**row, "step": steps.reported.get(row["arm"])} for row in rows_of(folder, seed, ROWS)
        ]
        return cls(curve_rows, rows, rows_of(folder, seed, MATCHED), steps)

    def is_whole(self, settings: Promot) -> bool:
        """Whether every arm has rows of the same examples as the base, where it is matched, too."""
        asked: dict[tuple[str, int], set[str]] = {}
        for row in (*self.rows, *self.matched_rows):
            if row["suite"] in (TARGET_SUITE, IN_CONTEXT_SUITE):
                asked.setdefault((row["arm"], row["step"]), set()).add(row["example_id"])
        reported = self.steps.reported
        arms = (BASE, *settings.arms)
        if not set(arms) <= reported.keys():
            return False
        wanted = [*((arm, reported[arm]) for arm in arms), *self.steps.taken_back]
        return all(at in asked and asked[at] == asked.get((BASE, 0)) for at in wanted)


def rows_of(folder: pathlib.Path, seed: int, file: str = ROWS) -> list[Row]:
    """The rows of one file; those of `CURVES` and `MATCHED` have a `step`.

    Raises:
      UserError: it is not there, or damaged.
    """
    path = folder / f"seed{seed}" / file
    if file == MATCHED and not path.is_file():  # no arm was taken back
        return []
    rows = []
    for row in read_rows(path).samples:
        if file != ROWS:
            arm, _, step = row["arm"].partition("@")
            if not step.isdecimal():
                raise UserError(f"{path}: the arm {row['arm']!r} names no step; delete the file")
            row = {**row, "arm": arm, "step": int(step)}
        rows.append({**row, "seed": seed})
    return rows


def read_whole(folder: pathlib.Path, settings: Promot) -> dict[int, Measured] | str:
    """The rows of every seed of a comparison with these settings, or why not all are there.

    Raises:
      UserError: rows are damaged.
    """
    try:
        noted = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = None
    if not isinstance(noted, dict):
        return f"{folder} holds no comparison"
    described = settings.described()
    other = [name for name in described if name != "seeds" and noted.get(name) != described[name]]
    if other:
        return f"{folder} was made with other settings ({', '.join(other)})"
    found = {}
    for seed in settings.seeds:
        files = [folder / f"seed{seed}" / file for file in (CURVES, ROWS)]
        if all(file.is_file() for file in files):
            found[seed] = Measured.read(folder, settings, seed)
        if seed not in found or not found[seed].is_whole(settings):
            return f"seed {seed} is not measured whole; give the command again that measures it"
    return found
