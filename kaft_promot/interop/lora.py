"""LoRA's additions in a file of their own: small, and attached to any network of the same kernels.

`lora.safetensors` holds `lora_a` `[I, R]` and `lora_b` `[R, O]` for every kernel `[I, O]` that gets
an addition, named like the model's tensors (`encoder.layers_0.attention.query.lora_a`). Its
metadata say the base checkpoint that they were tuned on, the rank, the kernels with their shapes,
and whether the model that lies beside the file has the additions in it already.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.interop.best import folder_of, resolve_best
from kaft_promot.interop.tensors import read_metadata, read_safetensors, write_safetensors
from kaft_promot.models import Params, flatten, stack_layers, unflatten, unstack_layers
from kaft_promot.models.lora import LORA_A, LORA_B, lora_of

LORA_FILE = "lora.safetensors"
_KIND = "kaft-promot lora"
_LAYER, _STACKED = re.compile(r"/layers_\d+/"), re.compile(r"/layers/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraWeights:
    """Low-rank additions of one rank, with what is known about them.

    Attributes:
      additions: float32 `[I, R]` under `.../lora_a` and `[R, O]` under `.../lora_b`, by '/'-joined
        path, layers unrolled.
      base_checkpoint: the network that they were tuned on; None where it is not known.
      merged: whether the model in the same folder has them in it.
      origin: the path that they were read from.

    Raises:
      UserError: if there are none, or they do not make additions of one rank.
    """

    additions: Mapping[str, np.ndarray]
    base_checkpoint: str | None = None
    merged: bool = False
    origin: str = "LoRA"

    def __post_init__(self) -> None:
        names = {path.rpartition("/")[0] for path in self.additions}
        if not names:
            raise UserError(f"{self.origin}: no LoRA additions in it")
        ranks = set()
        for name in sorted(names):
            shapes = [np.shape(self.additions.get(f"{name}/{end}", 0)) for end in (LORA_A, LORA_B)]
            if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != shapes[1][0]:
                raise UserError(
                    f"{self.origin}: {name} has {LORA_A} {shapes[0]} and {LORA_B} {shapes[1]}, not "
                    "[I, R] and [R, O]"
                )
            ranks.add(shapes[0][1])
        if len(ranks) > 1:
            raise UserError(f"{self.origin}: additions of several ranks: {sorted(ranks)}")

    @property
    def kernels(self) -> dict[str, tuple[int, int]]:
        """Shapes `[I, O]` of the kernels that get an addition, by path without `/kernel`."""
        names = sorted({path.rpartition("/")[0] for path in self.additions})
        return {
            name: (
                int(self.additions[f"{name}/{LORA_A}"].shape[0]),
                int(self.additions[f"{name}/{LORA_B}"].shape[1]),
            )
            for name in names
        }

    @property
    def rank(self) -> int:
        """R."""
        return int(next(x.shape[1] for p, x in self.additions.items() if p.endswith(LORA_A)))

    @property
    def digest(self) -> str:
        """Of paths and values: equal digests, equal additions."""
        digest = hashlib.sha256()
        for path, value in sorted(self.additions.items()):
            digest.update(f"{path}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value, np.float32).tobytes())
        return digest.hexdigest()[:16]

    def replaced(self, params: Mapping[str, Any], merged: bool) -> LoraWeights:
        """The additions as they are in a network's parameters now."""
        return dataclasses.replace(self, additions=lora_in(params).additions, merged=merged)


def lora_in(
    params: Mapping[str, Any], base_checkpoint: str | None = None, origin: str = "parameters"
) -> LoraWeights:
    """The additions among a network's parameters, layers stacked or not.

    Raises:
      UserError: if it has none.
    """
    found = flatten(unstack_layers(unflatten(lora_of(params))))
    additions = {path: np.asarray(value, np.float32) for path, value in found.items()}
    return LoraWeights(additions=additions, base_checkpoint=base_checkpoint, origin=origin)


def attach_lora(lora: LoraWeights, params: Mapping[str, Any]) -> Params:
    """A network with additions beside its kernels.

    Args:
      lora: what to attach.
      params: the network, layers stacked or not.

    Raises:
      UserError: if they do not fit its kernels, or it has additions already.
    """
    flat = flatten(params)
    if lora_of(params):
        raise UserError(f"{lora.origin}: the network has LoRA additions already")
    tuned_on = f"; they were tuned on {lora.base_checkpoint}" if lora.base_checkpoint else ""
    abstract = jax.eval_shape(unstack_layers, _kernels(flat))
    shapes = {path: x.shape for path, x in flatten(abstract).items()}
    for name, shape in lora.kernels.items():
        found = shapes.get(f"{name}/kernel")
        if found != shape:
            has = "does not have" if found is None else f"has as {tuple(found)}"
            raise UserError(
                f"{lora.origin}: these LoRA additions are for another network: they change "
                f"{name} {shape}, which this one {has}{tuned_on}"
            )
    additions: dict[str, Any] = dict(lora.additions)
    if any(_STACKED.search(path) for path in flat):
        layers = collections.Counter(_LAYER.sub("/layers/", name) for name in lora.kernels)
        for name, count in layers.items():
            if _STACKED.search(name) and count != len(flat[f"{name}/kernel"]):
                raise UserError(
                    f"{lora.origin}: these LoRA additions change {name} in {count} layers of "
                    f"{len(flat[f'{name}/kernel'])}: set T5Config.scan_layers = False"
                )
        additions = flatten(stack_layers(unflatten(additions)))
    return unflatten({**flat, **{path: np.asarray(x) for path, x in additions.items()}})


def write_lora(path: str | os.PathLike, lora: LoraWeights) -> pathlib.Path:
    """Writes additions whole or not at all, and returns the file's path."""
    path = pathlib.Path(path)
    metadata = {
        "kind": _KIND,
        "rank": str(lora.rank),
        "kernels": json.dumps({name: list(shape) for name, shape in lora.kernels.items()}),
        "merged": json.dumps(lora.merged),
    }
    if lora.base_checkpoint is not None:
        metadata["base_checkpoint"] = lora.base_checkpoint
    tensors = {
        name.replace("/", "."): np.asarray(value, np.float32)
        for name, value in lora.additions.items()
    }
    write_safetensors(path, tensors, metadata)
    return path


def read_lora(path: str | os.PathLike) -> LoraWeights:
    """Reads LoRA's additions.

    Args:
      path: a lora file; a run's MODEL_DIR, or one of its `checkpoints/STEP` or `checkpoints/best`.

    Raises:
      UserError: if there are none, or the file is damaged.
    """
    path = resolve_best(path)
    if not path.exists():
        raise UserError(f"{path}: no such LoRA (a file {LORA_FILE}, or a run's folder)")
    if path.is_file():
        return _read_file(path)
    if (path / LORA_FILE).is_file():
        return _read_file(path / LORA_FILE)
    is_step = path.parent.name == "checkpoints" and path.name.isdigit()
    folder = path.parent.parent if is_step else path
    if (folder / "checkpoints").is_dir():
        return _read_run(folder, int(path.name) if is_step else None)
    raise UserError(f"{path}: no LoRA in it; a run with LoRA writes {LORA_FILE}")


def check_not_merged(lora: LoraWeights, checkpoint_path: str | os.PathLike | None) -> None:
    """Refuses additions for the checkpoint of the run that has added them already.

    Raises:
      UserError: if `checkpoint_path` lies in the folder of `lora`, whose model is the merged one.
    """
    if checkpoint_path is None or not lora.merged:
        return
    folders = {folder_of(p).resolve() for p in (checkpoint_path, lora.origin)}
    if len(folders) == 1:
        raise UserError(
            f"{checkpoint_path} has the additions of {lora.origin} in it already; leave the LoRA "
            f"out, or start from the checkpoint that it was tuned on ({lora.base_checkpoint})"
        )


def _read_file(path: pathlib.Path) -> LoraWeights:
    metadata = read_metadata(path)
    if metadata.get("kind") != _KIND:
        raise UserError(f"{path}: not a LoRA file; a run with LoRA writes {LORA_FILE}")
    additions = {name.replace(".", "/"): x for name, x in read_safetensors(path).items()}
    lora = LoraWeights(
        additions=additions,
        base_checkpoint=metadata.get("base_checkpoint"),
        merged=metadata.get("merged") == "true",
        origin=str(path),
    )
    said = json.dumps({name: list(shape) for name, shape in lora.kernels.items()})
    if (metadata.get("rank"), metadata.get("kernels")) != (str(lora.rank), said):
        raise UserError(f"{path}: its metadata and tensors do not agree")
    return lora


def _read_run(folder: pathlib.Path, step: int | None) -> LoraWeights:
    """The additions of a run's checkpoint; of the latest one for None."""
    from kaft_promot.training import Checkpoints  # which imports this room

    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step = checkpoints.latest_step() if step is None else step
        if step is None or step not in checkpoints.steps():
            raise UserError(f"{folder}: no checkpoint {'' if step is None else step}")
        origin = checkpoints.origin(step)
        trainable = checkpoints.trainable(step)
    finally:
        checkpoints.close()
    path = folder / "checkpoints" / str(step)
    if lora_of(trainable):
        base = origin.get("lora", {}).get("base", origin["initial_checkpoint_path"])
        found = lora_in(trainable, base, str(path))
        return dataclasses.replace(found, merged=True)
    if (folder / LORA_FILE).is_file():  # frozen: the same at every step
        return _read_file(folder / LORA_FILE)
    raise UserError(f"{path}: no LoRA in it; the run had none")


def _kernels(flat: Mapping[str, Any]) -> Params:
    return unflatten({path: x for path, x in flat.items() if path.endswith("/kernel")})
