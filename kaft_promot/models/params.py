"""Parameters as plain nested dictionaries: creation, stacking of layers, named axes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kaft_promot.models.config import T5Config
from kaft_promot.models.t5 import Transformer

Params = dict[str, Any]

# The named axes of every parameter, by the end of its path. A stacked layer has 'layers' in front.
_AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r".*token_embedder/embedding", ("vocab", "embed")),
    (r".*prompt/prompt", ("prompt", "embed")),
    (r".*relpos_bias/rel_embedding", ("heads", "relpos_buckets")),
    (r".*(query|key|value)/kernel", ("embed", "joined_kv")),
    (r".*/out/kernel", ("joined_kv", "embed")),
    (r".*mlp/wi(_\d+)?/kernel", ("embed", "mlp")),
    (r".*mlp/wo/kernel", ("mlp", "embed")),
    (r".*logits_dense/kernel", ("embed", "vocab")),
    (r".*norm/scale", ("embed",)),
)
# Low-rank additions to a kernel `[I, O]`: `lora_a` [I, R], `lora_b` [R, O].
_LORA = re.compile(r"(.*)/lora_([ab])")
_STACKED = re.compile(r"(encoder|decoder)/layers/(.*)")
_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.*)")


def flatten(params: Mapping[str, Any]) -> dict[str, Any]:
    """`{'encoder/layers_0/mlp/wo/kernel': array, ...}` of nested parameters."""
    return traverse_util.flatten_dict(params, sep="/")


def unflatten(flat: Mapping[str, Any]) -> Params:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def init_params(config: T5Config, key: jax.Array) -> Params:
    """Random float32 parameters as a plain nested dict with T5X's names.

    The initialisation is T5X's: embedding normal(1), kernels normal with variance 1 / fan-in
    (queries divided by sqrt(head_dim)), scales 1.
    """
    token = jnp.ones((1, 1), jnp.int32)
    return jax.jit(Transformer(config).init)(key, token, token)["params"]


def abstract_params(config: T5Config) -> Params:
    """`jax.ShapeDtypeStruct`s of the parameters of `config`, without computing anything."""
    return unflatten(_shapes(config))


@functools.lru_cache(maxsize=32)
def _shapes(config: T5Config) -> dict[str, Any]:
    """By path, kept: tracing a network takes longer than reading a small one from disk."""
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return flatten(
        jax.eval_shape(Transformer(config).init, jax.random.key(0), token, token)["params"]
    )


def logical_axes(params: Mapping[str, Any]) -> Params:
    """The named axes of every parameter, a nested dict of tuples of the same structure.

    Names: vocab, embed, heads, joined_kv (heads times head width, as T5X stores kernels), mlp,
    relpos_buckets, prompt, lora_rank, layers.

    Raises:
      ValueError: for a path that no rule knows.
    """
    axes = {}
    for path, value in flatten(params).items():
        lora = _LORA.fullmatch(path)
        kernel = f"{lora[1]}/kernel" if lora else path
        names = next((names for end, names in _AXES if re.fullmatch(end, kernel)), None)
        if lora and names:
            names = (names[0], "lora_rank") if lora[2] == "a" else ("lora_rank", names[1])
        if names is None:
            raise ValueError(f"parameter {path}: no rule names its axes; add one to {__name__}")
        axes[path] = (("layers",) if _STACKED.fullmatch(path) else ()) + names
        if len(axes[path]) != len(value.shape):
            raise ValueError(f"parameter {path} has shape {value.shape}, not axes {axes[path]}")
    return unflatten(axes)


def stack_layers(params: Mapping[str, Any]) -> Params:
    """Turns `layers_0`, `layers_1`, ... into one `layers` with a leading axis (`scan_layers`)."""
    stacked: dict[str, Any] = {}
    groups: dict[str, dict[int, Any]] = {}
    for path, value in flatten(params).items():
        match = _LAYER.fullmatch(path)
        if match:
            stack, index, rest = match.groups()
            groups.setdefault(f"{stack}/layers/{rest}", {})[int(index)] = value
        else:
            stacked[path] = value
    for path, by_index in groups.items():
        stacked[path] = jnp.stack([by_index[i] for i in range(len(by_index))])
    return unflatten(stacked)


def unstack_layers(params: Mapping[str, Any]) -> Params:
    """The inverse of `stack_layers`; parameters without stacked layers pass through."""
    flat: dict[str, Any] = {}
    for path, value in flatten(params).items():
        match = _STACKED.fullmatch(path)
        if match:
            stack, rest = match.groups()
            flat.update({f"{stack}/layers_{i}/{rest}": value[i] for i in range(value.shape[0])})
        else:
            flat[path] = value
    return unflatten(flat)


def unrolled(config: T5Config, params: Mapping[str, Any]) -> tuple[T5Config, Params]:
    """The same network with unrolled layers: what decoding runs and what checkpoints name."""
    return dataclasses.replace(config, scan_layers=False), unstack_layers(params)


def params_digest(params: Params) -> str:
    """Eight hex digits that change with every parameter's name, shape and first values."""
    digest = hashlib.blake2b(digest_size=4)
    for name, value in sorted(flatten(params).items()):
        digest.update(f"{name}{value.shape}".encode())
        row = max(math.prod(value.shape[1:]), 1)
        rows = value[: -(-1024 // row)] if value.ndim else value  # no whole array leaves its device
        digest.update(np.asarray(rows).reshape(-1)[:1024].tobytes())
    return digest.hexdigest()
