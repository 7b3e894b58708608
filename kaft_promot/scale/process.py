"""Joining several processes into one run."""

from __future__ import annotations

import os

import gin
import jax

from kaft_promot.errors import UserError


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
      UserError: if only some of the three are given, or a count or index makes no sense.
    """
    address = coordinator_address or os.environ.get("KAFT_PROMOT_COORDINATOR")
    if address == "auto":
        jax.distributed.initialize()
        return
    count = _number("KAFT_PROMOT_PROCESS_COUNT", process_count)
    index = _number("KAFT_PROMOT_PROCESS_INDEX", process_index)
    if address is None and index is None and count in (None, 1):
        return
    if count == 1:
        return
    if address is None or count is None or index is None:
        raise UserError(
            "a run of several processes needs KAFT_PROMOT_COORDINATOR, KAFT_PROMOT_PROCESS_COUNT "
            f"and KAFT_PROMOT_PROCESS_INDEX; they are {address}, {count} and {index}"
        )
    if not 0 <= index < count:
        raise UserError(f"KAFT_PROMOT_PROCESS_INDEX = {index} is not in [0, {count})")
    jax.distributed.initialize(address, num_processes=count, process_id=index)


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
