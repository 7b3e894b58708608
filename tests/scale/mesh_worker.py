"""Trains a tiny network on one device and on meshes of eight; prints the largest differences."""

import dataclasses
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "training"))

import jax
import numpy as np
from training_tiny import CONFIG, batch, numpy_params

from kaft_promot.errors import UserError
from kaft_promot.models import flatten
from kaft_promot.scale import MeshConfig, shard_batch
from kaft_promot.training import FULL, Adafactor, init_state, make_train_step, train


def forbidden():
    """Batches that must not be asked for: what is wrong elsewhere is found before."""
    yield from ()
    raise AssertionError("the training has started")


if __name__ == "__main__":
    # Eight heads and a factored optimizer, so that every axis of the mesh has something to divide.
    config = dataclasses.replace(CONFIG, num_heads=8)
    optimizer = Adafactor(learning_rate=0.01, min_dim_size_to_factor=8)
    step = make_train_step(config, optimizer, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS")
    ends, report = [], {}
    for sizes in ((1, 1, 1), (8, 1, 1), (2, 2, 2)):
        mesh_config = MeshConfig(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
        mesh = mesh_config.make(jax.devices()[: int(np.prod(sizes))])
        state = init_state(numpy_params(config), optimizer, FULL, mesh)
        for seed in range(3):
            state, metrics = step(state, shard_batch(batch(rows=8, seed=seed), mesh))
        ends.append({path: np.asarray(x) for path, x in flatten(state.params).items()})
        kernel = state.params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
        report[str(sizes)] = {
            "difference": max(float(np.abs(ends[0][p] - x).max()) for p, x in ends[-1].items()),
            "loss": float(metrics["loss"]),
            "kernel": list(kernel.addressable_shards[0].data.shape),
        }
    for source in ("train_dataset_cfg", "train_eval_dataset_cfg"):
        arguments = {"train_dataset_cfg": forbidden, source: lambda: [batch(rows=6)]}
        try:
            train(
                **arguments,
                model_dir=None,
                total_steps=1,
                model_config=config,
                initial_params=numpy_params(config),
                optimizer=optimizer,
                progress=False,
            )
        except UserError as error:
            report[source] = str(error)
    print(json.dumps(report))
