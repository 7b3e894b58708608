"""Stages as data: which parameters a training run may change.

A stage names parameters by regular expressions over their '/'-joined paths. Parameters are split
into a trainable and a frozen nested dict; gradients, optimizer state and checkpoints exist for the
trainable one only. Full fine-tuning, prompt tuning and ProMoT's second stage differ in this value
and in nothing else (Wang et al., ICLR 2024, arXiv 2211.00635).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import gin

from kaft_promot.errors import UserError
from kaft_promot.models import Params, flatten, unflatten
from kaft_promot.models.lora import merge_lora


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Which parameters one training run changes.

    >>> Stage(trainable=".*prompt.*").is_trainable("encoder/prompt/prompt/prompt")
    True
    >>> Stage(frozen=".*prompt.*").is_trainable("encoder/prompt/prompt/prompt")
    False

    Attributes:
      trainable: regular expression(s); a parameter is trainable if one of them matches its whole
        path, such as `encoder/layers_0/attention/query/kernel`.
      frozen: regular expression(s) that take parameters out of the trainable ones again.
      name: a short name for logs.

    Raises:
      UserError: if a pattern is not a regular expression.
    """

    trainable: str | tuple[str, ...] = ".*"
    frozen: str | tuple[str, ...] = ()
    name: str = "full"

    def __post_init__(self) -> None:
        for field in ("trainable", "frozen"):
            value = getattr(self, field)
            patterns = (value,) if isinstance(value, str) else tuple(value)
            object.__setattr__(self, field, patterns)
            for pattern in patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise UserError(
                        f"Stage.{field}: {pattern!r} is not a regular expression ({error})"
                    ) from None

    def is_trainable(self, path: str) -> bool:
        """Whether the parameter at the '/'-joined `path` is trained."""
        return any(re.fullmatch(p, path) for p in self.trainable) and not any(
            re.fullmatch(p, path) for p in self.frozen
        )


FULL = Stage()
LORA = Stage(trainable=".*/lora_[ab]", name="lora")
PROMPT = Stage(trainable=".*prompt.*", name="prompt")
# The model under what is attached to it.
MODEL = Stage(frozen=(".*prompt.*", ".*/lora_[ab]"), name="model")


def partition(params: Mapping[str, Any], stage: Stage) -> tuple[Params, Params]:
    """Splits nested `params` into the nested dicts (trainable, frozen) of `stage`.

    Raises:
      UserError: if a trainable pattern matches no parameter, or nothing is left to train. (A
        frozen pattern may match nothing: ProMoT's second stage also runs without a prompt.)
    """
    flat = flatten(params)
    for pattern in stage.trainable:
        if not any(re.fullmatch(pattern, path) for path in flat):
            raise UserError(
                f"Stage.trainable = {pattern!r} matches no parameter of the model; "
                f"its parameters are named like {', '.join(sorted(flat)[:3])}"
            )
    trainable = {path: x for path, x in flat.items() if stage.is_trainable(path)}
    if not trainable:
        raise UserError(
            f"Stage.frozen = {list(stage.frozen)} takes out every parameter that "
            f"Stage.trainable = {list(stage.trainable)} matches: nothing is left to train"
        )
    frozen = {path: x for path, x in flat.items() if path not in trainable}
    return unflatten(trainable), unflatten(frozen)


def merge(trainable: Mapping[str, Any], frozen: Mapping[str, Any]) -> Params:
    """The network's parameters: what `partition` split, with low-rank additions added."""
    return merge_lora({**flatten(trainable), **flatten(frozen)})
