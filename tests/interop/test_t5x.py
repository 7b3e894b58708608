"""T5X checkpoints: both layouts are read, and compute what T5X computed."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tensorstore
from flax import serialization

from kaft_promot.errors import UserError
from kaft_promot.interop import load_model
from kaft_promot.models import Transformer, flatten

COPIES = {"copy_orbax_1320": 1320, "copy_legacy_20": 20, "copy_legacy_bf16_2": 2}


def write_zarr(folder, array):
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
        "metadata": {
            "shape": array.shape,
            "chunks": [max(1, size // 2) for size in array.shape],
            "dtype": array.dtype.str,
            "compressor": {"id": "gzip"},
        },
    }
    tensorstore.open(spec, create=True).result().write(array).result()


def write_legacy(folder, params, spec_of):
    """A legacy checkpoint whose kernels are zarr folders and whose other leaves are inline.

    `spec_of(name, array)` writes an array and returns the spec that the msgpack file holds.
    """
    folder.mkdir()
    target = {}
    for path, value in flatten(params).items():
        name = f"target.{path.replace('/', '.')}"
        array = np.asarray(value)
        target[path] = spec_of(name, array) if path.endswith("kernel") else array
    tree = {
        "version": 3,
        "optimizer": {
            "target": _nest(target),
            "state": {"step": np.int32(5), "param_states": {}},
        },
    }
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
    return folder


def _nest(flat):
    nested = {}
    for path, value in flat.items():
        *parents, last = path.split("/")
        node = nested
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return nested


@pytest.mark.parametrize("name", COPIES)
def test_logits_equal_those_of_t5x(shared_dir, name):
    folder = shared_dir / "checkpoints" / "t5x"
    model = load_model(folder / name)
    expected = np.load(folder / f"{name}.npz")
    rows = slice(0, 2)
    inputs, targets = (
        expected["encoder_input_tokens"][rows],
        expected["decoder_target_tokens"][rows],
    )
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    logits = Transformer(model.config).apply(
        {"params": jax.tree.map(jnp.asarray, model.params)}, inputs, shifted
    )
    real = targets > 0
    assert real.sum() > 20
    assert np.abs(np.asarray(logits) - expected["logits"][rows])[real].max() < 1e-4
    assert model.step == COPIES[name]


def test_public_fixtures_are_read(shared_dir):
    folder = shared_dir / "checkpoints" / "t5x"
    chunked = load_model(folder / "t5_1_1_tiny_legacy_3")
    assert (chunked.config.vocab_size, chunked.config.emb_dim, chunked.step) == (32128, 4, 3)
    assert np.abs(chunked.params["token_embedder"]["embedding"]).min(axis=1).max() > 0
    inline = load_model(folder / "t5_tiny_inline.checkpoint")
    assert (inline.config.emb_dim, inline.config.num_heads, inline.config.head_dim) == (8, 4, 3)


def test_the_newest_checkpoint_of_a_model_dir_is_taken(shared_dir, tmp_path):
    t5x = shared_dir / "checkpoints" / "t5x"
    (tmp_path / "checkpoint_20").symlink_to(t5x / "copy_legacy_20")
    (tmp_path / "checkpoint_1320").symlink_to(t5x / "copy_orbax_1320")
    assert load_model(tmp_path).step == 1320


@pytest.mark.parametrize(
    "spec",
    [
        {"driver": "zarr", "kvstore": {"driver": "file", "path": "NAME"}},
        {"driver": "zarr", "kvstore": {"driver": "gfile", "path": "NAME/"}, "dtype": "float32"},
        {"driver": "zarr", "kvstore": {"driver": "gcs", "bucket": "b", "path": "a/NAME/"}},
        {"driver": "zarr", "path": "NAME", "kvstore": {"driver": "file"}},
    ],
)
def test_every_form_of_spec_is_read(tmp_path, tiny_config, tiny_params, spec):
    def spec_of(name, array):
        write_zarr(tmp_path / "checkpoint_5" / name, array)
        return json.loads(json.dumps(spec).replace("NAME", name))

    model = load_model(write_legacy(tmp_path / "checkpoint_5", tiny_params, spec_of))
    assert model.config == tiny_config
    assert model.step == 5
    for path, value in flatten(model.params).items():
        np.testing.assert_array_equal(value, flatten(tiny_params)[path])


def test_bfloat16_bits_stored_as_integers(tmp_path, tiny_params):
    def spec_of(name, array):
        write_zarr(tmp_path / "c" / name, array.astype(ml_dtypes.bfloat16).view(np.uint16))
        return {"driver": "zarr", "kvstore": {"driver": "file", "path": name}, "dtype": "bfloat16"}

    found = flatten(load_model(write_legacy(tmp_path / "c", tiny_params, spec_of)).params)
    for path, value in flatten(tiny_params).items():
        expected = np.asarray(value)
        if path.endswith("kernel"):
            expected = expected.astype(ml_dtypes.bfloat16).astype(np.float32)
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], expected)


def test_a_missing_array_and_a_missing_chunk_are_named(tmp_path, tiny_params):
    def spec_of(name, array):
        write_zarr(tmp_path / "c" / name, array)
        return {"driver": "zarr", "kvstore": {"driver": "file", "path": name}}

    folder = write_legacy(tmp_path / "c", tiny_params, spec_of)
    broken = folder / "target.encoder.layers_1.mlp.wo.kernel"
    (broken / "1.0").unlink()
    with pytest.raises(UserError, match="target.encoder.layers_1.mlp.wo.kernel: cannot be read"):
        load_model(folder)
    shutil.rmtree(broken)
    with pytest.raises(UserError, match="target.encoder.layers_1.mlp.wo.kernel: missing"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"not msgpack", b"\x81\xa7version\x03"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(UserError, match=str(tmp_path / "checkpoint")):
        load_model(tmp_path)


def test_a_damaged_orbax_checkpoint_is_named(shared_dir, tmp_path):
    copy = tmp_path / "checkpoint_1"
    shutil.copytree(shared_dir / "checkpoints" / "t5x" / "copy_orbax_1320", copy)
    for path in copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    manifest = copy / "state" / "manifest.ocdbt"
    manifest.write_bytes(manifest.read_bytes()[:20])
    with pytest.raises(UserError, match="checkpoint_1/state: damaged") as error:
        load_model(copy)
    assert len(str(error.value)) < 500
