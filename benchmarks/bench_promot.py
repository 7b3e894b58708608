"""What a soft prompt costs and saves, on mini's sizes and the CPU.

    python benchmarks/bench_promot.py

Stage 1's step (gradients for the prompt alone) against full fine-tuning's on the same batch, and
the same examples unpacked and packed into rows of the same length, T5X's usual 512: inputs of 60 to
120 tokens, targets of 2, as RTE has them, each behind a prompt of 100.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import rivals

PROMPT_LENGTH, EXAMPLES = 100, 24
LENGTHS = {"inputs": 512, "targets": 16}


def examples() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    prompt = np.arange(4096, 4096 + PROMPT_LENGTH)
    return [
        {
            "inputs": np.concatenate([prompt, rng.integers(3, 4000, n), [1]]).astype(np.int32),
            "targets": np.array([7, 1], np.int32),
        }
        for n in rng.integers(60, 121, EXAMPLES)
    ]


def batch(packed: bool) -> dict[str, np.ndarray]:
    """The same examples, each in a row of its own or packed."""
    from kaft_promot.feeding import batch_examples
    from kaft_promot.feeding.packing import assemble, first_fit

    made: Any = examples()
    if not packed:
        return batch_examples(made, LENGTHS, EXAMPLES)[0]
    rows, used = first_fit(made, 0, LENGTHS, EXAMPLES)
    assert used == EXAMPLES
    return assemble(rows, LENGTHS)


def step_of(trained: str, packed: bool) -> None:
    import jax

    from kaft_promot.models import T5Config, attach_prompts, init_params
    from kaft_promot.scale.mesh import MeshConfig
    from kaft_promot.training import FULL, PROMPT, Adafactor, init_state, make_train_step

    config = T5Config(
        vocab_size=4096,
        emb_dim=128,
        num_heads=4,
        head_dim=32,
        num_encoder_layers=4,
        num_decoder_layers=2,
        mlp_dim=384,
    )
    params = init_params(config, jax.random.key(0))
    rows = np.zeros((1, PROMPT_LENGTH, config.emb_dim), np.float32)
    config, params = attach_prompts(config, params, rows)
    config = dataclasses.replace(config, dropout_rate=0.1)
    optimizer = Adafactor(learning_rate=1e-3)
    stage = {"full": FULL, "prompt": PROMPT}[trained]
    state = init_state(params, optimizer, stage, MeshConfig().make())
    step = make_train_step(config, optimizer)
    features = batch(packed)

    def work() -> None:
        nonlocal state
        state, metrics = step(state, features)
        jax.block_until_ready(metrics)

    rivals.serve(work, warm_up=1)


WORKERS = {
    "stage 1": ("prompt", True),
    "full fine-tuning": ("full", True),
    "packed": ("prompt", True),
    "unpacked": ("prompt", False),
}


def main() -> None:
    if len(sys.argv) > 1:
        step_of(*WORKERS[sys.argv[1]])
        return
    for title, pair in (
        (f"Step on {EXAMPLES} examples, packed", ("stage 1", "full fine-tuning")),
        (f"Stage 1 on {EXAMPLES} examples", ("packed", "unpacked")),
    ):
        names = {name: sys.executable for name in pair}
        rivals.compare(title, __file__, names, rounds=5, unit="step")


if __name__ == "__main__":
    main()
