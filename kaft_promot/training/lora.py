"""LoRA as a change of parameters: low-rank additions to kernels (Hu et al., arXiv 2106.09685).

A kernel W `[I, O]` at `.../kernel` gets two neighbours, `lora_a` `[I, R]` and `lora_b` `[R, O]`,
and the network computes with W + lora_a @ lora_b. They are parameters like others, so a stage that
trains `.*/lora_[ab]` is LoRA: gradients, optimizer state and checkpoints exist for them alone. Only
`merge_lora` knows what they mean; what a run exports is an ordinary network.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import gin
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models import Params, flatten, unflatten

_A, _B = "lora_a", "lora_b"


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """Which kernels get low-rank additions.

    The addition's scale is 1 (alpha = rank, in the paper's words): the learning rate sets its size.

    Attributes:
      rank: R.
      kernels: regular expression(s) over the '/'-joined paths of kernels without `/kernel`, such as
        `encoder/layers_0/attention/query`; by default the queries and values of all attentions, as
        in the paper.
      seed: of `lora_a`, normal with variance 1 / I; `lora_b` starts at 0, so the network does not
        change at first.

    Raises:
      UserError: for values that make no sense.
    """

    rank: int = 8
    kernels: str | tuple[str, ...] = r".*/(query|value)"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"Lora.rank = {self.rank}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"Lora.seed = {self.seed}: must not be negative")
        patterns = (self.kernels,) if isinstance(self.kernels, str) else tuple(self.kernels)
        object.__setattr__(self, "kernels", patterns)
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"Lora.kernels: {pattern!r} is not a regular expression ({error})"
                ) from None

    def attach(self, params: Mapping[str, Any]) -> Params:
        """Parameters with `lora_a` and `lora_b` beside the chosen kernels (stacked ones, too).

        Raises:
          UserError: if a pattern matches no kernel.
        """
        flat = flatten(params)
        names = sorted(path.removesuffix("/kernel") for path in flat if path.endswith("/kernel"))
        for pattern in self.kernels:
            if not any(re.fullmatch(pattern, name) for name in names):
                raise UserError(
                    f"Lora.kernels = {pattern!r} matches no kernel; they are named like "
                    f"{', '.join(names[:3])}"
                )
        rng = np.random.default_rng(self.seed)
        for name in names:
            if any(re.fullmatch(pattern, name) for pattern in self.kernels):
                *stacked, inputs, outputs = flat[f"{name}/kernel"].shape
                a = rng.normal(0.0, inputs**-0.5, (*stacked, inputs, self.rank))
                flat[f"{name}/{_A}"] = a.astype(np.float32)
                flat[f"{name}/{_B}"] = np.zeros((*stacked, self.rank, outputs), np.float32)
        return unflatten(flat)


def merge_lora(params: Mapping[str, Any]) -> Params:
    """The ordinary network: additions added to their kernels, and gone. Others pass through.

    Args:
      params: nested parameters, or by path as `flatten` gives them.
    """
    flat = flatten(params)
    for path in [path for path in flat if path.endswith(f"/{_A}")]:
        name = path.removesuffix(f"/{_A}")
        addition = flat.pop(path) @ flat.pop(f"{name}/{_B}")
        flat[f"{name}/kernel"] = flat[f"{name}/kernel"] + addition
    return unflatten(flat)
