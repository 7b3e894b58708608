"""Freed memory goes back to the system."""

import ctypes
import pathlib

import pytest

from kaft_promot.scale.memory import give_back_memory

STATUS = pathlib.Path("/proc/self/status")


def resident():
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(
    not STATUS.exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"),
    reason="needs Linux with glibc",
)
def test_freed_pieces_go_back_to_the_system():
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.malloc.argtypes = [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    pieces = [library.malloc(50_000) for _ in range(2000)]
    for piece in pieces:
        ctypes.memset(piece, 1, 50_000)
    for piece in pieces[:-1]:  # the last one keeps glibc from giving back the rest by itself
        library.free(piece)
    before = resident()
    give_back_memory()
    assert resident() < before - 50_000_000
    library.free(pieces[-1])
