"""Compiled programs kept between runs, so that the same command starts faster the next time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
import time

import gin
import jax

_VARIABLE = "KAFT_PROMOT_COMPILATION_CACHE"
_DAYS = 30


@gin.configurable
def use_compilation_cache(folder: str | None = None) -> pathlib.Path | None:
    """Turns on JAX's persistent compilation cache; a user's own setting of it is left alone.

    A program is found again only under the same JAX, compiler options, device kind and processor
    (on CPU a program may use instructions that another processor lacks). Files that were written
    more than 30 days ago are removed.

    Args:
      folder: where to keep programs, or 'off'. None takes the environment variable
        KAFT_PROMOT_COMPILATION_CACHE, or else `kaft-promot/xla` in the user's cache folder
        (XDG_CACHE_HOME or ~/.cache).

    Returns:
      The folder that is used; None if there is none (off, or it cannot be written).
    """
    chosen = folder or os.environ.get(_VARIABLE)
    if chosen == "off" or jax.config.jax_compilation_cache_dir is not None:
        return None
    if chosen is None:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        chosen = str(pathlib.Path(home) / "kaft-promot" / "xla")
    path = pathlib.Path(chosen) / _processor()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK):
        return None
    oldest = time.time() - _DAYS * 86400
    for file in path.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it
            if file.stat().st_mtime < oldest:
                file.unlink()
    jax.config.update("jax_compilation_cache_dir", str(path))
    return path


def _processor() -> str:
    """A short digest of what this processor can do."""
    text = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        text += next((line for line in file if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]
