"""Training: stages as data, one pure step, and a loop that can be killed at any moment.

`train` runs a whole stage and writes a run directory; `make_train_step` and `init_state` are its
parts for programs of your own. Nothing here needs TensorFlow.
"""

from kaft_promot.models.lora import merge_lora
from kaft_promot.training.checkpoints import CheckpointConfig, Checkpoints
from kaft_promot.training.feed import open_feed
from kaft_promot.training.hooks import Hook
from kaft_promot.training.loop import train
from kaft_promot.training.lora import Lora
from kaft_promot.training.metrics import MetricWriter, read_metrics
from kaft_promot.training.optimizers import Adafactor, AdamW, Muon
from kaft_promot.training.prompts import SoftPrompts
from kaft_promot.training.schedules import Schedule, create_learning_rate_scheduler
from kaft_promot.training.signals import Interrupted
from kaft_promot.training.specialization import (
    Specialization,
    gradient_alignment,
    kl_from_base,
    token_divergence,
)
from kaft_promot.training.stages import FULL, LORA, MODEL, PROMPT, Stage, merge, partition
from kaft_promot.training.start import load_run
from kaft_promot.training.state import TrainState, init_state
from kaft_promot.training.step import make_eval_step, make_train_step

__all__ = [
    "FULL",
    "LORA",
    "MODEL",
    "PROMPT",
    "AdamW",
    "Muon",
    "Adafactor",
    "CheckpointConfig",
    "Checkpoints",
    "Hook",
    "Interrupted",
    "Lora",
    "MetricWriter",
    "Schedule",
    "SoftPrompts",
    "Specialization",
    "Stage",
    "TrainState",
    "create_learning_rate_scheduler",
    "gradient_alignment",
    "init_state",
    "kl_from_base",
    "load_run",
    "make_eval_step",
    "make_train_step",
    "merge",
    "merge_lora",
    "open_feed",
    "partition",
    "read_metrics",
    "token_divergence",
    "train",
]
