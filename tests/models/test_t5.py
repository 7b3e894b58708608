"""What the network must do whatever its numbers: packing, prompts, caches, stacking, names."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.models import (
    T5Config,
    Transformer,
    abstract_params,
    flatten,
    init_params,
    logical_axes,
    stack_layers,
    unrolled,
    unstack_layers,
)
from kaft_promot.models.attention import RelativePositionBias, relative_position_bucket

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = T5Config(
    vocab_size=30,
    emb_dim=12,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=4,
    mlp_dim=20,
)


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, jax.random.key(0))


def random_tokens(shape, seed=0):
    return np.random.default_rng(seed).integers(2, 30, shape).astype(np.int32)


@functools.partial(jax.jit, static_argnames=("config", "method", "enable_dropout"))
def apply(config, params, *args, method=None, enable_dropout=False, **kwargs):
    if enable_dropout:
        kwargs["enable_dropout"] = True
    return Transformer(config).apply({"params": params}, *args, method=method, **kwargs)


def test_packed_logits_equal_unpacked(params):
    lengths = [(5, 3), (7, 4), (2, 1)]
    examples = [(random_tokens((1, n), n), random_tokens((1, t), t + 50)) for n, t in lengths]
    inputs, targets, in_segments, out_segments = (np.zeros((1, 16), np.int32) for _ in range(4))
    at = out = 0
    for segment, (x, y) in enumerate(examples, 1):
        n, t = x.shape[1], y.shape[1]
        inputs[0, at : at + n], in_segments[0, at : at + n] = x, segment
        targets[0, out + 1 : out + t] = y[0, :-1]
        out_segments[0, out : out + t] = segment
        at, out = at + n, out + t
    packed = apply(
        CONFIG,
        params,
        inputs,
        targets,
        encoder_segment_ids=in_segments,
        decoder_segment_ids=out_segments,
    )
    out = 0
    for x, y in examples:
        shifted = np.pad(y, ((0, 0), (1, 0)))[:, :-1]
        alone = apply(CONFIG, params, x, shifted)
        np.testing.assert_allclose(packed[:, out : out + y.shape[1]], alone, atol=2e-5)
        out += y.shape[1]


def test_padding_changes_nothing(params):
    x, y = random_tokens((2, 6)), random_tokens((2, 4), 1)
    padded = apply(CONFIG, params, np.pad(x, ((0, 0), (0, 5))), np.pad(y, ((0, 0), (0, 3))))
    np.testing.assert_allclose(padded[:, :4], apply(CONFIG, params, x, y), atol=2e-5)


def test_cached_steps_equal_the_whole_sequence(params):
    x, y = random_tokens((3, 9)), random_tokens((3, 6), 1)
    x[1, 5:] = 0
    y[:, 0] = 0
    whole = apply(CONFIG, params, x, y)
    encoded = apply(CONFIG, params, x, method="encode")
    cache = Transformer(CONFIG).apply({"params": params}, encoded, x > 0, 6, method="init_cache")
    for t in range(6):
        logits, cache = apply(CONFIG, params, y[:, t], jnp.int32(t), cache, method="decode_step")
        np.testing.assert_allclose(logits, whole[:, t], atol=2e-5)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(cache))


@functools.partial(jax.jit, static_argnames="config")
def gradients(config, params, x, y):
    return jax.grad(lambda params: jnp.mean(jnp.square(apply(config, params, x, y))))(params)


@pytest.mark.parametrize(
    ("scan", "remat"),
    [(True, "none"), (True, "full"), (True, "dots"), (False, "full"), (False, "dots")],
)
def test_scanned_layers_and_rematerialisation_change_nothing(params, scan, remat):
    x, y = random_tokens((2, 6)), random_tokens((2, 4), 1)
    expected = gradients(CONFIG, params, x, y)
    config = dataclasses.replace(CONFIG, scan_layers=scan, remat=remat)
    actual = gradients(config, stack_layers(params) if scan else params, x, y)
    assert flatten(actual).keys() == flatten(abstract_params(config)).keys()
    back_config, back = unrolled(config, actual)
    assert back_config.remat == remat and not back_config.scan_layers
    for path, value in flatten(expected).items():
        np.testing.assert_allclose(flatten(back)[path], value, atol=1e-5, err_msg=path)


def test_soft_prompt_rows_stand_where_their_placeholders_stand(params):
    config = dataclasses.replace(CONFIG, prompt_length=3, num_prompts=2)
    with_prompts = init_params(config, jax.random.key(0))
    table = with_prompts["encoder"]["prompt"]["prompt"]["prompt"]
    assert table.shape == (6, 12)
    x, y = random_tokens((1, 5)), random_tokens((1, 4), 1)
    # A prompt whose rows are vocabulary embeddings must act exactly like those tokens.
    words = np.array([7, 9, 4, 11, 2, 3])
    with_prompts["encoder"]["prompt"]["prompt"]["prompt"] = with_prompts["token_embedder"][
        "embedding"
    ][words]
    for prompt in (0, 1):
        placeholders = np.array([config.placeholder_ids(prompt)], np.int32)
        actual = apply(config, with_prompts, np.concatenate([placeholders, x], 1), y)
        text = np.concatenate([words[None, 3 * prompt : 3 * prompt + 3], x], 1)
        np.testing.assert_allclose(actual, apply(config, with_prompts, text, y), atol=2e-5)


def test_dropout_needs_its_key_and_changes_the_output(params):
    config = dataclasses.replace(CONFIG, dropout_rate=0.5)
    x, y = random_tokens((2, 6)), random_tokens((2, 4), 1)
    plain = apply(config, params, x, y)
    np.testing.assert_array_equal(plain, apply(CONFIG, params, x, y))
    dropped = apply(config, params, x, y, enable_dropout=True, rngs={"dropout": jax.random.key(1)})
    assert np.abs(dropped - plain).max() > 1e-2


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_bias_is_the_bucket_of_each_pair(bidirectional):
    module = RelativePositionBias(CONFIG, bidirectional)
    variables = module.init(jax.random.key(0), 200)
    bias = module.apply(variables, 200)
    table = variables["params"]["rel_embedding"]
    distance = np.arange(200)[None] - np.arange(200)[:, None]
    bucket = relative_position_bucket(
        jnp.asarray(distance), bidirectional=bidirectional, num_buckets=32, max_distance=128
    )
    np.testing.assert_array_equal(bias[0], table[:, bucket])
    assert bucket.max() == 31 and bucket.min() == 0


def test_abstract_parameters_belong_to_the_caller(params):
    abstract_params(CONFIG).clear()
    again = abstract_params(CONFIG)
    shapes = {path: x.shape for path, x in flatten(again).items()}
    assert shapes == {path: x.shape for path, x in flatten(params).items()}
    again["encoder"].clear()
    assert flatten(abstract_params(CONFIG)).keys() == shapes.keys()


def test_every_parameter_has_named_axes(params):
    for tree in (params, stack_layers(params)):
        axes = flatten(logical_axes(tree))
        for path, value in flatten(tree).items():
            assert len(axes[path]) == value.ndim
    assert flatten(logical_axes(stack_layers(params)))["encoder/layers/mlp/wo/kernel"] == (
        "layers",
        "mlp",
        "embed",
    )
    assert flatten(unstack_layers(stack_layers(params))).keys() == flatten(params).keys()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("mlp_activations", ("swish",), "mlp_activations"),
        ("remat", "some", "remat"),
        ("dtype", "float16", "dtype"),
        ("dropout_rate", 1.0, "dropout_rate"),
        ("num_heads", 0, "num_heads"),
        ("prompt_length", 5, "num_prompts"),
    ],
)
def test_impossible_configurations_name_their_field(field, value, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(CONFIG, **{field: value})
