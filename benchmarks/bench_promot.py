"""What a soft prompt costs and saves, on the CPU.

    python benchmarks/bench_promot.py

Stage 1's step (gradients for the prompt alone) against full fine-tuning's on the same batch: of
mini's sizes on packed examples and, behind a prompt of 20, on a batch like the quickstart's; and of
bench_train_step.py's network on its batch, behind a prompt of 20; there in 4 microbatches as well,
whose peak of memory stands beside that of a forward pass alone. And the same examples unpacked
and packed into rows of the same length, T5X's usual 512: inputs of 60 to 120 tokens, targets of 2,
as RTE has them, each behind a prompt of 100.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import bench_train_step
import networks
import numpy as np
import rivals

PROMPT_LENGTH, EXAMPLES = 100, 24
LENGTHS = {"inputs": 512, "targets": 16}
SHORT_PROMPT = 20
CLAIM_ROWS, CLAIM_LENGTHS = 8, {"inputs": 128, "targets": 16}


def examples(count: int, lengths: tuple[int, int], prompt: int) -> list[dict[str, np.ndarray]]:
    """Random inputs of `lengths[0]` to `lengths[1] - 1` tokens behind a prompt of `prompt`."""
    rng = np.random.default_rng(0)
    placeholders = networks.MINI["vocab"] + np.arange(prompt)
    return [
        {
            "inputs": np.concatenate([placeholders, tokens, [1]]).astype(np.int32),
            "targets": np.array([7, 1], np.int32),
        }
        for tokens in (rng.integers(3, 4000, n) for n in rng.integers(*lengths, count))
    ]


def wide_batch() -> dict[str, np.ndarray]:
    """The batch of bench_train_step.py, its first inputs replaced by the prompt's placeholders."""
    inputs, targets = bench_train_step.batch()
    inputs[:, :SHORT_PROMPT] = networks.WIDE["vocab"] + np.arange(SHORT_PROMPT)
    return bench_train_step.features(inputs, targets)


def batch(packed: bool) -> dict[str, np.ndarray]:
    """The same examples, each in a row of its own or packed."""
    from kaft_promot.feeding import batch_examples
    from kaft_promot.feeding.packing import assemble, first_fit

    made: Any = examples(EXAMPLES, (60, 121), PROMPT_LENGTH)
    if not packed:
        return batch_examples(made, LENGTHS, EXAMPLES)[0]
    rows, used = first_fit(made, 0, LENGTHS, EXAMPLES)
    assert used == EXAMPLES
    return assemble(rows, LENGTHS)


def claims_batch() -> dict[str, np.ndarray]:
    """A batch like those of recipes/promot_mini.gin: short claims, packed into 8 rows of 128."""
    from kaft_promot.feeding.packing import assemble, first_fit

    made: Any = examples(8 * CLAIM_ROWS, (20, 40), SHORT_PROMPT)
    rows, _ = first_fit(made, 0, CLAIM_LENGTHS, CLAIM_ROWS)
    return assemble(rows, CLAIM_LENGTHS)


def prompted(sizes: dict[str, Any], prompt: int) -> tuple[Any, Any]:
    """The network's configuration and random parameters, with a prompt of `prompt` rows."""
    import jax

    from kaft_promot.models import attach_prompts, init_params

    config = networks.ours(sizes)
    params = init_params(config, jax.random.key(0))
    return attach_prompts(config, params, np.zeros((1, prompt, config.emb_dim), np.float32))


def forward_of(sizes: dict[str, Any], prompt: int, features: dict[str, np.ndarray]) -> None:
    """What inference computes of a batch: the likeliest token at every place."""
    import jax

    from kaft_promot.training.state import model_features
    from kaft_promot.training.step import forward

    config, params = prompted(sizes, prompt)
    params = jax.device_put(params)
    likeliest = jax.jit(lambda params, batch: forward(config, params, batch).argmax(-1))
    rivals.serve(lambda: likeliest(params, model_features(features)).block_until_ready())


def steps_of(
    trained: str,
    sizes: dict[str, Any],
    prompt: int,
    features: dict[str, np.ndarray],
    steps: int,
    parts: int,
) -> None:
    import jax

    from kaft_promot.scale.mesh import MeshConfig
    from kaft_promot.training import FULL, PROMPT, Adafactor, init_state, make_train_step

    config, params = prompted(sizes, prompt)
    config = dataclasses.replace(config, dropout_rate=0.1)
    optimizer = Adafactor(learning_rate=1e-3)
    stage = {"full": FULL, "prompt": PROMPT}[trained]
    state = init_state(params, optimizer, stage, MeshConfig().make())
    step = make_train_step(config, optimizer, num_microbatches=parts)

    def work() -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, features)
        jax.block_until_ready(metrics)

    rivals.serve(work, warm_up=1)


# What every worker computes, its case, and in how many parts. A case is a network, its prompt's
# length, a batch, and how many steps are timed together: one of a small batch is too short a time.
CASES: dict[str, tuple[dict[str, Any], int, Callable[[], dict[str, np.ndarray]], int]] = {
    "packed": (networks.MINI, PROMPT_LENGTH, lambda: batch(packed=True), 1),
    "unpacked": (networks.MINI, PROMPT_LENGTH, lambda: batch(packed=False), 1),
    "claims": (networks.MINI, SHORT_PROMPT, claims_batch, 20),
    "wide": (networks.WIDE, SHORT_PROMPT, wide_batch, 1),
}
WORKERS = {
    "stage 1": ("prompt", "packed", 1),
    "full fine-tuning": ("full", "packed", 1),
    "stage 1, claims": ("prompt", "claims", 1),
    "full, claims": ("full", "claims", 1),
    "stage 1, wide": ("prompt", "wide", 1),
    "full, wide": ("full", "wide", 1),
    "stage 1, wide, 4 microbatches": ("prompt", "wide", 4),
    "full, wide, 4 microbatches": ("full", "wide", 4),
    "forward pass, wide": ("forward", "wide", 1),
    "packed": ("prompt", "packed", 1),
    "unpacked": ("prompt", "unpacked", 1),
}


def arithmetic(case: str) -> float:
    """A full step's multiplications over stage 1's, which lacks those of the kernels' gradients.

    The products between tokens have no parameters: stage 1 needs the gradients of both factors.
    """
    sizes, _, make_batch, _ = CASES[case]
    lengths = (make_batch()[f"{n}_tokens"].shape[1] for n in ("encoder_input", "decoder_target"))
    kernels, between = networks.multiplications(sizes, *lengths)
    return (3 * kernels + 3 * between) / (2 * kernels + 3 * between)


def main() -> None:
    if len(sys.argv) > 1:
        trained, case, parts = WORKERS[sys.argv[1]]
        sizes, prompt, make_batch, steps = CASES[case]
        if trained == "forward":
            forward_of(sizes, prompt, make_batch())
        else:
            steps_of(trained, sizes, prompt, make_batch(), steps, parts)
        return
    wide = [name for name, (_, case, _) in WORKERS.items() if case == "wide"]
    for title, names in (
        (f"mini's sizes, {EXAMPLES} examples, packed", ("stage 1", "full fine-tuning")),
        (f"mini's sizes, {CLAIM_ROWS} rows of claims", ("stage 1, claims", "full, claims")),
        ("256 wide, 4 + 4 layers, 32 rows", tuple(wide)),
        (f"mini's sizes, stage 1 on {EXAMPLES} examples", ("packed", "unpacked")),
    ):
        steps = CASES[WORKERS[names[0]][1]][-1]
        unit = "step" if steps == 1 else f"{steps} steps"
        rivals.compare(title, __file__, dict.fromkeys(names, sys.executable), rounds=5, unit=unit)
        if names[0].startswith("stage 1"):
            print(f"by their multiplications alone: {arithmetic(WORKERS[names[0]][1]):.2f}")


if __name__ == "__main__":
    main()
