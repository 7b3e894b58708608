"""Shared fixtures: tests run on CPU and write only below pytest's temporary folders."""

import contextlib
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KAFT_PROMOT_COMPILATION_CACHE", "off")

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))  # so that tests may import `byte_model`


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Real data and checkpoints outside the repository; tests that need them skip without them."""
    path = pathlib.Path(os.environ.get("KAFT_PROMOT_SHARED", REPOSITORY.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no shared data at {path}; set KAFT_PROMOT_SHARED to its folder")
    return path


@pytest.fixture(scope="session")
def full_disk():
    """`with full_disk(room):` no file may grow beyond `room` bytes, as if the disk were full."""
    import resource

    @contextlib.contextmanager
    def limited(room: int = 0):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests that spend their time compiling: without XLA's optimizations, with its results."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
