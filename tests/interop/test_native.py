"""Our own exported folders: what is written is what is read; damage is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from kaft_promot.errors import UserError
from kaft_promot.interop import export_model, load_model, load_params, write_native
from kaft_promot.interop.vocabulary import checkpoint_vocabulary
from kaft_promot.models import flatten, stack_layers


def same(a, b):
    a, b = flatten(a), flatten(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_round_trip_keeps_every_bit_and_the_configuration(tmp_path, tiny_config, tiny_params):
    write_native(tmp_path, tiny_params, tiny_config, vocabulary="bytes", step=7)
    model = load_model(tmp_path)
    assert same(model.params, tiny_params)
    assert (model.config, model.vocabulary, model.step) == (tiny_config, "bytes", 7)
    assert same(load_params(tmp_path / "model.safetensors"), tiny_params)


def test_tensors_have_t5x_names_with_dots(tmp_path, tiny_config, tiny_params):
    tensors = load_file(write_native(tmp_path, tiny_params, tiny_config))
    assert tensors["encoder.layers_0.attention.query.kernel"].shape == (8, 6)
    assert len(tensors) == len(flatten(tiny_params))


def test_stacked_layers_are_written_unstacked_and_read_stacked(tmp_path, tiny_config, tiny_params):
    scanned = dataclasses.replace(tiny_config, scan_layers=True)
    write_native(tmp_path, stack_layers(tiny_params), scanned)
    assert same(load_params(tmp_path), tiny_params)
    assert same(load_params(tmp_path, scanned), stack_layers(tiny_params))


def test_another_shape_is_refused_with_name_shapes_and_path(tmp_path, tiny_config, tiny_params):
    write_native(tmp_path, tiny_params, tiny_config)
    other = dataclasses.replace(tiny_config, mlp_dim=24)
    with pytest.raises(UserError) as error:
        load_params(tmp_path, other)
    for part in (str(tmp_path), "layers_0/mlp/wi_0/kernel", "(8, 16)", "(8, 24)"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_decoder_layers": 4}, "decoder/layers_3/.* is missing"),
        ({"num_decoder_layers": 2}, "decoder/layers_2/.* has no place"),
        ({"logits_via_embedding": True}, "decoder/logits_dense/kernel .* has no place"),
    ],
)
def test_missing_and_unknown_parameters_are_refused(
    tmp_path, tiny_config, tiny_params, change, message
):
    write_native(tmp_path, tiny_params, tiny_config)
    with pytest.raises(UserError, match=message):
        load_params(tmp_path, dataclasses.replace(tiny_config, **change))


def test_a_checkpoint_without_prompt_fits_a_model_with_prompt(
    tmp_path, tiny_config, tiny_params, prompted_config
):
    write_native(tmp_path, tiny_params, tiny_config)
    assert same(load_params(tmp_path, prompted_config), tiny_params)


def test_prompts_survive(tmp_path, prompted_config, prompted_params):
    write_native(tmp_path, prompted_params, prompted_config)
    assert same(load_model(tmp_path).params, prompted_params)
    assert load_model(tmp_path).config == prompted_config


def test_the_vocabulary_file_travels_with_the_model(tmp_path, tiny_config, tiny_params):
    vocabulary = tmp_path / "my.model"
    vocabulary.write_bytes(b"pieces")
    write_native(tmp_path / "a", tiny_params, tiny_config, vocabulary=str(vocabulary))
    vocabulary.unlink()
    (tmp_path / "a").rename(tmp_path / "b")
    found = load_model(tmp_path / "b").vocabulary
    assert found == str(tmp_path / "b" / "vocab.model")
    assert checkpoint_vocabulary(tmp_path / "b") == found
    export_model(tmp_path / "b", tmp_path / "c")
    assert (tmp_path / "c" / "vocab.model").read_bytes() == b"pieces"


def test_a_cut_file_is_named(tmp_path, tiny_config, tiny_params):
    path = write_native(tmp_path, tiny_params, tiny_config)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="model.safetensors: not a whole safetensors file"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", r"model_config.json:1: not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"vocab_size": 384}', "the field emb_dim is missing"),
        ('{"vocab_sise": 384}', "unknown field vocab_sise"),
    ],
)
def test_a_malformed_configuration_is_named(tmp_path, tiny_config, tiny_params, content, message):
    write_native(tmp_path, tiny_params, tiny_config)
    (tmp_path / "model_config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mlp_dim": "16"}, "mlp_dim is '16', not an integer"),
        ({"emb_dim": None}, "emb_dim is null, not an integer"),
        ({"num_heads": True}, "num_heads is True, not an integer"),
        ({"dropout_rate": "0.1"}, "dropout_rate is '0.1', not a number"),
        ({"mlp_activations": "gelu"}, "mlp_activations is 'gelu', not a list of texts"),
        ({"mlp_activations": [1]}, r"mlp_activations is \[1\], not a list of texts"),
        ({"logits_via_embedding": 1}, "logits_via_embedding is 1, not true or false"),
        ({"dtype": 3}, "dtype is 3, not a text"),
        ({"vocabulary": 3}, "vocabulary is 3, not a text"),
        ({"step": "7"}, "step is '7', not an integer"),
    ],
)
def test_a_field_of_another_type_is_named(tmp_path, tiny_config, tiny_params, change, message):
    write_native(tmp_path, tiny_params, tiny_config)
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=f"^{path}: {message}$"):
        load_model(tmp_path)


@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk_is_told_and_keeps_the_old_file(
    tmp_path, tiny_config, tiny_params, full_disk, room
):
    path = write_native(tmp_path, tiny_params, tiny_config)
    before = path.read_bytes()
    changed = jax.tree.map(lambda x: x + 1, tiny_params)
    with full_disk(room), pytest.raises(UserError) as error:
        write_native(tmp_path, changed, tiny_config)
    assert str(error.value).startswith(f"{tmp_path}/model")
    assert "cannot be written: " in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "model_config.json"]


@pytest.mark.parametrize(
    "path, message",
    [
        ("nowhere", "no such checkpoint"),
        ("gs://bucket/checkpoint_1", "only local files"),
        (".", "no checkpoint in it"),
    ],
)
def test_a_path_without_checkpoint_is_refused(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load_params(path)
