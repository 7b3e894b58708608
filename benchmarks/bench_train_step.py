"""A training step against Hugging Face's PyTorch T5 with its Adafactor, on the CPU.

    BENCH_TORCH_PYTHON=path/to/python python benchmarks/bench_train_step.py

T5 1.1 with embed 256, 4 + 4 layers, 8 heads of 32, MLP 1024, vocabulary 8,192; batch 32, inputs
128, targets 64, float32. Without PyTorch only our own figures are printed.

Both are timed with the batch as a whole and in 4 parts whose gradients are summed (one update all
the same): with eight rows at a time the activations are a quarter as large. And both with malloc as
it is and as the command `kaft-promot` sets it (`kaft_promot/malloc.py`). Ours also with a device a
core (`JAX_NUM_CPU_DEVICES`), among which each of 2 parts is divided.

The last line is a floor: the step's multiplications alone, as JAX's products of large matrices.
"""

from __future__ import annotations

import functools
import sys

import networks
import numpy as np
import rivals

SIZES = networks.WIDE
BATCH, INPUTS, TARGETS = 32, 128, 64
PARTS = 4


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

    from kaft_promot.models import init_params
    from kaft_promot.scale.mesh import MeshConfig, shard_batch
    from kaft_promot.training import FULL, Adafactor, init_state, make_train_step

    config = networks.ours(SIZES)
    optimizer = Adafactor(learning_rate=1e-3)
    mesh = MeshConfig().make()
    state = init_state(init_params(config, jax.random.key(0)), optimizer, FULL, mesh, 0)
    step = make_train_step(config, optimizer, num_microbatches=parts)
    fed = features(*batch())

    def work() -> None:
        nonlocal state
        state, metrics = step(state, shard_batch(fed, mesh))  # as the loop does
        jax.block_until_ready(metrics)

    rivals.serve(work)


def hugging_face(parts: int) -> None:
    import torch
    import transformers

    network = networks.hugging_face(SIZES, dropout_rate=0.0).train()
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
    # Once forward; backward once for each of the two factors.
    return 3 * 2 * BATCH * sum(networks.multiplications(SIZES, INPUTS, TARGETS))


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
    f"kaft-promot / {PARTS}": functools.partial(ours, PARTS),
    f"kaft-promot / 2{rivals.DEVICES}": functools.partial(ours, 2),
    "kaft-promot": functools.partial(ours, 1),
    f"kaft-promot{rivals.PLAIN}": functools.partial(ours, 1),
    "Hugging Face": functools.partial(hugging_face, 1),
    f"Hugging Face{rivals.TUNED}": functools.partial(hugging_face, 1),
    f"Hugging Face / {PARTS}": functools.partial(hugging_face, PARTS),
    f"Hugging Face / {PARTS}{rivals.TUNED}": functools.partial(hugging_face, PARTS),
    "matmul floor": floor,
}


def main() -> None:
    if len(sys.argv) > 1:
        WORKERS[sys.argv[1]]()
        return
    names = rivals.pythons(WORKERS)
    rivals.compare("Training step, 11.5 M parameters, CPU", __file__, names, rounds=7, unit="step")
    print(f"a step's multiplications: {step_flops() / 1e9:.0f} GFLOP")


if __name__ == "__main__":
    main()
