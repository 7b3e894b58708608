"""LoRA as a change of parameters: low-rank additions to kernels (Hu et al., arXiv 2106.09685).

    train(..., lora=Lora(rank=8), stage=LORA)                 # tunes new additions, model frozen
    train(..., lora=Lora(path="runs/lora"), stage=MODEL)      # tunes the model under them, frozen

Additions are parameters like others (`models.lora`), so a stage that trains `.*/lora_[ab]` is LoRA:
gradients, optimizer state and checkpoints exist for them alone. A run that tunes them exports the
merged, ordinary network. A run that leaves them frozen exports the network without them: like
ProMoT's prompt, they are attached for the target task only, and take the format with them when they
go (the arm `lora_then_model` of Wang et al., ICLR 2024, arXiv 2211.00635). Both runs keep the
additions in a file of their own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gin
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models import flatten, unflatten
from kaft_promot.models.lora import LORA_A, LORA_B, lora_of
from kaft_promot.training.stages import Stage

if TYPE_CHECKING:
    from kaft_promot.interop import LoraWeights
    from kaft_promot.training.start import Start

_RANK = 8
_KERNELS = r".*/(query|value)"


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """Which kernels get low-rank additions, new or from a file.

    The addition's scale is 1 (alpha = rank, in the paper's words): the learning rate sets its size.

    Attributes:
      path: additions to start from, what `interop.read_lora` reads. None makes new ones.
      rank: R; None for 8, or the rank that `path` has.
      kernels: of new additions, regular expression(s) over the '/'-joined paths of kernels without
        `/kernel`, such as `encoder/layers_0/attention/query`; None for the queries and values of
        all attentions, as in the paper.
      seed: of new `lora_a`, normal with variance 1 / I; `lora_b` starts at 0, so the network does
        not change at first.

    Raises:
      UserError: for values that make no sense or would do nothing.
    """

    path: str | None = None
    rank: int | None = None
    kernels: str | tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise UserError(f"Lora.rank = {self.rank}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"Lora.seed = {self.seed}: must not be negative")
        if self.kernels is None:
            return
        if self.path is not None:
            raise UserError(
                "Lora.kernels says what new additions change; leave it out with Lora.path"
            )
        patterns = (self.kernels,) if isinstance(self.kernels, str) else tuple(self.kernels)
        object.__setattr__(self, "kernels", patterns)
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"Lora.kernels: {pattern!r} is not a regular expression ({error})"
                ) from None

    def attach(self, start: Start) -> Start:
        """`start` with additions beside its kernels.

        Raises:
          UserError: if a pattern matches no kernel, or the additions of `path` are of another rank,
            belong to another network, or are in it already.
        """
        from kaft_promot.interop import lora as files

        if self.path is None:
            lora = self._new(start.params, start.path)
        else:
            lora = files.read_lora(self.path)
            if self.rank not in (None, lora.rank):
                raise UserError(
                    f"Lora.rank = {self.rank}, but {lora.origin} has rank {lora.rank}; leave it "
                    "out to take it as it is"
                )
            files.check_not_merged(lora, start.path)
        params = files.attach_lora(lora, start.params)
        return dataclasses.replace(start, params=params, lora=lora)

    def _new(self, params: Mapping[str, Any], base_checkpoint: str | None) -> LoraWeights:
        from kaft_promot.interop.lora import lora_in

        patterns = self.kernels or (_KERNELS,)
        flat = flatten(params)
        names = sorted(path.removesuffix("/kernel") for path in flat if path.endswith("/kernel"))
        for pattern in patterns:
            if not any(re.fullmatch(pattern, name) for name in names):
                raise UserError(
                    f"Lora.kernels = {pattern!r} matches no kernel; they are named like "
                    f"{', '.join(names[:3])}"
                )
        rng = np.random.default_rng(self.seed)
        rank = self.rank or _RANK
        made = {}
        for name in names:
            if any(re.fullmatch(pattern, name) for pattern in patterns):
                *stacked, inputs, outputs = flat[f"{name}/kernel"].shape
                a = rng.normal(0.0, inputs**-0.5, (*stacked, inputs, rank))
                made[f"{name}/{LORA_A}"] = a.astype(np.float32)
                made[f"{name}/{LORA_B}"] = np.zeros((*stacked, rank, outputs), np.float32)
        return lora_in(unflatten(made), base_checkpoint, origin="new LoRA")


def frozen_lora(params: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """The additions that a stage leaves as they are, by path: all that there are, or none.

    Args:
      params: a network's parameters, additions apart.
      stage: what is trained.

    Raises:
      UserError: if it trains some of them, which no checkpoint could tell from the others.
    """
    additions = lora_of(params)
    trained = [path for path in additions if stage.is_trainable(path)]
    if trained and len(trained) < len(additions):
        left = next(path for path in additions if path not in trained)
        raise UserError(
            f"stage {stage.name!r} trains {trained[0]} and not {left}: train all of LoRA's "
            "additions (.*/lora_[ab]) or none"
        )
    return {} if trained else additions
