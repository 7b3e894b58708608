"""One process of a run: `process_worker.py MODEL_DIR STEPS`; the environment says which process."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "training"))

import jax
from training_tiny import CONFIG, batches, numpy_params

from kaft_promot.scale import MeshConfig, initialize
from kaft_promot.training import Adafactor, CheckpointConfig, train


def my_rows():
    """This process's rows of the global batches."""
    rows = 8 // jax.process_count()
    mine = slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)
    for one in batches(rows=8):
        yield {name: x[mine] for name, x in one.items()}


if __name__ == "__main__":
    initialize()
    train(
        model_config=CONFIG,
        initial_params=numpy_params(CONFIG),
        train_dataset_cfg=my_rows,
        train_eval_dataset_cfg=lambda: [next(my_rows())],
        model_dir=sys.argv[1],
        total_steps=int(sys.argv[2]),
        optimizer=Adafactor(learning_rate=0.01),
        mesh_config=MeshConfig(fsdp=len(jax.devices())),
        stats_period=1,
        checkpoint_cfg=CheckpointConfig(period=2),
        tensorboard=False,
        progress=False,
    )
