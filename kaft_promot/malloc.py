"""glibc's malloc, set for a program that takes and gives back much memory again and again.

A step on a CPU allocates and frees hundreds of megabytes. As glibc is set by default it returns
much of that to the system, and the kernel hands it out anew, zeroed, a page fault at a time. Two
things make the faults fewer (`benchmarks/` count them): memory that is freed stays with the process
for the next step, and what it has comes in pages of 2 MiB, not 4 KiB, where Linux gives such
transparent huge pages to those who ask (kernel.org, admin-guide/mm/transhuge). glibc reads how it
is to work from the environment as a process starts ("Memory Allocation Tunables" in its manual).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping

VARIABLE, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_STARTED_ANEW = "KAFT_PROMOT_STARTED_ANEW"
_GLIBC = (2, 35)  # the first that asks for huge pages


def tune_malloc() -> None:
    """Starts this process anew, once, with `tuned` as its environment; else does nothing.

    Nothing happens where malloc is not glibc's, and where GLIBC_TUNABLES already has a
    `glibc.malloc.hugetlb` (0 declines). The new process has the same number and arguments; what
    this one has done is lost, so that this is for the entry point of a command and nothing else.
    """
    if os.environ.pop(_STARTED_ANEW, None) is not None or not is_tunable():
        return
    if not sys.executable or len(sys.orig_argv) < 2:
        return
    environment = tuned(os.environ)
    if environment is not None:
        with contextlib.suppress(OSError):  # slower, but no reason not to run
            # The mark ends it even where something on the way takes the variable out again.
            os.execve(sys.executable, sys.orig_argv, {**environment, _STARTED_ANEW: "1"})


def is_tunable() -> bool:
    """Whether malloc is a glibc's that knows all of `tuned`."""
    if sys.platform != "linux":
        return False
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= _GLIBC
    except (OSError, ValueError):
        return False


def tuned(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment in which malloc keeps memory and asks for huge pages.

    A tunable that `environment` already has stays as it is. None where it has a
    `glibc.malloc.hugetlb`, so that it says already how malloc is to work.
    """
    said = environment.get(VARIABLE, "")
    if HUGE_PAGES in said:
        return None
    asked = {
        HUGE_PAGES: 1,
        # Smaller arrays come from the heap, which keeps what is freed. Larger ones have a map each
        # that goes when they are freed: a heap that cannot fit them in once grows by as much.
        "glibc.malloc.mmap_threshold": 64 << 20,
        # So much more than is needed the heap takes, and keeps where its end is free.
        "glibc.malloc.top_pad": 64 << 20,
        # Each arena keeps what its threads have freed; by default there are up to eight a core.
        "glibc.malloc.arena_max": max(2, os.cpu_count() or 2),
    }
    tunables = [said] if said else []
    tunables += [f"{name}={value}" for name, value in asked.items() if name not in said]
    return {**environment, VARIABLE: ":".join(tunables)}
