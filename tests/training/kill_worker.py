"""Trains a tiny network for 12 steps in the given directory: what the kill test kills."""

import dataclasses
import sys
import time
from collections.abc import Iterator

from training_tiny import CONFIG, batches, numpy_params

from kaft_promot.training import Adafactor, CheckpointConfig, train


def slow_batches() -> Iterator[dict]:
    """The tests' batches, slow enough for a kill to come between them."""
    for one in batches():
        time.sleep(0.05)
        yield one


if __name__ == "__main__":
    config = dataclasses.replace(CONFIG, dropout_rate=0.2)
    train(
        model_config=config,
        initial_params=numpy_params(config),
        train_dataset_cfg=slow_batches,
        model_dir=sys.argv[1],
        total_steps=12,
        optimizer=Adafactor(learning_rate=0.1),
        stats_period=1,
        checkpoint_cfg=CheckpointConfig(period=3),
        tensorboard=False,
        progress=False,
    )
