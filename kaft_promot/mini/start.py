"""mini's parameters before training: random, but the output matrix starts as the embedding's.

    python -m kaft_promot.mini.start --vocabulary /data/mini/vocab.model --output /data/mini/start

T5 1.1 has an output matrix of its own. Random, it must learn for every single token that copying
its embedding through the network means naming that token; a small model on few data then copies
only tokens that it has often written. Started as the embedding's transpose (at the size that T5X
initialises it with), one copying circuit serves all tokens from the first step on, and training
may still pull the two apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kaft_promot.gin_config import macro_value, parse_gin
from kaft_promot.interop.native import write_native
from kaft_promot.models import Params, T5Config, init_params


def start_params(config: T5Config, key: jax.Array) -> Params:
    """`init_params` with `decoder/logits_dense/kernel` `[D, V]` = embedding^T / sqrt(D)."""
    params = init_params(config, key)
    embedding_VxD = params["token_embedder"]["embedding"]
    params["decoder"]["logits_dense"]["kernel"] = embedding_VxD.T / jnp.sqrt(float(config.emb_dim))
    return params


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", required=True, help="vocab.model of kaft_promot.mini.build")
    parser.add_argument("--output", required=True, help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    parse_gin(["models/mini.gin"])
    config = macro_value("MODEL").scoped_configurable_fn()
    params = start_params(config, jax.random.key(args.seed))
    print(write_native(args.output, params, config, args.vocabulary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
