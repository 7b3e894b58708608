"""Two real processes that share every parameter and batch train as one does."""

import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from kaft_promot.training import read_metrics

HERE = pathlib.Path(__file__).resolve().parent

pytestmark = pytest.mark.slow


def run(model_dir, steps, count):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    if count > 1:
        environment |= {
            "KAFT_PROMOT_COORDINATOR": f"localhost:{port}",
            "KAFT_PROMOT_PROCESS_COUNT": str(count),
        }
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "process_worker.py"), str(model_dir), str(steps)],
            env=environment | ({"KAFT_PROMOT_PROCESS_INDEX": str(i)} if count > 1 else {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors[-3000:]


def test_two_processes_train_as_one_and_go_on(tmp_path):
    run(tmp_path / "one", 5, 1)
    run(tmp_path / "two", 3, 2)
    run(tmp_path / "two", 5, 2)  # goes on from the checkpoint of step 3
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, err_msg=name)
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    assert [row["step"] for row in rows[1]] == [1, 2, 3, 4, 5]
    for name in ("loss", "tokens", "eval/loss"):
        if name in rows[0][-1]:
            assert rows[1][-1][name] == pytest.approx(rows[0][-1][name], rel=1e-4)
