"""Retention over several seeds: its figures, and for how many seeds what ProMoT promises holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kaft_promot.evaluation.retention import (
    IN_CONTEXT_SUITE,
    NAMES,
    OTHER,
    REFERENCES,
    SHARE,
    TARGET,
    TARGET_SUITE,
    Scores,
    differences,
)
from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.seeds import OverSeeds, by_seed

# What ProMoT's comparison must show (the fractions are those of `claims`).
FORGETS, SPECIALIZES, KEEPS = 0.25, 0.8, 0.8


def tables_of(rows: Iterable[Row], target: str) -> dict[int, Scores]:
    """The scores of each seed that has rows of the target or in-context tasks, seeds ascending.

    Args and errors as for `retention.measure`, of rows of any seeds.
    """
    per_seed = by_seed(row for row in rows if row.get("suite") in (TARGET_SUITE, IN_CONTEXT_SUITE))
    return {seed: Scores(of_seed, target) for seed, of_seed in per_seed.items()}


def over_seeds(tables: Mapping[int, Scores]) -> OverSeeds:
    """The retention figures of several seeds: seed -> its scores."""
    return OverSeeds.of(NAMES, tables, differences, REFERENCES)


def claims(table: Scores, seed: int = 0) -> dict[str, bool]:
    """Which of ProMoT's claims hold in one seed's rows.

    Args:
      table: of `base` and the arms; a claim about an arm that is not there, or about what was not
        measured, is left out.
      seed: of the bootstrap.

    Returns:
      claim in words -> whether it holds, on the figures as measured.
    """
    figures = {arm: table.estimates(arm, seed) for arm in table.arms}

    def value(arm: str, name: str) -> float | None:
        return figures[arm][name].value if arm in figures else None

    found: dict[str, bool] = {}
    base, tuned, kept = (value(arm, OTHER) for arm in ("base", "finetune", "promot"))
    share = value("finetune", SHARE)
    score = "in-context score on other formats"
    if base and tuned is not None:
        claim = f"finetune's {score} is at most {100 * FORGETS:.0f} % of base's"
        found[claim] = tuned <= FORGETS * base
    if share is not None:
        claim = f"finetune's output share is above {100 * SPECIALIZES:.0f} %"
        found[claim] = share > SPECIALIZES
    if base and kept is not None:
        claim = f"promot's {score} is at least {100 * KEEPS:.0f} % of base's"
        found[claim] = kept >= KEEPS * base
    if "finetune" in figures and "promot" in figures:
        change = table.difference("promot", "finetune", TARGET, seed)
        if change.value is not None:
            below = change.measurable and change.value < 0
            found["promot's target score is not measurably below finetune's"] = not below
            found[
                "promot's and finetune's target scores do not measurably differ"
            ] = not change.measurable
    return found


def claims_of_seeds(tables: Mapping[int, Scores], seed: int = 0) -> dict[str, tuple[int, int]]:
    """`seeds_that_hold` of each seed's `claims`; `seed` is of the bootstrap."""
    return seeds_that_hold({number: claims(table, seed) for number, table in tables.items()})


def claims_json(held: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    """What results.json says of `seeds_that_hold`: `{CLAIM: {"holds", "seeds"}}`."""
    return {claim: {"holds": holds, "seeds": seeds} for claim, (holds, seeds) in held.items()}


def seeds_that_hold(per_seed: Mapping[int, Mapping[str, bool]]) -> dict[str, tuple[int, int]]:
    """Claim -> (number of seeds for which it holds, number of seeds for which it was looked at).

    >>> seeds_that_hold({0: {"A": True, "B": False}, 1: {"A": True}})
    {'A': (2, 2), 'B': (0, 1)}
    """
    found: dict[str, tuple[int, int]] = {}
    for of_seed in per_seed.values():
        for claim, holds in of_seed.items():
            held, looked = found.get(claim, (0, 0))
            found[claim] = (held + holds, looked + 1)
    return found
