"""Large pages of memory for the arrays of a process, where the system gives them on request.

A step on a CPU takes and gives back hundreds of megabytes, which the kernel hands out zeroed, a
page at a time: with pages of 4 KiB that is 200,000 interruptions a step, with pages of 2 MiB some
hundreds (`benchmarks/bench_train_step.py` times both). Many Linux distributions give large pages
only to those who ask, and glibc asks when a variable of the environment says so as a process
starts.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Mapping

_VARIABLE = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"
_MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Starts this process anew, once, so that its memory comes in large pages; else does nothing.

    Nothing happens where the system has no such pages, gives them unasked or cannot be asked, and
    where the environment's GLIBC_TUNABLES already has a `glibc.malloc.hugetlb` (0 declines them).
    The new process has the same number, arguments and open files. To be called before anything else
    is done.
    """
    environment = environment_with_huge_pages(os.environ, _mode(), _is_glibc())
    if environment is not None:
        with contextlib.suppress(OSError):  # slower, but no reason not to run
            os.execve(sys.executable, sys.orig_argv, environment)


def environment_with_huge_pages(
    environment: Mapping[str, str], mode: str, is_glibc: bool
) -> dict[str, str] | None:
    """The environment in which a process gets large pages, or None where nothing is to be changed.

    Args:
      environment: the process's.
      mode: what the kernel's `transparent_hugepage/enabled` holds ("" where there is none).
      is_glibc: whether the C library is glibc.
    """
    tunables = environment.get(_VARIABLE, "")
    if not is_glibc or "[madvise]" not in mode or _TUNABLE in tunables:
        return None
    asked = f"{_TUNABLE}=1"
    return {**environment, _VARIABLE: f"{tunables}:{asked}" if tunables else asked}


def _mode() -> str:
    try:
        return _MODE.read_text()
    except OSError:
        return ""


def _is_glibc() -> bool:
    return os.confstr_names.get("CS_GNU_LIBC_VERSION") is not None and bool(
        os.confstr("CS_GNU_LIBC_VERSION")
    )
