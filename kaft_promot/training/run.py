"""What a run writes into its directory, and reads from it to go on."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import gin
import jax

from kaft_promot.errors import UserError
from kaft_promot.models import Params, flatten, remove_prompts, unflatten
from kaft_promot.models.lora import merge_lora, remove_lora
from kaft_promot.models.prompts import PROMPT
from kaft_promot.training.checkpoints import CheckpointConfig, Checkpoints
from kaft_promot.training.lora import frozen_lora
from kaft_promot.training.metrics import MetricWriter
from kaft_promot.training.stages import Stage
from kaft_promot.training.start import Start
from kaft_promot.training.state import TrainState


class Run:
    """What a run writes into its directory; without a directory all of it does nothing."""

    def __init__(
        self,
        model_dir: str | pathlib.Path | None,
        checkpoint_cfg: CheckpointConfig,
        start: Start,
        stage: Stage,
        vocabulary: str | None,
        tensorboard: bool,
    ):
        self._dir = None if model_dir is None else pathlib.Path(model_dir)
        self._start = start
        self._vocabulary = vocabulary
        self._tensorboard = tensorboard
        self._main = jax.process_index() == 0
        self._writer: MetricWriter | None = None
        self._checkpoints: Checkpoints | None = None
        self._stage = stage
        self._origin = start.origin() | {
            "stage": dataclasses.asdict(stage),
            "vocabulary": vocabulary,
            "monitored": {
                "metric_name_to_monitor": checkpoint_cfg.metric_name_to_monitor,
                "metric_mode": checkpoint_cfg.mode,
            },
        }
        if self._dir is None:
            return
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"train.model_dir = {model_dir}: {error.strerror}") from None
        self._checkpoints = Checkpoints(self._dir, checkpoint_cfg)

    def resume(self, state: TrainState, feed: Any, total_steps: int) -> TrainState:
        """The state of the latest checkpoint, with `feed` set to its place; else `state`.

        Raises:
          UserError: that checkpoint is of another run, or beyond `total_steps`. Then nothing was
            written.
        """
        if self._dir is None or self._checkpoints is None:
            return state
        from kaft_promot import interop
        from kaft_promot.interop import native

        latest = self._checkpoints.latest_step()
        if latest is not None and latest > total_steps:
            raise UserError(
                f"{self._dir} is already at step {latest}, beyond train.total_steps = {total_steps}"
            )
        if latest is not None:
            state, place, origin = self._checkpoints.restore(latest, state)
            self._start.check_same(origin, self._dir, frozen=bool(flatten(state.frozen)))
            feed.set_state(place)
        if self._main:
            if latest is not None and latest < total_steps:
                # What was exported at an earlier end is not what MODEL_DIR stands for any more.
                stale = [native.TENSORS]
                stale += [interop.PROMPTS] if self._stage.is_trainable(PROMPT) else []
                frozen = frozen_lora(self._start.params, self._stage)
                stale += [] if frozen else [interop.LORA_FILE]
                for name in stale:
                    (self._dir / name).unlink(missing_ok=True)
            if self._start.prompts is not None and not self._stage.is_trainable(PROMPT):
                # Checkpoints hold what is trained; what is frozen stays with the run itself.
                interop.write_prompts(self._dir / interop.PROMPTS, self._start.prompts)
            if self._start.lora is not None and frozen_lora(self._start.params, self._stage):
                kept = dataclasses.replace(self._start.lora, merged=False)
                interop.write_lora(self._dir / interop.LORA_FILE, kept)
            self._writer = MetricWriter(self._dir, latest or 0, self._tensorboard)
            config = gin.operative_config_str()
            if config.strip():
                (self._dir / "operative_config.gin").write_text(config, encoding="utf-8")
        return state

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A row of metrics."""
        if self._writer is not None:
            self._writer.write(step, values)

    def check_measured(self, step: int, measured: Mapping[str, float]) -> None:
        """See `Checkpoints.check_measured`."""
        if self._checkpoints is not None:
            self._checkpoints.check_measured(step, measured)

    def save(self, state: TrainState, feed: Any, metrics: Mapping[str, float]) -> None:
        """A checkpoint, unless this step has one."""
        if self._checkpoints is None or int(state.step) in self._checkpoints.steps():
            return
        self._checkpoints.save(state, feed.get_state(), self._origin, metrics)

    def export(self, state: TrainState) -> None:
        """Writes the final parameters for use elsewhere.

        Soft prompts have a file of their own, and the model is written without them; where nothing
        but the prompts was trained, they are all that is written. LoRA's additions have a file of
        their own, too; the model is written with them where they were trained, and without them
        where they were attached frozen.
        """
        if self._dir is None:
            return
        from kaft_promot import interop

        apart = {**flatten(state.trainable), **flatten(state.frozen)}
        config, params = self._start.config, gather(unflatten(apart))
        if not self._main:
            return
        if self._start.lora is not None:
            frozen = bool(frozen_lora(params, self._stage))
            additions = self._start.lora.replaced(params, merged=not frozen)
            interop.write_lora(self._dir / interop.LORA_FILE, additions)
            params = remove_lora(params) if frozen else merge_lora(params)
        if self._start.prompts is not None:
            tuned = self._start.prompts.replaced(config, params)
            interop.write_prompts(self._dir / interop.PROMPTS, tuned)
            if set(flatten(state.trainable)) == {PROMPT}:
                return
            config, params = remove_prompts(config, params)
        interop.write_native(self._dir, params, config, self._vocabulary, int(state.step))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._checkpoints is not None:
            self._checkpoints.close()


def gather(params: Params) -> Params:
    """Parameters whole in every process's memory; those of a single process as they are."""
    if jax.process_count() == 1:
        return params
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(params, tiled=True)
