"""`MODEL_DIR/checkpoints/best`: a run's best checkpoint by name."""

import os
import pathlib

from kaft_promot.errors import UserError


def resolve_best(path: str | os.PathLike) -> pathlib.Path:
    """The path with `checkpoints/best` replaced by the step that the run measured as best.

    Raises:
      UserError: if the run has no checkpoint, or did not say by which metric to choose.
    """
    path = pathlib.Path(path).expanduser()
    if path.name != "best" or path.parent.name != "checkpoints" or not path.parent.is_dir():
        return path
    from kaft_promot.training import CheckpointConfig, Checkpoints  # which imports this room

    latest = Checkpoints(path.parent.parent, read_only=True)
    try:
        step = latest.latest_step()
        monitored = {} if step is None else latest.origin(step).get("monitored", {})
    finally:
        latest.close()
    if monitored.get("metric_name_to_monitor") is None:
        raise UserError(
            f"{path}: the run did not choose a best checkpoint; set "
            "CheckpointConfig.metric_name_to_monitor when it trains, or name a step"
        )
    checkpoints = Checkpoints(path.parent.parent, CheckpointConfig(**monitored), read_only=True)
    try:
        return path.with_name(str(checkpoints.best_step()))
    finally:
        checkpoints.close()
