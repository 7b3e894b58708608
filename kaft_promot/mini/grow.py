"""Gives mini one more head in every attention, in the encoder one that looks for equal tokens.

    python -m kaft_promot.mini.grow --checkpoint runs/mini --data /data/mini --output runs/grown

The new heads' output rows are zero, so the network computes what it did. The encoder's new heads
have equal query and key kernels, and a position bias that keeps a token from attending to itself:
each attends to the same token elsewhere, from the first step on. Without them a small network finds
matching only after thousands of steps, if at all: query and key must agree before either helps.

The kernels' 32 columns are the directions that tell tokens apart best at that layer, by a linear
discriminant analysis (Fisher, 1936) of the layer's inputs on training text.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import SentencePieceVocabulary
from kaft_promot.interop.checkpoint import load_model
from kaft_promot.interop.native import write_native
from kaft_promot.mini.facts import json_rows
from kaft_promot.mistakes import Parser, at_least_one, exit_status
from kaft_promot.models import Params, T5Config, Transformer, flatten, init_params, unflatten

MATCH_SCORE = 12.0  # by how much the score of an equal token exceeds another's, on average
SELF_BIAS = -20.0
SHRINKAGE = 0.1  # share of the total covariance that is added to that within tokens
_NORM = "pre_attention_layer_norm"


def matching_kernel(
    x_NxD: np.ndarray, tokens_N: np.ndarray, width: int, score: float = MATCH_SCORE
) -> np.ndarray:
    """A kernel `[D, width]`, for queries and keys alike, under which equal tokens match.

    Args:
      x_NxD: inputs of the attention at N positions.
      tokens_N: the token at each of them; some occur more than once.
      width: of a head, at most D.
      score: mean score of pairs of equal tokens less that of other pairs.
    """
    _, classes_N = np.unique(tokens_N, return_inverse=True)
    count_C = np.bincount(classes_N)
    sums_CxD = np.zeros((len(count_C), x_NxD.shape[1]))
    np.add.at(sums_CxD, classes_N, x_NxD)
    means_CxD = sums_CxD / count_C[:, None]
    within = x_NxD - means_CxD[classes_N]
    between_DxD = means_CxD.T @ means_CxD / len(means_CxD)
    noise_DxD = within.T @ within / len(x_NxD) + SHRINKAGE * between_DxD
    values_D, vectors_DxD = np.linalg.eigh(noise_DxD)
    whiten_DxD = vectors_DxD / np.sqrt(np.maximum(values_D, values_D[-1] * 1e-4))
    _, best_DxD = np.linalg.eigh(whiten_DxD.T @ between_DxD @ whiten_DxD)
    kernel_DxW = whiten_DxD @ best_DxD[:, -width:]
    means_CxW = means_CxD @ kernel_DxW
    scores_CxC = means_CxW @ means_CxW.T
    equal = np.trace(scores_CxC) / len(scores_CxC)
    other = (scores_CxC.sum() - np.trace(scores_CxC)) / (scores_CxC.size - len(scores_CxC))
    return kernel_DxW * np.sqrt(score / (equal - other))


def grow(
    params: Params, config: T5Config, tokens_BxL: np.ndarray, key: jax.Array
) -> tuple[Params, T5Config]:
    """`params` with one more head in every attention, and their configuration.

    Args:
      params: nested dict under T5X's names.
      tokens_BxL: int32 encoder inputs, 0 is padding: what the matching is fitted on.
      key: of the new heads' other values.

    Returns:
      New parameters, float32, and a configuration with `num_heads + 1`.
    """
    wider = dataclasses.replace(config, num_heads=config.num_heads + 1)
    new, old = flatten(init_params(wider, key)), flatten(params)
    inputs = attention_inputs(params, config, tokens_BxL)
    real = tokens_BxL > 0
    grown = {}
    for path, value in old.items():
        if new[path].shape == value.shape:
            grown[path] = value
            continue
        fresh = np.array(new[path])
        if path.endswith("rel_embedding"):  # [H, 32]
            fresh[:-1], fresh[-1] = value, 0.0
            if path.startswith("encoder"):
                fresh[-1, 0] = SELF_BIAS
        elif path.endswith("out/kernel"):  # [H * C, D]
            fresh[: len(value)], fresh[len(value) :] = value, 0.0
        else:  # [D, H * C]
            fresh[:, : value.shape[1]] = value
            stack, layer, _, role, _ = path.split("/")
            if stack == "encoder" and role in ("query", "key"):
                fresh[:, value.shape[1] :] = matching_kernel(
                    inputs[layer][real], tokens_BxL[real], config.head_dim
                )
        grown[path] = jnp.asarray(fresh)
    return unflatten(grown), wider


def attention_inputs(
    params: Params, config: T5Config, tokens_BxL: np.ndarray
) -> dict[str, np.ndarray]:
    """What every encoder layer's attention reads, `[B, L, D]`, by the layer's name."""
    _, state = Transformer(config).apply(
        {"params": params},
        jnp.asarray(tokens_BxL),
        method="encode",
        capture_intermediates=lambda module, _: module.name == _NORM,
        mutable=["intermediates"],
    )
    layers = state["intermediates"]["encoder"]
    return {name: np.asarray(layers[name][_NORM]["__call__"][0], np.float64) for name in layers}


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m kaft_promot.mini.grow", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="the model that grows")
    parser.add_argument("--data", type=Path, required=True, help="folder of kaft_promot.mini.build")
    parser.add_argument("--output", required=True, help="folder of the new checkpoint")
    parser.add_argument(
        "--examples", type=at_least_one, default=512, help="read from train.reading.jsonl"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    model = load_model(args.checkpoint)
    if model.config is None:
        raise UserError(f"{args.checkpoint}: holds no model_config.json; give a finished run")
    vocabulary = SentencePieceVocabulary(args.data / "vocab.model")
    examples = list(islice(json_rows(args.data / "train.reading.jsonl", ["inputs"]), args.examples))
    if len(examples) < args.examples:
        raise UserError(
            f"--examples={args.examples}: {args.data}/train.reading.jsonl has {len(examples)}"
        )
    ids = [vocabulary.encode(row["inputs"]) for row in examples]
    tokens_BxL = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row_L, row in zip(tokens_BxL, ids, strict=True):
        row_L[: len(row)] = row
    params, config = grow(model.params, model.config, tokens_BxL, jax.random.key(args.seed))
    print(write_native(args.output, params, config, vocabulary.path))


if __name__ == "__main__":
    sys.exit(main())
