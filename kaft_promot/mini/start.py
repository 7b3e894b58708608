"""mini's parameters before training: random, but ready to copy.

    python -m kaft_promot.mini.start --vocabulary /data/mini/vocab.model --output /data/mini/start

T5 1.1 has an output matrix of its own. Random, it must learn for every single token that copying
its embedding through the network means naming that token; a small model on few data then copies
only tokens that it has often written. So it starts as the embedding's transpose, at the size that
T5X initialises it with, and training may still pull the two apart.

To copy a phrase, a decoder looks for the place behind the token that it wrote last, so keys must
know their previous token. Transformers whose keys see it from the start learn to copy without the
long plateau that comes before (the "smeared keys" of Olsson et al., In-context Learning and
Induction Heads, 2022). Here one head of each stack starts with its position bias on the token
before, and one of the encoder's on the token behind.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import load_vocabulary
from kaft_promot.gin_config import macro_value, parse_gin
from kaft_promot.interop.native import write_native
from kaft_promot.mistakes import Parser, exit_status
from kaft_promot.models import Params, T5Config, init_params

NEIGHBOUR_BIAS = 5.0  # e^5 times the weight of any other position
BEFORE, BEHIND = 1, 17  # buckets of the distances -1 and, in the encoder, +1


def start_params(config: T5Config, key: jax.Array) -> Params:
    """`init_params` with `decoder/logits_dense/kernel` `[D, V]` = embedding^T / sqrt(D), and with
    `NEIGHBOUR_BIAS` added to `relpos_bias/rel_embedding` `[H, 32]` where heads see neighbours.
    """
    params = init_params(config, key)
    embedding_VxD = params["token_embedder"]["embedding"]
    params["decoder"]["logits_dense"]["kernel"] = embedding_VxD.T / jnp.sqrt(float(config.emb_dim))
    for stack, head, bucket in (
        ("encoder", 0, BEFORE),
        ("encoder", 1, BEHIND),
        ("decoder", 0, BEFORE),
    ):
        bias = params[stack]["relpos_bias"]
        bias["rel_embedding"] = bias["rel_embedding"].at[head, bucket].add(NEIGHBOUR_BIAS)
    return params


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m kaft_promot.mini.start", description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", required=True, help="vocab.model of kaft_promot.mini.build")
    parser.add_argument("--output", required=True, help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    ids = load_vocabulary(args.vocabulary).vocab_size
    parse_gin(["models/mini.gin"])
    config = macro_value("MODEL").scoped_configurable_fn()
    if ids > config.vocab_size:
        raise UserError(
            f"--vocabulary={args.vocabulary}: has {ids} ids, but models/mini.gin has only "
            f"{config.vocab_size} embeddings"
        )
    params = start_params(config, jax.random.key(args.seed))
    print(write_native(args.output, params, config, args.vocabulary))


if __name__ == "__main__":
    sys.exit(main())
