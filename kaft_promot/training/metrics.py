"""Metrics of a run: `metrics.jsonl` (one row a step that was written) and TensorBoard events."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping

from kaft_promot.errors import UserError


class MetricWriter:
    """Appends rows of numbers to `metrics.jsonl` and to TensorBoard's event files.

    Opening it for a run that continues drops the rows of steps that will be made again, so that no
    step is in the file twice. TensorBoard is told to forget them too.

    Args:
      directory: the run's directory.
      step: the step that the run continues from (0: from the start).
      tensorboard: whether to write event files.
    """

    def __init__(self, directory: str | pathlib.Path, step: int, tensorboard: bool = True):
        self.path = pathlib.Path(directory) / "metrics.jsonl"
        _drop_rows_after(self.path, step)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        self._events = None
        if tensorboard:
            import tensorboardX  # needs no TensorFlow

            self._events = tensorboardX.SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one row; a value that is not finite is written as null.

        Raises:
          UserError: if it cannot be written, as on a full disk.
        """
        row = {"step": step, **{k: round_trip(v) for k, v in values.items()}}
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            if self._events is not None:
                for name, value in values.items():
                    self._events.add_scalar(name, float(value), step)
                self._events.flush()
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write the metrics of step {step} ({error.strerror}); the "
                "checkpoints are kept: free space, then run the same command again"
            ) from error

    def close(self) -> None:
        """Closes the files."""
        with contextlib.suppress(OSError):  # `write` has told of what could not be written
            self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()


def round_trip(value: float) -> float | None:
    """A float with 7 significant digits (all that float32 has), None if it is not finite."""
    value = float(value)
    return float(f"{value:.7g}") if abs(value) < float("inf") else None


def read_metrics(path: str | pathlib.Path) -> list[dict[str, float | None]]:
    """The rows of a `metrics.jsonl`.

    Raises:
      UserError: if the file is missing or one of its lines is no JSON.
    """
    rows = []
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON ({error.msg})") from None
    return rows


def _drop_rows_after(path: pathlib.Path, step: int) -> None:
    """Removes rows of later steps, and a last line that a kill cut in half."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)
