"""A tiny network, its batches and its runs, shared by the training tests."""

import itertools
from collections.abc import Iterator

import numpy as np

from kaft_promot.models import Params, T5Config, abstract_params, flatten, unflatten
from kaft_promot.training import Adafactor, CheckpointConfig, train

CONFIG = T5Config(
    vocab_size=32,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=16,
)


def batch(rows: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs whose target is their own beginning; some targets end early."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(2, 32, (rows, 8)).astype(np.int32)
    targets = inputs[:, :5] * (np.arange(5) < rng.integers(2, 6, (rows, 1)))
    return {
        "encoder_input_tokens": inputs,
        "decoder_target_tokens": targets.astype(np.int32),
        "decoder_input_tokens": np.pad(targets, [(0, 0), (1, 0)])[:, :-1].astype(np.int32),
        "decoder_loss_weights": (targets > 0).astype(np.float32),
    }


def batches(rows: int = 4) -> Iterator[dict[str, np.ndarray]]:
    """An endless stream of different batches, the same each time."""
    return (batch(rows, seed) for seed in itertools.count())


def numpy_params(config: T5Config, seed: int = 0) -> Params:
    """Random parameters without compiling the initialisation."""
    rng = np.random.default_rng(seed)
    made = {}
    for path, x in flatten(abstract_params(config)).items():
        deviation = 1.0 if "embed" in path else x.shape[0] ** -0.5
        made[path] = rng.normal(0, deviation, x.shape).astype(np.float32)
        if path.endswith("scale"):
            made[path] = np.ones(x.shape, np.float32)
    return unflatten(made)


def run(model_dir, total_steps: int, **arguments) -> Params:
    """Trains the tiny network; `arguments` are `train`'s."""
    arguments = {
        "model_config": CONFIG,
        "train_dataset_cfg": batches,
        "optimizer": Adafactor(learning_rate=0.1),
        "stats_period": 4,
        "checkpoint_cfg": CheckpointConfig(period=5),
        "tensorboard": False,
        "progress": False,
        **arguments,
    }
    return train(model_dir=model_dir, total_steps=total_steps, **arguments)


def assert_same(first: Params, second: Params) -> None:
    """Both have the same parameters, bit by bit."""
    one, other = flatten(first), flatten(second)
    assert one.keys() == other.keys()
    for path, value in one.items():
        np.testing.assert_array_equal(value, other[path], err_msg=path)
