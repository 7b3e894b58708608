"""Prompt files: what they keep, where else prompts are read from, and what does not fit."""

import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.interop import Prompts, read_prompts, write_native, write_prompts
from kaft_promot.interop.prompts import attach, join_prompts, prompts_in
from kaft_promot.models import T5Config, abstract_params, attach_prompts, flatten, unflatten

CONFIG = T5Config(
    vocab_size=384,
    emb_dim=4,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=2,
    mlp_dim=4,
)


def rows(seed=0, shape=(3, 4)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def params_of(config=CONFIG):
    flat = flatten(abstract_params(config))
    return unflatten({path: np.ones(x.shape, np.float32) for path, x in flat.items()})


def test_a_prompt_file_keeps_everything(tmp_path):
    prompts = Prompts(
        rows={"wmt/en-fr": rows(0), "rte": rows(1)},
        base_checkpoint="mini",
        vocab_size=384,
        vocabulary_digest="bytes+125",
    )
    path = write_prompts(tmp_path / "a" / "prompt.safetensors", prompts)
    assert path.stat().st_size < 2000
    for given in (path, path.parent):
        found = read_prompts(given)
        assert found.names == ("wmt/en-fr", "rte")  # the order of their numbers
        np.testing.assert_array_equal(found.table, prompts.table)
        for field in ("base_checkpoint", "vocab_size", "vocabulary_digest"):
            assert getattr(found, field) == getattr(prompts, field)
        assert found.length == 3
    np.testing.assert_array_equal(found.only("rte").table[0], rows(1))
    with pytest.raises(UserError, match="no prompt is called 'cb'; it has wmt/en-fr, rte"):
        found.only("cb")


def test_prompts_attach_to_models_of_the_same_width_and_vocabulary():
    prompts = Prompts(rows={"a": rows()}, vocab_size=384, vocabulary_digest="bytes+125")
    config, params = attach(prompts, CONFIG, params_of(), "bytes")
    found = prompts_in(config, params, ("a",), vocabulary="bytes")
    np.testing.assert_array_equal(found.table, prompts.table)
    assert found.vocabulary_digest == "bytes+125"
    other = Prompts(rows={"a": rows()}, vocab_size=384, vocabulary_digest="another")
    with pytest.raises(UserError, match="another vocabulary than bytes"):
        attach(other, CONFIG, params_of(), "bytes")
    small = Prompts(rows={"a": rows()}, vocab_size=32128)
    with pytest.raises(UserError, match="32128 embeddings; this one has 384"):
        attach(small, CONFIG, params_of(), None)
    wide = Prompts(rows={"a": rows(shape=(3, 8))}, origin="wide.safetensors")
    with pytest.raises(UserError, match="wide.safetensors: this prompt is 8 wide.*emb_dim is 4"):
        attach(wide, CONFIG, params_of(), None)


def test_prompts_of_several_files_share_a_table(tmp_path):
    for name, seed in (("x", 1), ("y", 2)):
        write_prompts(tmp_path / f"{name}.safetensors", Prompts(rows={name: rows(seed)}))
    joined = join_prompts({"rte": tmp_path / "x.safetensors", "wic": tmp_path / "y.safetensors"})
    assert joined.names == ("rte", "wic")
    np.testing.assert_array_equal(joined.table, np.stack([rows(1), rows(2)]))
    write_prompts(tmp_path / "y.safetensors", Prompts(rows={"y": rows(2, (5, 4))}))
    with pytest.raises(UserError, match=r"rte \(3, 4\), wic \(5, 4\)"):
        join_prompts({"rte": tmp_path / "x.safetensors", "wic": tmp_path / "y.safetensors"})


def test_a_model_that_has_a_prompt_gives_it(tmp_path):
    config, params = attach_prompts(CONFIG, params_of(), rows()[None])
    write_native(tmp_path / "with", params, config, vocabulary="bytes")
    found = read_prompts(tmp_path / "with")
    np.testing.assert_array_equal(found.table[0], rows())
    assert found.vocabulary_digest == "bytes+125"
    write_native(tmp_path / "without", params_of(), CONFIG)
    with pytest.raises(UserError, match="without: no soft prompt in it"):
        read_prompts(tmp_path / "without")


def test_the_published_prompt_of_prompt_tuning_is_read(shared_dir):
    prompts = read_prompts(shared_dir / "checkpoints" / "t5x" / "prompt_rte_100x768.npy")
    assert prompts.names == ("prompt_rte_100x768",)
    assert prompts.table.shape == (1, 100, 768) and prompts.table.dtype == np.float32
    assert np.isfinite(prompts.table).all() and prompts.table.std() > 0.1
    with pytest.raises(UserError, match="768 wide"):
        attach(prompts, CONFIG, params_of(), "bytes")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.npy", None, "no such prompt"),
        ("cut.npy", b"\x93NUMPY\x01", "not a whole .npy file"),
        ("cut.safetensors", b"\x00", "not a whole safetensors file"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        read_prompts(tmp_path / name)


def test_an_array_of_another_kind_is_refused(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(6).reshape(2, 3))
    with pytest.raises(UserError, match="int64"):
        read_prompts(tmp_path / "ids.npy")
    np.save(tmp_path / "flat.npy", np.zeros(6))
    with pytest.raises(UserError, match=r"shape \(6,\), not \[P, D\]"):
        read_prompts(tmp_path / "flat.npy")
