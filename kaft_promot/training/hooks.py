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
        the run's metrics, or None.
      period: steps between calls; it is also called after the last step.
    """

    function: Callable[[int, Params], Mapping[str, float] | None]
    period: int

    def __post_init__(self) -> None:
        if self.period < 1:
            raise UserError(f"Hook.period = {self.period}: must be at least 1")
