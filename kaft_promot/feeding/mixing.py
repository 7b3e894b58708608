"""Mixing datasets by rate, with random access."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import grain


def integer_rates(rates: Sequence[float]) -> list[int]:
    """Positive rates as integers of exactly the same proportions."""
    exact = [Fraction(rate) for rate in rates]
    scale = math.lcm(*(rate.denominator for rate in exact))
    whole = [int(rate * scale) for rate in exact]
    divisor = math.gcd(*whole)
    return [rate // divisor for rate in whole]


def place(index: int, rates: Sequence[int]) -> tuple[int, int]:
    """Which dataset gives element `index` of the mixture, and which of its elements.

    Datasets alternate as evenly as their rates allow: of any first n elements, dataset i gives
    its share of n to within the number of datasets. Dataset after dataset takes its share (by
    rounding, as Bresenham draws a line) of the elements that those before it left.
    """
    remaining = sum(rates)
    before, after = index, index + 1
    for i, rate in enumerate(rates):
        left_before = before * (remaining - rate) // remaining
        left_after = after * (remaining - rate) // remaining
        if before - left_before != after - left_after:
            return i, before - left_before
        remaining -= rate
        before, after = left_before, left_after
    raise AssertionError("shares do not add up")


class Mix(grain.MapDataset):
    """Mixture of map datasets by rate; ends where the first of them ends.

    `grain.MapDataset.mix` does the same with rates rounded to as little as one percent.
    """

    def __init__(self, parents: Sequence[grain.MapDataset], rates: Sequence[float]):
        super().__init__(parents)
        self._rates = integer_rates(rates)
        total = sum(self._rates)
        self._length = min(
            sys.maxsize,
            *(len(p) * total // rate for p, rate in zip(parents, self._rates, strict=True)),
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        parent, element = place(index, self._rates)
        return self._parents[parent][element]
