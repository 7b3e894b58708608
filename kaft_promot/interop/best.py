"""Where a checkpoint lies: its path, with `MODEL_DIR/checkpoints/best` as the best step's."""

import os
import pathlib

from kaft_promot.errors import UserError


def find_checkpoint(path: str | os.PathLike) -> pathlib.Path:
    """The path of a checkpoint's file or folder, which exists; `best` is resolved.

    Raises:
      UserError: it is not here, or as `resolve_best`.
    """
    if "://" in str(path):
        raise UserError(f"{path}: only local files can be read; copy the checkpoint here first")
    found = resolve_best(path)
    if not found.exists():
        raise UserError(f"{found}: no such checkpoint (a folder, a file, or the name mini)")
    return found


def folder_of(path: str | os.PathLike) -> pathlib.Path:
    """The folder in which a checkpoint's other files lie: of one of a run's steps, its MODEL_DIR.

    Args:
      path: of a checkpoint's file or folder; nothing needs to be there.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix == ".safetensors":
        return path.parent
    is_step = path.parent.name == "checkpoints" and (path.name.isdigit() or path.name == "best")
    return path.parent.parent if is_step else path


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
        best, steps = checkpoints.best_step(), checkpoints.steps()
    finally:
        checkpoints.close()
    if best is None:
        raise UserError(
            f"{path}: none of the run's checkpoints (steps {', '.join(map(str, steps))}) has a "
            f"number for the metric {monitored['metric_name_to_monitor']!r} by which it chooses "
            "the best; let it go on, or name a step"
        )
    return path.with_name(str(best))
