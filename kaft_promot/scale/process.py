"""Joining several processes into one run."""

from __future__ import annotations

import os
import re

import gin
import jax

from kaft_promot.errors import UserError

COORDINATOR = "KAFT_PROMOT_COORDINATOR"
COUNT, INDEX = "KAFT_PROMOT_PROCESS_COUNT", "KAFT_PROMOT_PROCESS_INDEX"


@gin.configurable
def initialize(
    coordinator_address: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
) -> None:
    """Connects this process with the others of a run; does nothing in a run of one process.

    Call it before the first use of a device. What is not given is taken from the environment:
    `KAFT_PROMOT_COORDINATOR` (host:port of process 0), `KAFT_PROMOT_PROCESS_COUNT`,
    `KAFT_PROMOT_PROCESS_INDEX`. On TPU pods and under Slurm give `coordinator_address='auto'`: JAX
    then finds the rest by itself.

    Raises:
      UserError: if only some of the three are given, an address, count or index makes no sense, or
        JAX cannot join the processes.
    """
    address = coordinator_address or os.environ.get(COORDINATOR)
    if address == "auto":
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as e:
            raise UserError(
                f"{COORDINATOR} = auto: JAX finds no cluster that it can join ({_first_line(e)}); "
                f"set {COORDINATOR} to host:port of process 0, {COUNT} and {INDEX}"
            ) from e
        return
    count, index = _number(COUNT, process_count), _number(INDEX, process_index)
    if address is None and index is None and count in (None, 1):
        return
    if count == 1:
        return
    if address is None or count is None or index is None:
        raise UserError(
            f"a run of several processes needs {COORDINATOR}, {COUNT} and {INDEX}; they are "
            f"{address}, {count} and {index}"
        )
    if not re.fullmatch(r"\S+:[0-9]{1,5}", address):
        raise UserError(
            f"{COORDINATOR} = {address!r}: give host:port of process 0, for example "
            "localhost:12345, or auto in a cluster that JAX knows"
        )
    if count < 1:
        raise UserError(f"{COUNT} = {count}: must be 1 or more")
    if not 0 <= index < count:
        raise UserError(f"{INDEX} = {index} is not in [0, {count})")
    try:
        jax.distributed.initialize(address, num_processes=count, process_id=index)
    except (ValueError, RuntimeError) as e:
        raise UserError(
            f"process {index} of {count} cannot join the others at {COORDINATOR} = {address}: "
            f"{_first_line(e)}"
        ) from e


def refuse_several(verb: str) -> None:
    """Ends a verb that runs in one process: several would write the same files.

    Raises:
      UserError: if the environment says that this process is one of several.
    """
    count = _number(COUNT, None)
    if count is not None and count > 1:
        raise UserError(f"{COUNT} = {count}: {verb} runs in one process, only train in several")
    # How many there are only the cluster knows.
    if count is None and os.environ.get(COORDINATOR) == "auto":
        raise UserError(
            f"{COORDINATOR} = auto: {verb} runs in one process, only train in several; unset it, "
            f"or set {COUNT} to 1"
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _number(variable: str, given: int | None) -> int | None:
    """`given`, or else the environment variable as an int."""
    if given is not None:
        return given
    text = os.environ.get(variable)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{variable} = {text!r} is not a whole number") from None
