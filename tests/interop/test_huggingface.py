"""Hugging Face folders: names, transposition, both architectures, what cannot be expressed.

`NAMES` are those of `T5ForConditionalGeneration.state_dict()` in transformers, which reads such a
folder in `tests/models/make_hf_fixtures.py`.
"""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import vocabulary_path
from kaft_promot.interop import export_model, load_model, run_vocabulary, write_native
from kaft_promot.interop.huggingface import huggingface_name, t5x_path, write_huggingface
from kaft_promot.interop.tensors import read_metadata
from kaft_promot.models import T5Config, abstract_params, flatten

# Shapes for d_model 8, d_kv 3, 2 heads, d_ff 16, vocabulary 384: Hugging Face stores [out, in].
NAMES = {
    "shared.weight": ("token_embedder/embedding", (384, 8)),
    "encoder.block.0.layer.0.SelfAttention.q.weight": (
        "encoder/layers_0/attention/query/kernel",
        (6, 8),
    ),
    "encoder.block.1.layer.0.SelfAttention.o.weight": (
        "encoder/layers_1/attention/out/kernel",
        (8, 6),
    ),
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
        "encoder/relpos_bias/rel_embedding",
        (32, 2),
    ),
    "encoder.block.0.layer.0.layer_norm.weight": (
        "encoder/layers_0/pre_attention_layer_norm/scale",
        (8,),
    ),
    "encoder.block.0.layer.1.DenseReluDense.wi_1.weight": (
        "encoder/layers_0/mlp/wi_1/kernel",
        (16, 8),
    ),
    "encoder.block.1.layer.1.layer_norm.weight": (
        "encoder/layers_1/pre_mlp_layer_norm/scale",
        (8,),
    ),
    "encoder.final_layer_norm.weight": ("encoder/encoder_norm/scale", (8,)),
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
        "decoder/relpos_bias/rel_embedding",
        (32, 2),
    ),
    "decoder.block.2.layer.0.SelfAttention.v.weight": (
        "decoder/layers_2/self_attention/value/kernel",
        (6, 8),
    ),
    "decoder.block.0.layer.0.layer_norm.weight": (
        "decoder/layers_0/pre_self_attention_layer_norm/scale",
        (8,),
    ),
    "decoder.block.1.layer.1.EncDecAttention.k.weight": (
        "decoder/layers_1/encoder_decoder_attention/key/kernel",
        (6, 8),
    ),
    "decoder.block.1.layer.1.layer_norm.weight": (
        "decoder/layers_1/pre_cross_attention_layer_norm/scale",
        (8,),
    ),
    "decoder.block.2.layer.2.DenseReluDense.wo.weight": (
        "decoder/layers_2/mlp/wo/kernel",
        (8, 16),
    ),
    "decoder.block.2.layer.2.layer_norm.weight": (
        "decoder/layers_2/pre_mlp_layer_norm/scale",
        (8,),
    ),
    "decoder.final_layer_norm.weight": ("decoder/decoder_norm/scale", (8,)),
    "lm_head.weight": ("decoder/logits_dense/kernel", (384, 8)),
}


@pytest.fixture
def folder(tmp_path, tiny_params, tiny_config):
    write_huggingface(tmp_path, tiny_params, tiny_config)
    return tmp_path


def same(a, b):
    a, b = flatten(a), flatten(b)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def edit_config(folder, **change):
    path = folder / "config.json"
    fields = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))


def test_every_kind_of_parameter_has_hugging_faces_name_and_layout(folder, tiny_params):
    tensors = load_file(folder / "model.safetensors")
    assert len(tensors) == len(flatten(tiny_params))
    for name, (path, shape) in NAMES.items():
        assert t5x_path(name)[0] == path
        assert huggingface_name(path)[0] == name
        assert tensors[name].shape == shape
        ours = np.asarray(flatten(tiny_params)[path])
        stays = name == "shared.weight" or ours.ndim == 1
        np.testing.assert_array_equal(tensors[name], ours if stays else ours.T)


def test_the_tensors_say_that_they_are_pytorchs(folder, tmp_path, tiny_config, tiny_params):
    """transformers 4 refuses files of another format."""
    assert read_metadata(folder / "model.safetensors")["format"] == "pt"
    path = write_native(tmp_path / "ours", tiny_params, tiny_config)
    assert read_metadata(path)["format"] == "np"


def test_every_parameter_name_comes_back(tiny_config):
    for path in flatten(abstract_params(tiny_config)):
        name, transposed = huggingface_name(path)
        assert t5x_path(name) == (path, transposed)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"mlp_activations": ("relu",), "logits_via_embedding": True},
        {"mlp_activations": ("silu", "linear")},
        {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 64},
    ],
)
def test_round_trip(tmp_path, tiny_config, tiny_params, change):
    config = dataclasses.replace(tiny_config, **change)
    rng = np.random.default_rng(0)
    from flax import traverse_util

    flat = {
        path: rng.standard_normal(like.shape, np.float32)
        for path, like in flatten(abstract_params(config)).items()
    }
    params = traverse_util.unflatten_dict(flat, sep="/")
    write_huggingface(tmp_path, params, config)
    model = load_model(tmp_path)
    assert model.config == config
    assert same(model.params, params)


def test_published_configurations_are_understood(folder):
    """Fields as google/t5-v1_1-small, google/mt5-small and t5-small publish them."""
    assert load_model(folder).config.logits_via_embedding is False
    edit_config(folder, model_type="mt5", tie_word_embeddings=..., num_decoder_layers=3)
    assert load_model(folder).config.logits_via_embedding is False
    edit_config(folder, relative_attention_max_distance=..., relative_attention_num_buckets=...)
    config = load_model(folder).config
    assert (config.relative_attention_num_buckets, config.relative_attention_max_distance) == (
        32,
        128,
    )


def edit_head(folder, head):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight")
    if head is not None:
        tensors["lm_head.weight"] = head
    save_file(tensors, folder / "model.safetensors")
    return tensors["shared.weight"]


FIVE = {"tie_word_embeddings": True, "transformers_version": "5.24.0"}
UNDIVIDED = {**FIVE, "scale_decoder_outputs": False}


@pytest.mark.parametrize(
    "change, divided",
    [
        ({"tie_word_embeddings": ...}, True),
        ({**FIVE, "scale_decoder_outputs": True}, True),
        (UNDIVIDED, False),
        ({**FIVE, "model_type": "mt5"}, False),
        ({"model_type": "mt5", "tie_word_embeddings": True}, False),
        (
            {
                "model_type": "mt5",
                "tie_word_embeddings": True,
                "transformers_version": "4.57.1",
            },
            True,
        ),
    ],
)
@pytest.mark.parametrize("saved", [False, True])
def test_without_a_matrix_of_its_own_the_output_is_the_embedding(folder, change, divided, saved):
    """T5 1.0's logits are divided by sqrt(d_model), those of later networks are not."""
    shared = load_file(folder / "model.safetensors")["shared.weight"]
    edit_head(folder, shared if saved else None)
    edit_config(folder, **change)
    model = load_model(folder)
    assert model.config.logits_via_embedding is divided
    kernel = flatten(model.params).get("decoder/logits_dense/kernel")
    if divided:
        assert kernel is None
    else:
        np.testing.assert_array_equal(kernel, shared.T)


@pytest.mark.parametrize("change", [{}, UNDIVIDED, {**FIVE, "model_type": "mt5"}])
def test_an_output_matrix_that_differs_is_kept(folder, tiny_params, change):
    """transformers 5 says of every network that its embeddings are tied."""
    edit_config(folder, **change)
    model = load_model(folder)
    assert model.config.logits_via_embedding is False
    assert same(model.params, tiny_params)


def test_an_output_matrix_that_was_lost_is_missed(folder):
    edit_head(folder, None)
    for model_type in ("t5", "mt5"):
        edit_config(folder, model_type=model_type, tie_word_embeddings=False)
        with pytest.raises(UserError, match=r"decoder/logits_dense/kernel \(8, 384\) is missing"):
            load_model(folder)


def test_second_names_of_the_embedding_are_ignored(folder, tiny_params):
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
    tensors["decoder.embed_tokens.weight"] = tensors["shared.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert same(load_model(folder).params, tiny_params)


def test_shards_are_read(folder, tiny_params):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    for number, part in enumerate((names[:10], names[10:])):
        save_file({name: tensors[name] for name in part}, folder / f"part{number}.safetensors")
    weight_map = {name: f"part{int(i >= 10)}.safetensors" for i, name in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    assert same(load_model(folder).params, tiny_params)
    (folder / "part1.safetensors").unlink()
    with pytest.raises(UserError, match="part1.safetensors: no such file"):
        load_model(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"model_type": "umt5"}, "model_type 'umt5'"),
        ({"feed_forward_proj": "gated-relu"}, "feed_forward_proj 'gated-relu'"),
        ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon is 1e-05; only networks with 1e-06"),
        ({"d_ff": ...}, "the field d_ff is missing"),
        ({"d_ff": 17}, r"wi_0/kernel has shape \(8, 16\), .* wants \(8, 17\)"),
    ],
)
def test_other_architectures_are_refused(folder, change, message):
    edit_config(folder, **change)
    with pytest.raises(UserError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"vocab_size": "x"}, "vocab_size is 'x', not an integer"),
        ({"d_model": None}, "d_model is null, not an integer"),
        ({"dropout_rate": "0.1"}, "dropout_rate is '0.1', not a number"),
        ({"feed_forward_proj": ["relu"]}, r"feed_forward_proj is \['relu'\], not a text"),
        ({"layer_norm_epsilon": "1e-6"}, "layer_norm_epsilon is '1e-6', not a number"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', not true or false"),
        ({"num_decoder_layers": 2.0}, "num_decoder_layers is 2.0, not an integer"),
        ({"d_kv": 0}, "T5Config.head_dim = 0: must be at least 1"),
    ],
)
def test_a_field_of_another_type_is_named(folder, change, message):
    edit_config(folder, **change)
    with pytest.raises(UserError, match=f"^{folder}/config.json: {message}"):
        load_model(folder)


def test_a_tokenizer_of_no_class_says_nothing_of_the_vocabulary(folder):
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": null}')
    assert load_model(folder).vocabulary is None


def test_an_unknown_parameter_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["classification_head.weight"] = np.zeros(3, np.float32)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="classification_head.weight is no parameter"):
        load_model(folder)


def test_weights_in_another_format_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="no model.safetensors"):
        load_model(folder)


def test_what_hugging_face_cannot_hold_is_refused(
    tmp_path, tiny_config, tiny_params, prompted_config, prompted_params
):
    with pytest.raises(UserError, match="no soft prompts"):
        write_huggingface(tmp_path / "a", prompted_params, prompted_config)
    odd = dataclasses.replace(tiny_config, mlp_activations=("relu", "linear"))
    with pytest.raises(UserError, match="mlp_activations"):
        write_huggingface(tmp_path / "a", tiny_params, odd)
    assert not (tmp_path / "a").exists()


def test_the_tokenizer_adds_only_sentinels_that_its_file_lacks(tmp_path):
    """T5's file has none, mT5's all."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(vocabulary_path("mini").read_bytes())
    for i in reversed(range(100)):
        model.pieces.add(piece=f"▁<extra_id_{i}>", type=model.SentencePiece.USER_DEFINED)
    (tmp_path / "mt5.model").write_bytes(model.SerializeToString())
    for vocabulary, added in ((None, 100), (str(tmp_path / "mt5.model"), 0)):
        export_model("mini", tmp_path / "out", "huggingface", vocabulary)
        tokenizer = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
        assert tokenizer == {"tokenizer_class": "T5Tokenizer", "extra_ids": added}
        assert run_vocabulary(tmp_path / "out") == str(tmp_path / "out" / "spiece.model")


def test_export_there_and_back(tmp_path, tiny_config: T5Config, tiny_params):
    write_native(tmp_path / "ours", tiny_params, tiny_config, vocabulary="bytes")
    export_model(tmp_path / "ours", tmp_path / "theirs", "huggingface")
    export_model(tmp_path / "theirs", tmp_path / "back")
    model = load_model(tmp_path / "back")
    assert same(model.params, tiny_params)
    assert (model.config, model.vocabulary) == (tiny_config, "bytes")
    with pytest.raises(UserError, match="--format torch: choose from native, huggingface"):
        export_model(tmp_path / "ours", tmp_path / "x", "torch")
