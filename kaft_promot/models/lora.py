"""LoRA as parameters: low-rank additions beside kernels (Hu et al., ICLR 2022, arXiv 2106.09685).

A kernel W `[I, O]` at `.../kernel` gets two neighbours, `lora_a` `[I, R]` and `lora_b` `[R, O]`,
and the network computes with W + lora_a @ lora_b. Where layers are stacked, all three have a
leading axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kaft_promot.models.params import Params, flatten, unflatten

LORA_A, LORA_B = "lora_a", "lora_b"


def lora_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The additions among parameters, by '/'-joined path."""
    flat = flatten(params)
    return {path: x for path, x in flat.items() if path.rsplit("/", 1)[-1] in (LORA_A, LORA_B)}


def merge_lora(params: Mapping[str, Any]) -> Params:
    """The ordinary network: additions added to their kernels, and gone. Others pass through.

    Args:
      params: nested parameters, or by path as `flatten` gives them.
    """
    flat = flatten(params)
    for path in [path for path in flat if path.endswith(f"/{LORA_A}")]:
        name = path.removesuffix(f"/{LORA_A}")
        addition = flat.pop(path) @ flat.pop(f"{name}/{LORA_B}")
        flat[f"{name}/kernel"] = flat[f"{name}/kernel"] + addition
    return unflatten(flat)


def remove_lora(params: Mapping[str, Any]) -> Params:
    """The network without its additions; one that has none passes through."""
    additions = lora_of(params)
    return unflatten({path: x for path, x in flatten(params).items() if path not in additions})


def subtract_lora(params: Mapping[str, Any], additions: Mapping[str, Any]) -> Params:
    """Merged parameters with additions taken out again, as exactly as float32 can.

    Args:
      params: what `merge_lora` gave.
      additions: the additions by path, from `lora_of`.
    """
    negative = {path: -x if path.endswith(LORA_B) else x for path, x in additions.items()}
    return merge_lora({**flatten(params), **negative})
