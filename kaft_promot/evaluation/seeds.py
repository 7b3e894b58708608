"""Figures over seeds: how they spread, and how two arms differ in all of them together.

An interval over examples says what other examples would give, and nothing about other seeds: those
repeat the training with another order of the data and other prompts. Two arms of one seed are
compared on the same examples; `OverSeeds.changes` takes each seed's difference as one observation
and gives their mean with Student's t interval: where the mean over many seeds would lie (with the
same base, data and examples). A single further seed may well fall outside.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from scipy.special import stdtrit

from kaft_promot.evaluation.rows import Row
from kaft_promot.evaluation.statistics import LEVEL, Estimate

Estimates = Mapping[str, Mapping[str, Estimate]]
_ROUNDING = 1e-9  # seeds whose differences are no further apart agree


class Scores(Protocol):
    """The scores of one seed: `grounding.Scores`, `retention.Scores`."""

    arms: list[str]

    def estimates(self, arm: str) -> Mapping[str, Estimate]:
        """Every figure of one arm, by name."""


S = TypeVar("S", bound=Scores)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over seeds: smallest, median and largest value (None without one), and of how many.

    Attributes:
      minimum, median, maximum: fractions.
      seeds: number of seeds in which the figure was measured.
    """

    minimum: float | None
    median: float | None
    maximum: float | None
    seeds: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """Mean over seeds of a paired difference, with a 95 % interval over seeds.

    Attributes:
      value: the mean, in [-1, 1]; None without a seed.
      low, high: the interval's ends; None with fewer than two seeds, and where all seeds agree: of
        how seeds vary that says nothing.
      seeds: number of seeds behind it.
    """

    value: float | None
    low: float | None
    high: float | None
    seeds: int

    def to_json(self) -> dict[str, Any]:
        """`{"value", "low", "high", "seeds"}`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverSeeds:
    """The figures of a comparison that was run with several seeds.

    Attributes:
      names: the measurements, in the order in which reports show them.
      figures: seed -> arm -> name -> estimate.
      differences: reference arm -> seed -> arm -> name -> paired difference to it.
    """

    names: Sequence[str]
    figures: Mapping[int, Estimates]
    differences: Mapping[str, Mapping[int, Estimates]]

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        tables: Mapping[int, S],
        differences: Callable[[S, str], Estimates],
        references: Sequence[str],
    ) -> OverSeeds:
        """From each seed's scores.

        Args:
          names: the measurements.
          tables: seed -> its scores.
          differences: scores, reference arm -> arm -> name -> paired difference to it.
          references: arms to tell the differences to, where a seed has them.
        """
        of_reference = {
            reference: {
                seed: differences(table, reference)
                for seed, table in tables.items()
                if reference in table.arms
            }
            for reference in references
        }
        return cls(
            names=names,
            figures={
                seed: {arm: table.estimates(arm) for arm in table.arms}
                for seed, table in tables.items()
            },
            differences={name: found for name, found in of_reference.items() if found},
        )

    def measured(self) -> list[str]:
        """The names that any seed measured in any arm."""
        spreads = self.spreads().values()
        return [name for name in self.names if any(of_arm[name].seeds for of_arm in spreads)]

    def spreads(self) -> dict[str, dict[str, Spread]]:
        """arm -> name -> how the figure spreads, over the seeds that have the arm and measured it.

        Arms in the first seed's order, then those that only later seeds have.
        """
        return {
            arm: {name: _spread(_values(self.figures, arm, name)) for name in self.names}
            for arm in _arms(self.figures)
        }

    def changes(self, reference: str) -> dict[str, dict[str, Change]]:
        """arm -> name -> how it differs from a reference arm, all seeds together."""
        per_seed = self.differences[reference]
        return {
            arm: {name: mean_change(_values(per_seed, arm, name)) for name in self.names}
            for arm in _arms(per_seed)
        }

    def to_json(self) -> dict[str, Any]:
        """What results.json says.

        Returns:
          `{"figures": {SEED: {ARM: {NAME: {"value", "low", "high", "n"}}}}, "differences":
          {REFERENCE: {ARM: {NAME: {"value", "low", "high", "seeds"}}}}, "differences_of_seeds":
          {REFERENCE: {SEED: {ARM: {NAME: figure}}}}}`, as fractions. A single seed's difference has
          `p_value`, `wins` and `losses` too, and its interval is over examples.
        """

        def plain(per_seed: Mapping[int, Estimates]) -> dict[str, Any]:
            return {
                str(seed): {
                    arm: {name: of_arm[name].to_json() for name in self.names}
                    for arm, of_arm in of_seed.items()
                }
                for seed, of_seed in per_seed.items()
            }

        return {
            "figures": plain(self.figures),
            "differences_of_seeds": {
                reference: plain(per_seed) for reference, per_seed in self.differences.items()
            },
            "differences": {
                reference: {
                    arm: {name: change.to_json() for name, change in of_arm.items()}
                    for arm, of_arm in self.changes(reference).items()
                }
                for reference in self.differences
            },
        }


def by_seed(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """The rows of each seed, seeds ascending; a row without a `seed` is of seed 0."""
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.get("seed", 0)].append(row)
    return dict(sorted(found.items()))


def mean_change(values: Sequence[float]) -> Change:
    """The mean of one difference a seed, with Student's t interval over them.

    >>> found = mean_change([0.1, 0.2, 0.3])  # 0.2 -+ 4.303 * 0.1 / sqrt(3)
    >>> f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    '0.200 [-0.048, 0.448]'
    """
    seeds = len(values)
    if not seeds:
        return Change(value=None, low=None, high=None, seeds=0)
    mean = statistics.fmean(values)
    if max(values) - min(values) < _ROUNDING:
        return Change(value=mean, low=None, high=None, seeds=seeds)
    quantile = float(stdtrit(seeds - 1, (1 + LEVEL) / 2))
    half_width = quantile * statistics.stdev(values) / seeds**0.5
    return Change(
        value=mean, low=max(-1.0, mean - half_width), high=min(1.0, mean + half_width), seeds=seeds
    )


def _arms(per_seed: Mapping[int, Estimates]) -> dict[str, None]:
    return dict.fromkeys(arm for of_seed in per_seed.values() for arm in of_seed)


def _values(per_seed: Mapping[int, Estimates], arm: str, name: str) -> list[float]:
    found = (of_seed[arm][name].value for of_seed in per_seed.values() if arm in of_seed)
    return [value for value in found if value is not None]


def _spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(minimum=None, median=None, maximum=None, seeds=0)
    return Spread(
        minimum=min(values),
        median=statistics.median(values),
        maximum=max(values),
        seeds=len(values),
    )
