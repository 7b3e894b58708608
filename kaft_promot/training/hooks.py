"""Measurements of a user's own during training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import gin

from kaft_promot.errors import UserError
from kaft_promot.models import Params


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hook:
    """Something to measure during training.

    Attributes:
      function: called as `function(step, params)` with all parameters; returns numbers by name for
        the run's metrics (Python's, numpy's or JAX's scalars), or None.
      period: steps between calls; it is also called after the last step.
    """

    function: Callable[[int, Params], Mapping[str, float] | None]
    period: int

    def __post_init__(self) -> None:
        if self.period < 1:
            raise UserError(f"Hook.period = {self.period}: must be at least 1")

    def measure(self, step: int, params: Params) -> dict[str, float]:
        """What `function` returns, as Python's numbers, which go into files and checkpoints.

        Raises:
          UserError: for a value that is no number.
        """
        found: dict[str, float] = {}
        for name, value in (self.function(step, params) or {}).items():
            try:
                found[name] = float(value)
            except (TypeError, ValueError):
                raise UserError(
                    f"a Hook measured {name!r} = {value!r} at step {step}: give a number"
                ) from None
        return found
