"""Our network against Hugging Face's PyTorch T5: stored logits, losses and gradients."""

import ast
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaft_promot.models import T5Config, Transformer, flatten, stack_layers, unflatten

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
VARIANTS = ("t5_1_0", "t5_1_1")


def load(variant):
    arrays = dict(np.load(FIXTURES / f"hf_{variant}.npz"))
    config = T5Config(**ast.literal_eval(str(arrays.pop("config"))))
    params = unflatten({k[7:]: v for k, v in arrays.items() if k.startswith("params:")})
    return config, params, arrays


@functools.partial(jax.jit, static_argnames="config")
def loss_and_logits(params, config, arrays):
    targets = jnp.asarray(arrays["decoder_target_tokens"])
    logits = Transformer(config).apply(
        {"params": params},
        arrays["encoder_input_tokens"],
        jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    )
    log_probabilities = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(chosen * (targets > 0)), logits


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scan", [False, True])
def test_logits_and_gradients_equal_hugging_face(variant, scan):
    config, params, arrays = load(variant)
    if scan:
        config, params = dataclasses.replace(config, scan_layers=True), stack_layers(params)
    gradient = jax.jit(
        jax.value_and_grad(lambda p: loss_and_logits(p, config, arrays), has_aux=True)
    )
    (loss, logits), gradients = gradient(params)
    np.testing.assert_allclose(loss, arrays["loss"], rtol=1e-5)
    # Positions behind a target's end attend to nothing real in either implementation.
    real = arrays["decoder_target_tokens"][:, ::5] > 0
    np.testing.assert_allclose(
        np.asarray(logits)[:, ::5][real], arrays["logits"][real], atol=1e-4, rtol=1e-4
    )
    expected = {k[9:]: v for k, v in arrays.items() if k.startswith("gradient:")}
    if scan:
        expected = flatten(stack_layers(unflatten(expected)))
    actual = flatten(gradients)
    assert actual.keys() == expected.keys()
    for path, value in expected.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(actual[path] / scale, value / scale, atol=1e-4, err_msg=path)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_logits_are_close(variant):
    config, params, arrays = load(variant)
    _, logits = loss_and_logits(params, dataclasses.replace(config, dtype="bfloat16"), arrays)
    assert logits.dtype == jnp.float32
    real = arrays["decoder_target_tokens"][:, ::5] > 0
    error = np.abs(np.asarray(logits)[:, ::5] - arrays["logits"])[real]
    assert np.median(error) < 0.05 * np.abs(arrays["logits"][real]).mean()
