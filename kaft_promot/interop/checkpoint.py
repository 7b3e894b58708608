"""One door for every kind of checkpoint: find out what a path holds, read it, check its shapes."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.interop import huggingface, native, t5x
from kaft_promot.interop.best import find_checkpoint
from kaft_promot.interop.model import Model
from kaft_promot.interop.vocabulary import MINI, checkpoint_vocabulary
from kaft_promot.models import (
    Params,
    T5Config,
    abstract_params,
    flatten,
    stack_layers,
    unstack_layers,
)


def load_params(path: str | os.PathLike, config: T5Config | None = None) -> Params:
    """Parameters from any checkpoint that this project reads.

    Args:
      path: 'mini' (the packaged model); a run's MODEL_DIR, or one of its `checkpoints/STEP` or
        `checkpoints/best`; an exported folder (`model.safetensors`); a Hugging Face T5 folder; a
        T5X checkpoint, or a folder of them (the newest is taken).
      config: the network that the parameters are for; their shapes are checked against it, and
        layers are stacked if it says `scan_layers`.

    Returns:
      Nested dict of float32 arrays under T5X's names.

    Raises:
      UserError: if the path holds no checkpoint, is damaged, or does not fit `config`, naming the
        parameter, both shapes and the path.
    """
    model = read(path)
    if config is None:
        return model.params
    check_params(model.params, config, model.origin)
    return stack_layers(model.params) if config.scan_layers else model.params


def load_model(path: str | os.PathLike, config: T5Config | None = None) -> Model:
    """Like `load_params`, with the network's configuration and vocabulary.

    The configuration is `config` where given, else what the checkpoint says, else what its shapes
    imply (T5X checkpoints say nothing). Layers are unrolled.
    """
    model = read(path)
    config = config or model.config or infer_config(model.params, model.origin)
    config = dataclasses.replace(config, scan_layers=False)
    check_params(model.params, config, model.origin)
    return dataclasses.replace(model, config=config)


def read(path: str | os.PathLike) -> Model:
    """Reads any checkpoint as it is, without checking it against a configuration."""
    if str(path) == "mini":
        return dataclasses.replace(native.read_native(MINI), origin="mini")
    path = find_checkpoint(path)
    if path.parent.name == "checkpoints" and path.name.isdigit():
        return _read_run(path.parent.parent, int(path.name))
    folder = path.parent if path.name.endswith(".safetensors") else path
    if (folder / "config.json").is_file():
        return huggingface.read_huggingface(folder)
    if (folder / native.TENSORS).is_file():
        return native.read_native(folder)
    if (folder / "checkpoints").is_dir():
        return _read_run(folder, "latest")
    if t5x.is_t5x(path):
        return t5x.read_t5x(path)
    raise UserError(
        f"{path}: no checkpoint in it; expected {native.TENSORS} (a finished run, an export), "
        "config.json (Hugging Face), or T5X's checkpoint_N"
    )


def _read_run(model_dir: pathlib.Path, step: int | str) -> Model:
    """A training checkpoint of a run that did not come to its end, or of an earlier step."""
    from kaft_promot.training import load_run  # which imports this room

    config, params = load_run(model_dir, step)
    return Model(
        params=unstack_layers(params),
        config=dataclasses.replace(config, scan_layers=False),
        vocabulary=checkpoint_vocabulary(
            model_dir / "checkpoints" / str(step) if isinstance(step, int) else model_dir
        ),
        step=step if isinstance(step, int) else None,
        origin=str(model_dir),
    )


def check_params(params: Mapping[str, Any], config: T5Config, origin: str) -> None:
    """Checks unrolled parameters against a configuration.

    Soft prompts may be missing from `params`: attaching one is the run's business.

    Raises:
      UserError: for the first parameter that is missing, unknown, or of another shape.
    """
    expected = flatten(abstract_params(dataclasses.replace(config, scan_layers=False)))
    found = flatten(params)
    for path, value in expected.items():
        if path not in found:
            if "prompt" in path:
                continue
            raise UserError(f"{origin}: parameter {path} {value.shape} is missing")
        if found[path].shape != value.shape:
            raise UserError(
                f"{origin}: parameter {path} has shape {found[path].shape}, but the model "
                f"configuration wants {value.shape}"
            )
    for path, value in found.items():
        if path not in expected:
            raise UserError(
                f"{origin}: parameter {path} {value.shape} has no place in the model configuration"
            )


def infer_config(params: Mapping[str, Any], origin: str = "parameters") -> T5Config:
    """The configuration that unrolled parameters imply.

    Two matrices in front of an MLP mean a gated GELU, one a ReLU; no output matrix means the
    embedding's (T5 1.0). The largest relative distance leaves no trace in the shapes: 128, as in
    every published T5.

    Raises:
      UserError: if they are not those of a T5-family network.
    """
    flat = flatten(params)
    try:
        vocab_size, emb_dim = flat["token_embedder/embedding"].shape
        num_heads, buckets = flat["encoder/relpos_bias/rel_embedding"].shape
        joined = flat["encoder/layers_0/attention/query/kernel"].shape[1]
        mlp_dim = flat["encoder/layers_0/mlp/wo/kernel"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{origin}: not a T5-family network: {error}") from error
    layers = {}
    for stack in ("encoder", "decoder"):
        names = {path.split("/")[1] for path in flat if path.startswith(f"{stack}/layers_")}
        layers[stack] = len(names)
    prompt = flat.get("encoder/prompt/prompt/prompt")
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_encoder_layers=layers["encoder"],
        num_decoder_layers=layers["decoder"],
        head_dim=joined // num_heads,
        mlp_dim=mlp_dim,
        mlp_activations=("gelu", "linear") if _gated(flat) else ("relu",),
        logits_via_embedding="decoder/logits_dense/kernel" not in flat,
        relative_attention_num_buckets=buckets,
        prompt_length=0 if prompt is None else prompt.shape[0],
        num_prompts=0 if prompt is None else 1,
    )


def _gated(flat: Mapping[str, Any]) -> bool:
    return "encoder/layers_0/mlp/wi_1/kernel" in flat
