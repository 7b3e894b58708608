"""One code path: one device, eight devices, and what does not fit."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from kaft_promot.errors import UserError
from kaft_promot.scale import MeshConfig, initialize
from kaft_promot.scale.mesh import local_mesh, spec

HERE = pathlib.Path(__file__).resolve().parent


def on_devices(count, worker, *arguments):
    """What a worker script prints last, as JSON."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
    }
    done = subprocess.run(
        [sys.executable, str(HERE / worker), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_eight_devices_train_as_one():
    report = on_devices(8, "mesh_worker.py")
    for sizes in ("(8, 1, 1)", "(2, 2, 2)"):
        assert report[sizes]["difference"] < 1e-5, sizes
        assert report[sizes]["loss"] == pytest.approx(report["(1, 1, 1)"]["loss"], rel=1e-5)
    # Neither a step nor an evaluation starts with rows that do not divide.
    for source in ("train_dataset_cfg", "train_eval_dataset_cfg"):
        assert "batch of 6 rows" in report[source] and "over 8 devices" in report[source]
        assert "choose a batch_size that is a multiple of 8" in report[source]
    assert report["(1, 1, 1)"]["kernel"] == [8, 16]
    assert report["(8, 1, 1)"]["kernel"] == [8, 16]
    assert report["(2, 2, 2)"]["kernel"] == [4, 8]


@pytest.mark.slow
def test_eight_devices_decode_as_one():
    (one,) = on_devices(1, "decoding_worker.py", "1,1,1").values()
    assert one["devices"] == 1
    report = on_devices(8, "decoding_worker.py", "8,1,1", "1,8,1", "2,2,2")
    for sizes, kernel in (("8,1,1", [128, 384]), ("1,8,1", [16, 384]), ("2,2,2", [64, 192])):
        found = report[sizes]
        assert found["stays_on"] == sizes
        assert (found["devices"], found["kernel"]) == (8, kernel), sizes
        for method in ("greedy", "beam", "sample"):
            assert found[method] == one[method], (sizes, method)
        np.testing.assert_allclose(found["score"], one["score"], rtol=1e-4, err_msg=sizes)


def test_a_mesh_that_does_not_use_all_devices_is_a_user_error():
    count = len(jax.devices())
    assert dict(MeshConfig().make().shape) == {"data": count, "fsdp": 1, "tensor": 1}
    with pytest.raises(UserError, match=f"fsdp={2 * count}"):
        MeshConfig(fsdp=2 * count).make()
    for sizes in ({"data": count + 1}, {"fsdp": 0}, {"tensor": -1}):
        with pytest.raises(UserError, match="product"):
            MeshConfig(**sizes).make()


def test_each_of_several_processes_decodes_on_its_own_devices(monkeypatch, caplog):
    config = MeshConfig(data=1, fsdp=len(jax.devices()))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert local_mesh(config).shape == {"data": 1, "fsdp": len(jax.devices()), "tensor": 1}
    assert not caplog.records
    wide = MeshConfig(fsdp=2 * len(jax.devices()))  # of all processes' devices
    assert local_mesh(wide).shape == {"data": len(jax.devices()), "fsdp": 1, "tensor": 1}
    assert "each holds the whole model" in caplog.text


def test_every_axis_lies_where_the_table_says():
    mesh = AbstractMesh((2, 2, 4), ("data", "fsdp", "tensor"))
    assert spec(("embed", "mlp"), (8, 16), mesh) == PartitionSpec(("fsdp",), ("tensor",))
    assert spec(("layers", "embed"), (3, 8), mesh) == PartitionSpec(None, ("fsdp",))
    # Six heads do not divide over four devices: they stay whole.
    assert spec(("heads", "relpos_buckets"), (6, 32), mesh) == PartitionSpec(None, None)


def test_a_batch_that_does_not_divide_the_mesh_is_a_user_error():
    from kaft_promot.scale import shard_batch
    from kaft_promot.scale.mesh import check_divides

    class TwoByTwo:
        shape = {"data": 2, "fsdp": 2, "tensor": 1}

    def rows(count):
        return {"decoder_target_tokens": np.zeros((count, 3), np.int32)}

    for use in (shard_batch, check_divides):
        with pytest.raises(UserError, match="batch of 6 rows.*over 4 devices.*multiple of 4"):
            use(rows(6), TwoByTwo())
    check_divides(rows(8), TwoByTwo())


def test_one_process_needs_no_setup(monkeypatch):
    for name in ("COORDINATOR", "PROCESS_COUNT", "PROCESS_INDEX"):
        monkeypatch.delenv(f"KAFT_PROMOT_{name}", raising=False)
    initialize()
    initialize(process_count=1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"KAFT_PROMOT_PROCESS_COUNT": "2"}, "needs KAFT_PROMOT_COORDINATOR"),
        ({"KAFT_PROMOT_COORDINATOR": "localhost:1"}, "needs KAFT_PROMOT_COORDINATOR"),
        ({"KAFT_PROMOT_PROCESS_COUNT": "two"}, "not a whole number"),
        (
            {
                "KAFT_PROMOT_COORDINATOR": "localhost:1",
                "KAFT_PROMOT_PROCESS_COUNT": "2",
                "KAFT_PROMOT_PROCESS_INDEX": "2",
            },
            r"= 2 is not in \[0, 2\)",
        ),
    ],
)
def test_half_a_process_setup_is_a_user_error(monkeypatch, environment, message):
    for name in ("COORDINATOR", "PROCESS_COUNT", "PROCESS_INDEX"):
        monkeypatch.delenv(f"KAFT_PROMOT_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        initialize()


@pytest.mark.parametrize(
    "address", ["localhost", ":12345", "localhost:", "localhost:port", "a b:1"]
)
def test_an_address_without_host_or_port_is_a_user_error(monkeypatch, address):
    monkeypatch.setenv("KAFT_PROMOT_COORDINATOR", address)
    with pytest.raises(UserError, match=f"KAFT_PROMOT_COORDINATOR = '{address}': give host:port"):
        initialize(process_count=2, process_index=0)


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
@pytest.mark.parametrize("address", ["auto", "localhost:1"])
def test_what_jax_says_of_processes_is_a_user_error(monkeypatch, error, address):
    def fail(*_args, **_kwargs):
        raise error("no such luck\nand more")

    monkeypatch.setattr("jax.distributed.initialize", fail)
    monkeypatch.setenv("KAFT_PROMOT_COORDINATOR", address)
    with pytest.raises(UserError, match=f"KAFT_PROMOT_COORDINATOR = {address}: .*no such luck"):
        initialize(process_count=2, process_index=0)
