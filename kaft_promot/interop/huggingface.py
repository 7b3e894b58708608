"""Hugging Face's T5 folders (`config.json`, `model.safetensors`): T5 1.0, 1.1, Flan-T5, mT5, ByT5.

The networks are the same; names differ, and Hugging Face's linear layers store [out, in] where
T5X's kernels are [in, out].
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import load_vocabulary
from kaft_promot.interop.fields import Fields
from kaft_promot.interop.model import Model
from kaft_promot.interop.native import copy_vocabulary
from kaft_promot.interop.tensors import read_safetensors, write_json, write_safetensors
from kaft_promot.models import T5Config, flatten, unflatten, unstack_layers
from kaft_promot.models.gradients import EPSILON

_EMBEDDING, _OUTPUT = "token_embedder/embedding", "decoder/logits_dense/kernel"
_MODEL_TYPES = ("t5", "mt5", "byt5")
# Hugging Face's `feed_forward_proj` -> T5X's `mlp_activations`.
_ACTIVATIONS = {
    "relu": ("relu",),
    "gated-gelu": ("gelu", "linear"),
    "gated-silu": ("silu", "linear"),
}
_ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
# (stack, Hugging Face's sublayer number) -> (T5X's block, T5X's layer norm)
_SUBLAYERS = {
    ("encoder", 0): ("attention", "pre_attention_layer_norm"),
    ("encoder", 1): ("mlp", "pre_mlp_layer_norm"),
    ("decoder", 0): ("self_attention", "pre_self_attention_layer_norm"),
    ("decoder", 1): ("encoder_decoder_attention", "pre_cross_attention_layer_norm"),
    ("decoder", 2): ("mlp", "pre_mlp_layer_norm"),
}
_HF_BLOCKS = {
    ("encoder", 0): "SelfAttention",
    ("encoder", 1): "DenseReluDense",
    ("decoder", 0): "SelfAttention",
    ("decoder", 1): "EncDecAttention",
    ("decoder", 2): "DenseReluDense",
}
# Second names of `shared.weight`, and a bias that early T5 1.0 files carry but no version uses.
_IGNORED = re.compile(
    r"(encoder|decoder)\.embed_tokens\.weight|.*EncDecAttention\.relative_attention_bias\.weight"
)


def read_huggingface(folder: pathlib.Path) -> Model:
    """Reads a Hugging Face T5 folder.

    Raises:
      UserError: for another architecture, a missing file, or an unknown parameter.
    """
    fields = Fields.read(folder / "config.json")
    config = config_from_huggingface(fields)
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not whole.exists() and not index.exists():
        raise UserError(
            f"{folder}: no model.safetensors in it; save the model with safe_serialization=True"
        )
    tensors = read_safetensors(whole if whole.exists() else index)
    flat: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if _IGNORED.fullmatch(name):
            continue
        path, transposed = t5x_path(name, folder)
        flat[path] = np.ascontiguousarray(value.T) if transposed else value
    config, flat = _with_output(config, flat, fields)
    return Model(
        params=unflatten(flat),
        config=config,
        vocabulary=vocabulary_in(folder),
        origin=str(folder),
    )


def write_huggingface(
    folder: str | os.PathLike,
    params: Mapping[str, Any],
    config: T5Config,
    vocabulary: str | None = None,
) -> pathlib.Path:
    """Writes a folder that `T5ForConditionalGeneration.from_pretrained` reads.

    Returns:
      The path of the written `model.safetensors`.

    Raises:
      UserError: if Hugging Face's T5 has no place for something that the network has, or the
        vocabulary cannot be read.
    """
    folder = pathlib.Path(folder)
    if config.prompt_rows:
        raise UserError(f"{folder}: Hugging Face's T5 has no soft prompts; export --format native")
    fields = config_to_huggingface(config)  # before anything is written: it may refuse
    tensors: dict[str, np.ndarray] = {}
    for path, value in flatten(unstack_layers(params)).items():
        name, transposed = huggingface_name(path)
        array = np.asarray(value, np.float32)
        tensors[name] = array.T if transposed else array
    tokenizer: dict[str, Any] = {}
    if vocabulary is not None:
        kind = "ByT5Tokenizer" if vocabulary == "bytes" else "T5Tokenizer"
        extra_ids = load_vocabulary(vocabulary).extra_ids  # 0 where the file holds its sentinels
        tokenizer = {"tokenizer_class": kind, "extra_ids": extra_ids}
    folder.mkdir(parents=True, exist_ok=True)
    if vocabulary is not None:
        if vocabulary != "bytes":
            copy_vocabulary(vocabulary, folder, "spiece.model")
        write_json(folder / "tokenizer_config.json", tokenizer)
    write_json(folder / "config.json", fields)
    # transformers 4 refuses every other format
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    return folder / "model.safetensors"


def config_from_huggingface(fields: Fields) -> T5Config:
    """`T5Config` from Hugging Face's `config.json`.

    Its `logits_via_embedding` is what the file says; the tensors know better (`_with_output`).

    Raises:
      UserError: for another architecture, and fields that are missing or of another type.
    """
    model_type = fields.take("model_type", "str", None)
    if model_type not in _MODEL_TYPES:
        raise UserError(
            f"{fields.path}: model_type {model_type!r} is not one of {', '.join(_MODEL_TYPES)}"
        )
    projection = fields.take("feed_forward_proj", "str", "relu")
    if projection not in _ACTIVATIONS:
        raise UserError(
            f"{fields.path}: feed_forward_proj {projection!r} is not one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    epsilon = fields.take("layer_norm_epsilon", "float", EPSILON)
    if epsilon != EPSILON:
        raise UserError(
            f"{fields.path}: layer_norm_epsilon is {epsilon}; only networks with {EPSILON}, as all "
            "published T5 have, can be read"
        )
    layers = fields.take("num_layers", "int")
    return fields.network(
        vocab_size=fields.take("vocab_size", "int"),
        emb_dim=fields.take("d_model", "int"),
        num_heads=fields.take("num_heads", "int"),
        num_encoder_layers=layers,
        num_decoder_layers=fields.take("num_decoder_layers", "int", None) or layers,
        head_dim=fields.take("d_kv", "int"),
        mlp_dim=fields.take("d_ff", "int"),
        mlp_activations=_ACTIVATIONS[projection],
        dropout_rate=fields.take("dropout_rate", "float", 0.1),
        # absent means tied in T5's configuration, untied in mT5's
        logits_via_embedding=fields.take("tie_word_embeddings", "bool", model_type == "t5"),
        relative_attention_num_buckets=fields.take("relative_attention_num_buckets", "int", 32),
        relative_attention_max_distance=fields.take("relative_attention_max_distance", "int", 128),
    )


def _with_output(
    config: T5Config, flat: dict[str, np.ndarray], fields: Fields
) -> tuple[T5Config, dict[str, np.ndarray]]:
    """The network whose logits are those of the transformers that wrote it.

    Whether `lm_head.weight` is the embedding, only the tensors say: transformers 5 writes
    `tie_word_embeddings: true` always, and the matrix where it is another. Whether logits are
    divided by sqrt(d_model) is in its `scale_decoder_outputs`, and mT5's never are; transformers 4
    divides where the embeddings are tied, mT5's as well. Our network divides where it has no output
    matrix, so the other two kinds get one: the embedding, or a matrix that is divided already.

    Args:
      config: as the configuration says it.
      flat: parameters by T5X's path.
      fields: the configuration.
    """
    tied, stated = config.logits_via_embedding, "scale_decoder_outputs" in fields.values
    divided = fields.take("scale_decoder_outputs", "bool", tied)
    if fields.values["model_type"] == "mt5":
        version = fields.take("transformers_version", "str", None) or ""
        divided = tied and re.match(r"[0-4]\.", version) is not None
    if _EMBEDDING not in flat or (_OUTPUT not in flat and not (tied or stated)):
        return config, flat  # a parameter is missing, which is told where shapes are checked
    embedding = flat[_EMBEDDING].T
    kernel = flat.get(_OUTPUT, embedding)
    if divided and (kernel is embedding or np.array_equal(kernel, embedding)):
        rest = {path: value for path, value in flat.items() if path != _OUTPUT}
        return dataclasses.replace(config, logits_via_embedding=True), rest
    if divided:
        kernel = kernel * np.float32(config.emb_dim**-0.5)
    config = dataclasses.replace(config, logits_via_embedding=False)
    return config, {**flat, _OUTPUT: np.ascontiguousarray(kernel)}


def config_to_huggingface(config: T5Config) -> dict[str, Any]:
    """Hugging Face's `config.json` for a network.

    Raises:
      UserError: if Hugging Face's T5 cannot express its activations.
    """
    names = {activations: name for name, activations in _ACTIVATIONS.items()}
    if config.mlp_activations not in names:
        raise UserError(
            f"T5Config.mlp_activations={config.mlp_activations}: Hugging Face's T5 has only "
            f"{', '.join(_ACTIVATIONS)}; export --format native"
        )
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "vocab_size": config.vocab_size,
        "d_model": config.emb_dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "feed_forward_proj": names[config.mlp_activations],
        "tie_word_embeddings": config.logits_via_embedding,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "dropout_rate": config.dropout_rate,
        "layer_norm_epsilon": EPSILON,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "float32",
    }


def t5x_path(name: str, where: pathlib.Path | str = "") -> tuple[str, bool]:
    """T5X's path for a Hugging Face parameter name, and whether its matrix is transposed."""
    simple = {
        "shared.weight": (_EMBEDDING, False),
        "lm_head.weight": (_OUTPUT, True),
        "encoder.final_layer_norm.weight": ("encoder/encoder_norm/scale", False),
        "decoder.final_layer_norm.weight": ("decoder/decoder_norm/scale", False),
    }
    if name in simple:
        return simple[name]
    match = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.(.*)\.weight", name)
    if match and (match[1], int(match[3])) in _SUBLAYERS:
        stack, layer, rest = match[1], f"{match[1]}/layers_{match[2]}", match[4]
        block, norm = _SUBLAYERS[stack, int(match[3])]
        if rest == "layer_norm":
            return f"{layer}/{norm}/scale", False
        if rest == "SelfAttention.relative_attention_bias":
            return f"{stack}/relpos_bias/rel_embedding", True
        kind, _, part = rest.partition(".")
        if kind in ("SelfAttention", "EncDecAttention") and part in _ATTENTION:
            return f"{layer}/{block}/{_ATTENTION[part]}/kernel", True
        if kind == "DenseReluDense" and part in ("wi", "wi_0", "wi_1", "wo"):
            return f"{layer}/mlp/{part}/kernel", True
    raise UserError(f"{where}: {name} is no parameter of a T5 network")


def huggingface_name(path: str) -> tuple[str, bool]:
    """Hugging Face's name for a T5X parameter path, and whether its matrix is transposed."""
    simple = {
        _EMBEDDING: ("shared.weight", False),
        _OUTPUT: ("lm_head.weight", True),
        "encoder/encoder_norm/scale": ("encoder.final_layer_norm.weight", False),
        "decoder/decoder_norm/scale": ("decoder.final_layer_norm.weight", False),
    }
    if path in simple:
        return simple[path]
    stack, _, rest = path.partition("/")
    if rest == "relpos_bias/rel_embedding":
        name = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return name, True
    match = re.fullmatch(r"layers_(\d+)/([^/]+)/(?:(\w+)/)?(?:kernel|scale)", rest)
    if match:
        layer, block, part = match.groups()
        for (owner, number), (ours, norm) in _SUBLAYERS.items():
            prefix = f"{stack}.block.{layer}.layer.{number}"
            if owner == stack and block == norm:
                return f"{prefix}.layer_norm.weight", False
            if owner == stack and block == ours:
                short = {long: short for short, long in _ATTENTION.items()}.get(part, part)
                return f"{prefix}.{_HF_BLOCKS[owner, number]}.{short}.weight", True
    raise UserError(f"parameter {path}: Hugging Face's T5 has no place for it")


def vocabulary_in(folder: pathlib.Path) -> str | None:
    """The vocabulary that lies in a Hugging Face folder, None if there is none that T5 uses."""
    if (folder / "spiece.model").exists():
        return str(folder / "spiece.model")
    if (folder / "tokenizer_config.json").exists():
        tokenizer = Fields.read(folder / "tokenizer_config.json")
        if (tokenizer.take("tokenizer_class", "str", None) or "").startswith("ByT5"):
            return "bytes"
    return None
