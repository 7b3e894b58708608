"""The T5 family as Flax Linen modules; parameters are plain dicts with T5X's names."""

from kaft_promot.models.config import T5Config
from kaft_promot.models.params import (
    Params,
    abstract_params,
    flatten,
    init_params,
    logical_axes,
    params_digest,
    stack_layers,
    unflatten,
    unrolled,
    unstack_layers,
)
from kaft_promot.models.prompts import attach_prompts, prompts_of, remove_prompts
from kaft_promot.models.t5 import Transformer

__all__ = [
    "Params",
    "T5Config",
    "Transformer",
    "abstract_params",
    "attach_prompts",
    "flatten",
    "init_params",
    "logical_axes",
    "params_digest",
    "prompts_of",
    "remove_prompts",
    "stack_layers",
    "unflatten",
    "unrolled",
    "unstack_layers",
]
