"""Weights between two checkpoints of one network.

WiSE-FT (Wortsman et al., CVPR 2022, arXiv 2109.01903): the straight line between the pretrained and
the tuned weights keeps more of the pretrained model's abilities than its end, often at little cost
on the target task.
"""

import os
import pathlib

import jax
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.interop.checkpoint import load_model
from kaft_promot.interop.export import check_target, remove_additions
from kaft_promot.interop.native import write_native
from kaft_promot.interop.vocabulary import choose_vocabulary
from kaft_promot.models import T5Config, abstract_params, flatten, remove_prompts


def interpolate(
    base: str | os.PathLike, tuned: str | os.PathLike, weight: float, folder: str | os.PathLike
) -> pathlib.Path:
    """Writes `(1 - weight) * base + weight * tuned` as a checkpoint; soft prompts are left out.

    Prompt and LoRA files of an earlier model in `folder` are removed.

    Args:
      base: what `load_model` reads, such as the pretrained checkpoint.
      tuned: the same network, tuned.
      weight: from 0 (base) to 1 (tuned).
      folder: where to write; made if it does not exist.

    Returns:
      The path of the written `model.safetensors`.

    Raises:
      UserError: if a checkpoint cannot be read, they are not of one network and vocabulary, or
        `folder` holds a run.
    """
    if not 0.0 <= weight <= 1.0:
        raise UserError(f"--weight={weight}: must be from 0 (base) to 1 (tuned)")
    check_target(folder, "native")
    models = [load_model(path) for path in (base, tuned)]
    (config, first), (other, second) = (
        remove_prompts(_config(model.config), model.params) for model in models
    )
    shapes = [{p: x.shape for p, x in flatten(abstract_params(c)).items()} for c in (config, other)]
    for path in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(path) != shapes[1].get(path):
            raise UserError(
                f"{base} and {tuned} are not of one network: parameter {path} is "
                f"{shapes[0].get(path, 'absent')} and {shapes[1].get(path, 'absent')}"
            )
    vocabulary = models[0].vocabulary or models[1].vocabulary
    if models[0].vocabulary and models[1].vocabulary:
        choose_vocabulary(models[0].vocabulary, models[1].vocabulary, str(base))

    def between(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.float32(1.0 - weight) * x + np.float32(weight) * y

    written = write_native(folder, jax.tree.map(between, first, second), other, vocabulary)
    remove_additions(folder)
    return written


def _config(config: T5Config | None) -> T5Config:
    assert config is not None  # load_model always finds one
    return config
