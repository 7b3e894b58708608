"""Memory in huge pages, which makes a training step on a CPU quicker.

XLA's CPU programs take their working memory afresh at every step and give it back. For one step of
mini the system then fills in more than 60,000 pages of 4 KiB; of huge pages, about 500.
`benchmarks/bench_train_step.py` shows the difference. glibc (2.35 or newer) asks for huge pages
only if its environment says so when a program starts.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys

VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_KERNEL_SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def wanted() -> bool:
    """Whether a restart would bring huge pages: Linux, the kernel allows them, and the environment
    has no tunables of its own.
    """
    if not sys.platform.startswith("linux") or VARIABLE in os.environ:
        return False
    try:
        return "[never]" not in _KERNEL_SETTING.read_text(encoding="ascii")
    except OSError:
        return False


def restart() -> None:
    """Starts this program anew, in the same process, where huge pages are `wanted`.

    To be called before anything is imported or written; returns where the restart fails.
    """
    if wanted():
        os.environ[VARIABLE] = VALUE
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
