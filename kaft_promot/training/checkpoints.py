"""Training checkpoints: one Orbax checkpoint holds all that a run needs to go on.

A checkpoint appears under its step's name only when it is complete (Orbax writes a temporary
directory and renames it), so a run may be killed at any moment. It holds the trainable parameters,
the optimizer's state, the step, the dropout key, the place in the data, and how to get the frozen
parameters again; a soft prompt's checkpoints are therefore kilobytes.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import gin
import jax
import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.training.state import TrainState

VALIDATION_METRICS = ("eval/loss", "eval/accuracy")  # what a run's evaluations measure


@gin.configurable(module="kaft_promot.utils")
@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are saved and which are kept.

    Attributes:
      period: steps between checkpoints; the last step is always saved.
      keep: how many of the latest are kept (None: all).
      metric_name_to_monitor: also keep the checkpoint with the best value of this metric, such as
        `eval/accuracy` (None: do not).
      metric_mode: 'max' or 'min', whichever of its values is the best; None for 'min' if the
        metric's name ends in `loss`, as `eval/loss` does, and else for 'max'.

    Raises:
      UserError: for a value that makes no sense.
    """

    period: int = 1000
    keep: int | None = 2
    metric_name_to_monitor: str | None = None
    metric_mode: str | None = None

    def __post_init__(self) -> None:
        if self.period < 1:
            raise UserError(f"CheckpointConfig.period = {self.period}: must be at least 1")
        if self.keep is not None and self.keep < 1:
            raise UserError(f"CheckpointConfig.keep = {self.keep}: must be at least 1, or None")
        if self.metric_mode not in ("max", "min", None):
            raise UserError(
                f"CheckpointConfig.metric_mode = {self.metric_mode!r}: choose 'max' or 'min', or "
                "None for 'min' where the metric's name ends in loss, else for 'max'"
            )

    @property
    def mode(self) -> str:
        """`metric_mode`, or what None stands for."""
        if self.metric_mode is not None:
            return self.metric_mode
        return "min" if (self.metric_name_to_monitor or "").endswith("loss") else "max"

    def check_monitored(self, eval_period: int | None, total_steps: int, others: bool) -> None:
        """Refuses a metric to monitor that checkpoints would not have.

        Args:
          eval_period: steps between evaluations; None if the run has none.
          total_steps: of the run; its last step is always saved, and measured.
          others: whether the run measures more than its evaluations do.

        Raises:
          UserError: nothing measures it, or not whenever a checkpoint is saved.
        """
        name = self.metric_name_to_monitor
        if name is None:
            return
        monitor = f"CheckpointConfig.metric_name_to_monitor = {name!r}"
        if name not in VALIDATION_METRICS:
            if others:
                return
            raise UserError(
                f"{monitor}: this run measures {' and '.join(VALIDATION_METRICS)} alone"
            )
        if eval_period is None:
            raise UserError(
                f"{monitor} is not measured without train.train_eval_dataset_cfg: name validation "
                "data, or add --gin.CheckpointConfig.metric_name_to_monitor=None, so that no "
                "checkpoint is chosen as the best"
            )
        if self.period < total_steps and self.period % eval_period:
            raise UserError(
                f"{monitor} is measured every {eval_period} steps (train.eval_period), checkpoints "
                f"are saved every {self.period} (CheckpointConfig.period): make the second a "
                "multiple of the first"
            )


class Checkpoints:
    """The checkpoints of one run, in `model_dir/checkpoints/STEP`."""

    def __init__(
        self,
        model_dir: str | pathlib.Path,
        config: CheckpointConfig = CheckpointConfig(),  # noqa: B008 (a frozen value)
        read_only: bool = False,
    ):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self.config = config
        self.directory = pathlib.Path(model_dir).absolute() / "checkpoints"
        policies = ocp.checkpoint_managers.preservation_policy
        keep = [policies.LatestN(config.keep)]
        if config.metric_name_to_monitor is not None and config.keep is not None:
            keep.append(
                policies.BestN(
                    get_metric_fn=self._monitored,
                    reverse=config.mode == "min",
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy(keep),
            # Without it Orbax would not write metrics to disk; what is kept is the policy's choice.
            best_fn=self._monitored if config.metric_name_to_monitor else None,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            # Saves are waited for: on CPU an asynchronous one would read memory that the next
            # step takes over.
            enable_async_checkpointing=False,
        )
        try:
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=options,
                item_handlers={
                    "state": ocp.PyTreeCheckpointHandler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError as error:
            raise UserError(f"{self.directory}: {error.strerror or error}") from None

    def _monitored(self, metrics: Mapping[str, float]) -> float:
        """The value that ranks a checkpoint; what was not measured, or is NaN, ranks last.

        Checkpoints saved off schedule are not measured. NaN is neither above nor below another
        value: in Orbax's sorting it would hide the best.
        """
        value = metrics.get(self.config.metric_name_to_monitor or "", math.nan)
        worst = -math.inf if self.config.mode == "max" else math.inf
        return worst if math.isnan(value) else value

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """The last step with a checkpoint, None if there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best_step(self) -> int | None:
        """The kept step with the best value of the monitored metric, None if none has a number."""
        name = self.config.metric_name_to_monitor or ""
        values = {}
        for step in self.steps():
            value = (self._manager.metrics(step) or {}).get(name, math.nan)
            if not math.isnan(value):
                values[step] = value
        if not values:
            return None
        choose = max if self.config.mode == "max" else min
        return choose(values, key=lambda step: values[step])

    def check_measured(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises UserError unless `metrics` has the one that chooses the best checkpoint."""
        name = self.config.metric_name_to_monitor
        if name is not None and name not in metrics:
            raise UserError(
                f"CheckpointConfig.metric_name_to_monitor = {name!r} was not measured at step "
                f"{step} (measured: {', '.join(metrics) or 'nothing'}); make "
                "CheckpointConfig.period a multiple of the period that measures it"
            )

    def save(
        self,
        state: TrainState,
        input_state: bytes,
        origin: dict[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Saves a state; returns when the checkpoint is complete.

        Args:
          state: what to save (the frozen parameters are left out).
          input_state: the place in the data after `state.step` batches.
          origin: how to get the frozen parameters again (JSON values).
          metrics: measured at this step.

        Raises:
          UserError: if it cannot be written; earlier checkpoints are as they were.
        """
        step = int(state.step)
        args = self._ocp.args
        meta = {**origin, "input_state": base64.b64encode(input_state).decode()}
        items = args.Composite(state=args.PyTreeSave(_to_tree(state)), meta=args.JsonSave(meta))
        try:
            self._manager.save(step, args=items, metrics=dict(metrics or {}) or None, force=True)
            self._manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            for unfinished in self.directory.glob(f"{step}.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            kept = ", ".join(map(str, self.steps())) or "none"
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
            raise UserError(
                f"could not save the checkpoint of step {step} in {self.directory}: {reason}; "
                f"earlier checkpoints are kept (steps: {kept}). Free space or mend the directory, "
                "then run the same command again"
            ) from error

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, bytes, dict[str, Any]]:
        """Reads a checkpoint into the shapes and shardings of `like`.

        Returns:
          The state (with the frozen parameters of `like`), the place in the data, the origin.

        Raises:
          UserError: if the checkpoint is damaged or belongs to another model, stage or optimizer.
        """
        args = self._ocp.args
        tree = _to_tree(like)
        self._check_same(step, tree)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
        )
        restore_args = self._ocp.checkpoint_utils.construct_restore_args(abstract)
        try:
            found = self._manager.restore(
                step,
                args=args.Composite(
                    state=args.PyTreeRestore(abstract, restore_args=restore_args),
                    meta=args.JsonRestore(),
                ),
            )
        except (OSError, ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f"{self.directory / str(step)}: cannot read this checkpoint "
                f"({str(error).splitlines()[0][:200]}); remove it to go on from an earlier one"
            ) from error
        origin = dict(found.meta)
        input_state = base64.b64decode(origin.pop("input_state"))
        return _from_tree(found.state, like), input_state, origin

    def origin(self, step: int) -> dict[str, Any]:
        """The JSON values saved as `origin` with the checkpoint of `step`."""
        args = self._ocp.args
        return dict(self._manager.restore(step, args=args.Composite(meta=args.JsonRestore())).meta)

    def trainable(self, step: int) -> dict[str, Any]:
        """The trainable parameters of a checkpoint as nested numpy arrays."""
        args = self._ocp.args
        whole = self._ocp.RestoreArgs(restore_type=np.ndarray)  # wherever it was written
        tree = self._manager.item_metadata(step)["state"].tree
        restore_args = jax.tree.map(lambda _: whole, tree)
        found = self._manager.restore(
            step, args=args.Composite(state=args.PyTreeRestore(restore_args=restore_args))
        )
        return found.state["trainable"]

    def close(self) -> None:
        """Ends Orbax's threads."""
        self._manager.close()

    def _check_same(self, step: int, tree: dict[str, Any]) -> None:
        metadata = self._manager.item_metadata(step)["state"]
        saved = {
            jax.tree_util.keystr(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_flatten_with_path(metadata.tree)[0]
        }
        wanted = {
            jax.tree_util.keystr(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        for name in sorted(saved.keys() | wanted.keys()):
            if saved.get(name) != wanted.get(name):
                raise UserError(
                    f"{self.directory / str(step)} was written by another model, stage or "
                    f"optimizer: {name} is {saved.get(name, 'absent')} there and "
                    f"{wanted.get(name, 'absent')} here; use another model_dir"
                )


def _to_tree(state: TrainState) -> dict[str, Any]:
    """A state as nested dicts; the optimizer's state by path, since its classes may change."""
    leaves = jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    return {
        "step": state.step,
        "key": state.key,
        "trainable": state.trainable,
        "opt_state": {_name(path): leaf for path, leaf in leaves},
    }


def _name(path: tuple[Any, ...]) -> str:
    return "-".join(jax.tree_util.keystr((key,), simple=True) for key in path)


def _from_tree(tree: dict[str, Any], like: TrainState) -> TrainState:
    paths, structure = jax.tree_util.tree_flatten_with_path(like.opt_state)
    opt_state = [tree["opt_state"][_name(path)] for path, _ in paths]
    return dataclasses.replace(
        like,
        step=tree["step"],
        key=tree["key"],
        trainable=tree["trainable"],
        opt_state=jax.tree.unflatten(structure, opt_state),
    )
