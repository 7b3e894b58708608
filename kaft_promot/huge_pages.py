"""Huge pages of memory for the arrays of a process, where the system gives them on request.

A step on a CPU takes and gives back hundreds of megabytes, which the kernel hands out zeroed, one
page fault at a time: pages of 2 MiB in place of 4 KiB make them some hundred times fewer
(`benchmarks/bench_train_step.py` counts them). Linux can be set to give such transparent huge pages
only to those who ask (kernel.org, admin-guide/mm/transhuge), and glibc asks, since version 2.35,
when a tunable in the environment says so as a process starts (its manual, "Memory Allocation
Tunables").
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Mapping

VARIABLE, TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_ARENAS = "glibc.malloc.arena_max"
_STARTED_ANEW = "KAFT_PROMOT_STARTED_ANEW"
_MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_GLIBC = (2, 35)


def use_huge_pages() -> None:
    """Starts this process anew, once, so that its memory comes in huge pages; else does nothing.

    Nothing happens where the system has no such pages, gives them unasked or cannot be asked, and
    where the environment's GLIBC_TUNABLES already has a `glibc.malloc.hugetlb` (0 declines them).
    The new process has the same number and arguments; what this one has done is lost, so that this
    is for the entry point of a command and nothing else.
    """
    if os.environ.pop(_STARTED_ANEW, None) is not None or not are_given_on_request():
        return
    if not sys.executable or len(sys.orig_argv) < 2:
        return
    environment = environment_with_huge_pages(os.environ)
    if environment is not None:
        with contextlib.suppress(OSError):  # slower, but no reason not to run
            # The mark ends it even where something on the way takes the variable out again.
            os.execve(sys.executable, sys.orig_argv, {**environment, _STARTED_ANEW: "1"})


def are_given_on_request() -> bool:
    """Whether this system gives huge pages to processes that ask for them as they start."""
    if sys.platform != "linux":
        return False
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        new_enough = tuple(int(part) for part in version.split(".")[:2]) >= _GLIBC
        return name == "glibc" and new_enough and "[madvise]" in _MODE.read_text()
    except (OSError, ValueError):
        return False


def environment_with_huge_pages(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment in which a process asks for huge pages, or None where it says already.

    It also has no more of glibc's arenas than cores, unless it says how many: by default there are
    up to eight a core, and each keeps what its threads have freed. A training step takes slightly
    longer for it, and the peak is lower.
    """
    tunables = environment.get(VARIABLE, "")
    if TUNABLE in tunables:
        return None
    asked = [tunables] if tunables else []
    asked.append(f"{TUNABLE}=1")
    if _ARENAS not in tunables:
        asked.append(f"{_ARENAS}={max(2, os.cpu_count() or 2)}")
    return {**environment, VARIABLE: ":".join(asked)}
