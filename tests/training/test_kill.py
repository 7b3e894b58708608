"""Real processes that are killed at bad moments end with the parameters of one that was not."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

from kaft_promot.training import read_metrics

HERE = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

pytestmark = pytest.mark.slow


def start(model_dir, **arguments):
    return subprocess.Popen(
        [sys.executable, str(HERE / "kill_worker.py"), str(model_dir)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        **arguments,
    )


def finish(model_dir):
    process = start(model_dir)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return (model_dir / "model.safetensors").read_bytes()


def signal_when(process, condition, number):
    """Sends a signal to `process` the moment `condition()` holds."""
    limit = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.0005)
    process.send_signal(number)
    return process.communicate(timeout=100)[1]


def rows(model_dir):
    path = model_dir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def unfinished_saves(model_dir):
    return list((model_dir / "checkpoints").glob("*tmp*"))


def complete(model_dir):
    return sorted(int(p.name) for p in (model_dir / "checkpoints").iterdir() if p.name.isdigit())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("undisturbed"))


def test_sigkill_between_and_during_saves(tmp_path, undisturbed):
    process = start(tmp_path)
    signal_when(process, lambda: unfinished_saves(tmp_path), signal.SIGKILL)
    assert complete(tmp_path) == []  # the very first save was cut off
    process = start(tmp_path)
    signal_when(process, lambda: rows(tmp_path) >= 5, signal.SIGKILL)
    process = start(tmp_path)
    signal_when(process, lambda: rows(tmp_path) >= 5 and unfinished_saves(tmp_path), signal.SIGKILL)
    assert finish(tmp_path) == undisturbed
    assert unfinished_saves(tmp_path) == []
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == list(range(1, 13))


def test_sigterm_saves_first(tmp_path, undisturbed):
    process = start(tmp_path)
    signal_when(process, lambda: rows(tmp_path) >= 4, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    saved = complete(tmp_path)[-1]
    assert saved == read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] < 12
    assert saved % 3  # not one of the scheduled saves
    assert finish(tmp_path) == undisturbed


def test_a_full_disk_keeps_earlier_checkpoints(tmp_path, undisturbed):
    """A limit on file sizes makes writing fail as a full disk does."""

    process = start(tmp_path, preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    limit = time.monotonic() + 200
    while not (tmp_path / "checkpoints" / "3").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.001)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))  # enough for metrics
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "could not save the checkpoint of step" in errors
    assert "earlier checkpoints are kept" in errors
    assert complete(tmp_path)
    assert unfinished_saves(tmp_path) == []
    assert finish(tmp_path) == undisturbed
