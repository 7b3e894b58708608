"""A training step against Hugging Face's PyTorch T5 with its Adafactor, on the CPU.

    BENCH_TORCH_PYTHON=path/to/python python benchmarks/bench_train_step.py

T5 1.1 with embed 256, 4 + 4 layers, 8 heads of 32, MLP 1024, vocabulary 8,192; batch 32, inputs
128, targets 64, float32. Without PyTorch only our own figures are printed.

Both are timed with the batch as a whole and in 8 parts whose gradients are summed (one update all
the same): parts of four rows keep the activations in the processor's cache, and the system need not
hand out and take back a gigabyte of pages in every step.

The last line is a floor: the step's multiplications alone, as JAX's products of large matrices.
"""

from __future__ import annotations

import functools
import sys

import numpy as np
import rivals

SIZES = dict(vocab=8192, embed=256, heads=8, head=32, layers=4, mlp=1024)
BATCH, INPUTS, TARGETS = 32, 128, 64
PARTS = 8


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (BATCH, INPUTS), (BATCH, TARGETS)
    return tuple(rng.integers(2, SIZES["vocab"], s).astype(np.int32) for s in shape)


def features(inputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """What a training step is fed."""
    return {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": targets,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_loss_weights": np.ones_like(targets),
    }


def ours(parts: int) -> None:
    import jax

    from kaft_promot.models import T5Config, init_params
    from kaft_promot.scale.mesh import MeshConfig
    from kaft_promot.training import FULL, Adafactor, init_state, make_train_step

    config = T5Config(
        vocab_size=SIZES["vocab"],
        emb_dim=SIZES["embed"],
        num_heads=SIZES["heads"],
        head_dim=SIZES["head"],
        num_encoder_layers=SIZES["layers"],
        num_decoder_layers=SIZES["layers"],
        mlp_dim=SIZES["mlp"],
    )
    optimizer = Adafactor(learning_rate=1e-3)
    mesh = MeshConfig().make()
    state = init_state(init_params(config, jax.random.key(0)), optimizer, FULL, mesh, 0)
    step = make_train_step(config, optimizer, num_microbatches=parts)
    fed = features(*batch())

    def work() -> None:
        nonlocal state
        state, metrics = step(state, fed)
        jax.block_until_ready(metrics)

    rivals.serve(work)


def hugging_face(parts: int) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    network = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=SIZES["vocab"],
            d_model=SIZES["embed"],
            d_kv=SIZES["head"],
            d_ff=SIZES["mlp"],
            num_heads=SIZES["heads"],
            num_layers=SIZES["layers"],
            num_decoder_layers=SIZES["layers"],
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    ).train()
    optimizer = transformers.optimization.Adafactor(
        network.parameters(), lr=1e-3, relative_step=False, warmup_init=False
    )
    inputs, targets = (torch.tensor(x, dtype=torch.long) for x in batch())

    def work() -> None:
        optimizer.zero_grad()
        for rows in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
            (network(input_ids=rows[0], labels=rows[1]).loss / parts).backward()
        optimizer.step()

    rivals.serve(work)


def step_flops() -> float:
    """Floating-point operations of the step's matrix products, forward and backward."""
    d, ff, inner = SIZES["embed"], SIZES["mlp"], SIZES["heads"] * SIZES["head"]
    mlp, projections = 3 * d * ff, 4 * d * inner
    encoder = INPUTS * (mlp + projections + 2 * INPUTS * inner)
    decoder = TARGETS * (mlp + projections + 2 * TARGETS * inner)
    cross = (TARGETS + INPUTS) * projections / 2 + 2 * TARGETS * INPUTS * inner
    forward = SIZES["layers"] * (encoder + decoder + cross) + TARGETS * d * SIZES["vocab"]
    return 3 * 2 * BATCH * forward


def floor() -> None:
    import jax
    import jax.numpy as jnp

    n = 2048
    times = round(step_flops() / (2 * n**3))
    matrix = jax.random.normal(jax.random.key(0), (n, n)) / n**0.5

    @jax.jit
    def products(x: jax.Array) -> jax.Array:
        for _ in range(times):
            x = jnp.dot(x, matrix)
        return x

    rivals.serve(lambda: jax.block_until_ready(products(matrix)))


WORKERS = {
    "kaft-promot / 8": functools.partial(ours, PARTS),
    "kaft-promot": functools.partial(ours, 1),
    "Hugging Face": functools.partial(hugging_face, 1),
    "Hugging Face / 8": functools.partial(hugging_face, PARTS),
    "matmul floor": floor,
}


def main() -> None:
    if len(sys.argv) > 1:
        WORKERS[sys.argv[1]]()
        return
    python = rivals.torch_python()
    if not python:
        print("no PyTorch here: set BENCH_TORCH_PYTHON to a Python with torch and transformers")
    theirs = {name: python for name in WORKERS if name.startswith("Hugging")}
    names = {name: theirs.get(name, sys.executable) for name in WORKERS}
    names = {name: path for name, path in names.items() if path}
    rivals.compare("Training step, 11.5 M parameters, CPU", __file__, names, rounds=5, unit="step")


if __name__ == "__main__":
    main()
