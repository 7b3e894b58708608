"""The compilation cache: where it lies, when it is off, what it removes."""

import os
import time

import jax
import jax.numpy as jnp
import pytest

from kaft_promot.scale import use_compilation_cache


@pytest.fixture
def unset(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("KAFT_PROMOT_COMPILATION_CACHE", raising=False)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_and_old_ones_removed(tmp_path, monkeypatch, unset):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = use_compilation_cache()
    assert folder.parent == tmp_path / "kaft-promot" / "xla"
    assert jax.config.jax_compilation_cache_dir == str(folder)
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
    jax.jit(lambda x: jnp.sin(x) * 3.25)(1.0)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    compilation_cache.reset_cache()
    (program,) = [file for file in folder.iterdir() if file.name.startswith("jit")][:1]

    os.utime(program, (time.time() - 40 * 86400,) * 2)
    jax.config.update("jax_compilation_cache_dir", None)
    use_compilation_cache()
    assert not program.exists()


def test_off_and_a_users_own_setting_are_respected(tmp_path, monkeypatch, unset):
    assert use_compilation_cache("off") is None
    monkeypatch.setenv("KAFT_PROMOT_COMPILATION_CACHE", "off")
    assert use_compilation_cache() is None
    assert use_compilation_cache(str(tmp_path)).parent == tmp_path  # gin's value wins
    assert use_compilation_cache(str(tmp_path / "other")) is None  # now there is a setting
