"""Memory that this process has freed but still holds."""

from __future__ import annotations

import contextlib
import ctypes


def give_back_memory() -> None:
    """Returns freed memory to the system; does nothing where the C library is not glibc.

    XLA's compiler works with many small pieces of memory, which glibc keeps when they are freed:
    more than 200 MB after compiling a training step, on top of what its arrays then take.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
