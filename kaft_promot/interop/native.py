"""This project's exported form: `model.safetensors` and `model_config.json` in one folder.

Tensors have T5X's names with dots (`encoder.layers_0.attention.query.kernel`); the JSON file holds
the fields of `T5Config` and `vocabulary`, a path relative to the folder where it lies inside it.
"""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import vocabulary_path
from kaft_promot.interop.fields import Fields
from kaft_promot.interop.model import Model
from kaft_promot.interop.tensors import read_safetensors, write_json, write_safetensors
from kaft_promot.models import T5Config, flatten, unflatten, unstack_layers

TENSORS = "model.safetensors"
CONFIG = "model_config.json"
# How a network runs rather than what it is; not a property of its parameters.
_RUN_FIELDS = ("dropout_rate", "scan_layers", "remat")


def read_native(folder: pathlib.Path) -> Model:
    """Reads a folder that `write_native` wrote.

    Raises:
      UserError: if a file is missing or malformed.
    """
    config, vocabulary, step = None, None, None
    if (folder / CONFIG).exists():
        fields = Fields.read(folder / CONFIG)
        vocabulary = vocabulary_in(folder, fields)
        step = fields.take("step", "int", None)
        config = config_from_native(fields)
    tensors = read_safetensors(folder / TENSORS)
    params = unflatten({name.replace(".", "/"): value for name, value in tensors.items()})
    return Model(params=params, config=config, vocabulary=vocabulary, step=step, origin=str(folder))


def write_native(
    folder: str | os.PathLike,
    params: Mapping[str, Any],
    config: T5Config,
    vocabulary: str | None = None,
    step: int | None = None,
) -> pathlib.Path:
    """Writes parameters (stacked or not) with their configuration.

    Args:
      folder: made if it does not exist.
      params: nested dict of arrays under T5X's names.
      config: the network's sizes.
      vocabulary: path of a SentencePiece model (copied into the folder) or a vocabulary's name.
      step: training step of the parameters.

    Returns:
      The path of the written `model.safetensors`.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = flatten(unstack_layers(params))
    write_safetensors(
        folder / TENSORS,
        {path.replace("/", "."): np.asarray(value, np.float32) for path, value in flat.items()},
    )
    fields: dict[str, Any] = {
        name: value for name, value in dataclasses.asdict(config).items() if name not in _RUN_FIELDS
    }
    if vocabulary is not None:
        fields["vocabulary"] = copy_vocabulary(vocabulary, folder, "vocab.model")
    if step is not None:
        fields["step"] = int(step)
    write_json(folder / CONFIG, fields)
    return folder / TENSORS


def vocabulary_in(folder: pathlib.Path, fields: Fields) -> str | None:
    """The vocabulary that a `model_config.json` names; a file in the folder as its whole path."""
    name = fields.take("vocabulary", "str", None)
    if name and (folder / name).exists():
        return str(folder / name)
    return name


def copy_vocabulary(vocabulary: str, folder: pathlib.Path, name: str) -> str:
    """Copies a vocabulary file into `folder`; names such as 'bytes' are returned as they are."""
    source = vocabulary_path(vocabulary)
    if not source.is_file():
        return vocabulary
    if source.resolve() != (folder / name).resolve():
        shutil.copyfile(source, folder / name)
    return name


def config_from_native(fields: Fields) -> T5Config:
    """A `T5Config` from a `model_config.json`.

    Raises:
      UserError: for unknown or missing fields and impossible values, naming the file.
    """
    known = {field.name: field for field in dataclasses.fields(T5Config)}
    unknown = sorted(set(fields.values) - set(known) - {"vocabulary", "step"})
    if unknown:
        raise UserError(f"{fields.path}: unknown field {unknown[0]}")
    sizes: dict[str, Any] = {}
    for name, field in known.items():
        if name in fields.values or field.default is dataclasses.MISSING:
            sizes[name] = fields.take(name, str(field.type))
    return fields.network(**sizes)
