"""glibc's malloc, set for a program that takes and gives back much memory again and again.

A step on a CPU allocates and frees hundreds of megabytes. As glibc is set by default it returns
much of that to the system, and the kernel hands it out anew, zeroed, a page fault at a time. Here
more of what is freed stays with the process for the next step, and memory comes in pages of 2 MiB,
not 4 KiB, where Linux gives such transparent huge pages to those who ask (kernel.org,
admin-guide/mm/transhuge). glibc reads how malloc is to work from the environment as a process
starts ("Memory Allocation Tunables" in its manual); `benchmarks/` time both ways.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping

VARIABLE, HUGE_PAGES = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_STARTED_ANEW = "KAFT_PROMOT_STARTED_ANEW"
_GLIBC = (2, 35)  # the first that asks for huge pages
_MIB = 1 << 20


def tune_malloc() -> None:
    """Starts this process anew, once, with `tuned` as its environment; else does nothing.

    Nothing happens where the C library is not glibc, and where GLIBC_TUNABLES already has a
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
    """Whether the C library is a glibc that knows all of `tuned`."""
    if sys.platform != "linux":
        return False
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= _GLIBC
    except (OSError, ValueError):
        return False


def tuned(environment: Mapping[str, str]) -> dict[str, str] | None:
    """The environment in which malloc keeps memory and asks for huge pages.

    A tunable that `environment` already sets, there or in a variable of its own, stays as it is.
    None where it has a `glibc.malloc.hugetlb`: it says already how malloc is to work.
    """
    said = environment.get(VARIABLE, "")
    names = {item.partition("=")[0] for item in said.split(":")}
    if HUGE_PAGES in names:
        return None
    kept = {  # tunable -> value, and the variable of its own that sets it, too
        # From this size on an array that fits no free piece of the heap gets pages of its own,
        # which go back when it is freed, in place of a heap that is larger by its size.
        "mmap_threshold": (64 * _MIB, "MALLOC_MMAP_THRESHOLD_"),
        # The heap's free end goes back only when it is larger than this.
        "trim_threshold": (256 * _MIB, "MALLOC_TRIM_THRESHOLD_"),
        # The heap grows by this more than asked. Not near 64 MiB: that is the size of a thread's
        # heap, none of which would then go back.
        "top_pad": (16 * _MIB, "MALLOC_TOP_PAD_"),
        # Each arena keeps what its threads have freed; by default there are up to eight a core.
        "arena_max": (max(2, os.cpu_count() or 2), "MALLOC_ARENA_MAX"),
    }
    tunables = [said] if said else []
    tunables.append(f"{HUGE_PAGES}=1")
    for name, (value, variable) in kept.items():
        tunable = f"glibc.malloc.{name}"
        if tunable not in names and variable not in environment:
            tunables.append(f"{tunable}={value}")
    return {**environment, VARIABLE: ":".join(tunables)}
