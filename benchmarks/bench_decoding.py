"""Greedy decoding against Hugging Face's `generate` with its cache, on the CPU.

    BENCH_TORCH_PYTHON=path/to/python python benchmarks/bench_decoding.py

T5 1.1 with embed 256, 4 + 4 layers, 8 heads of 32, MLP 1024, vocabulary 8,192, random parameters;
batch 32, inputs 128, float32. No token ends a row, so that both always make 64 tokens. Ours with
the CPU as one device to JAX, and as one a core. Without PyTorch only our own figures are printed.

Then what attaching a soft prompt of 20 costs: inputs of 108 tokens behind it against inputs of 128
without one, and against the 108 alone.
"""

from __future__ import annotations

import sys

import networks
import numpy as np
import rivals

BATCH, INPUTS, TOKENS = 32, 128, 64
PROMPT_LENGTH = 20


def inputs(length: int = INPUTS) -> np.ndarray:
    return (
        np.random.default_rng(0)
        .integers(2, networks.WIDE["vocab"], (BATCH, length))
        .astype(np.int32)
    )


def ours(length: int = INPUTS, prompt: int = 0) -> None:
    """Greedy decoding of inputs of `length` tokens, behind a soft prompt of `prompt` if not 0."""
    import jax

    from kaft_promot.decoding import greedy
    from kaft_promot.models import attach_prompts, init_params, logical_axes
    from kaft_promot.scale.mesh import MeshConfig, batch_sharding, local_mesh, param_shardings

    config, mesh = networks.ours(networks.WIDE), local_mesh(MeshConfig())
    params = init_params(config, jax.random.key(0))
    tokens = inputs(length)
    if prompt:
        rows = np.random.default_rng(1).standard_normal((1, prompt, config.emb_dim), np.float32)
        config, params = attach_prompts(config, params, rows)
        ids = np.tile(np.asarray(config.placeholder_ids(), np.int32), (BATCH, 1))
        tokens = np.concatenate([ids, tokens], axis=1)
    params = jax.device_put(params, param_shardings(params, logical_axes(params), mesh))

    def work() -> None:
        shared = jax.device_put(tokens, batch_sharding(mesh))  # as `Predictor` does
        jax.block_until_ready(greedy(config, params, shared, TOKENS, eos_id=-1))

    rivals.serve(work)


def hugging_face() -> None:
    import torch

    network = networks.hugging_face(networks.WIDE, eos_token_id=None).eval()
    network.generation_config.eos_token_id = None
    tokens = torch.tensor(inputs(), dtype=torch.long)

    def work() -> None:
        with torch.inference_mode():
            made = network.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=TOKENS,
                do_sample=False,
            )
        assert made.shape == (BATCH, TOKENS + 1)

    rivals.serve(work)


WORKERS = {
    "kaft-promot": ours,
    f"kaft-promot{rivals.DEVICES}": ours,
    f"kaft-promot{rivals.PLAIN}": ours,
    "Hugging Face": hugging_face,
    f"Hugging Face{rivals.TUNED}": hugging_face,
}
PROMPTED = {
    "128 tokens": ours,
    "108 behind a prompt of 20": lambda: ours(INPUTS - PROMPT_LENGTH, PROMPT_LENGTH),
    "108 tokens": lambda: ours(INPUTS - PROMPT_LENGTH),
}


def main() -> None:
    if len(sys.argv) > 1:
        (WORKERS | PROMPTED)[sys.argv[1]]()
        return
    names = rivals.pythons(WORKERS)
    what = "Greedy decoding, 32 rows of 64 tokens, 11.5 M parameters, CPU"
    rivals.compare(what, __file__, names, rounds=9, unit="batch")
    what = "Greedy decoding behind a soft prompt, 32 rows of 64 tokens"
    rivals.compare(what, __file__, dict.fromkeys(PROMPTED, sys.executable), rounds=9, unit="batch")


if __name__ == "__main__":
    main()
