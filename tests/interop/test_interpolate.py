"""Weights between two checkpoints."""

import dataclasses

import numpy as np
import pytest

from kaft_promot import cli
from kaft_promot.errors import UserError
from kaft_promot.interop import load_model, write_native
from kaft_promot.interop.interpolate import interpolate
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


def params_of(seed, config=CONFIG):
    rng = np.random.default_rng(seed)
    flat = flatten(abstract_params(config))
    return unflatten({path: rng.normal(size=x.shape) for path, x in flat.items()})


@pytest.fixture
def pair(tmp_path):
    """A base, and a tuned model that still holds its soft prompt."""
    write_native(tmp_path / "base", params_of(0), CONFIG, vocabulary="bytes")
    config, params = attach_prompts(CONFIG, params_of(1), np.ones((1, 3, 4)))
    write_native(tmp_path / "tuned", params, config)
    return tmp_path


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_weights_lie_between(pair, weight):
    command = ["interpolate", f"--base={pair}/base", f"--tuned={pair}/tuned"]
    assert cli.main([*command, f"--weight={weight}", f"--output={pair}/out"]) == 0
    found = load_model(pair / "out")
    assert found.config == CONFIG and found.vocabulary == "bytes"
    base, tuned = (flatten(load_model(pair / name).params) for name in ("base", "tuned"))
    assert flatten(found.params).keys() == base.keys()
    for path, value in flatten(found.params).items():
        expected = (1 - weight) * base[path] + weight * tuned[path]
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7, err_msg=path)
        if weight in (0.0, 1.0):
            np.testing.assert_array_equal(value, (base, tuned)[int(weight)][path])


def test_what_does_not_belong_together_is_refused(pair):
    wide = dataclasses.replace(CONFIG, mlp_dim=8)
    write_native(pair / "wide", params_of(2, wide), wide)
    with pytest.raises(UserError, match=r"not of one network: parameter .*mlp.* is \(4, 8\)"):
        interpolate(pair / "wide", pair / "base", 0.5, pair / "out")
    with pytest.raises(UserError, match="--weight=1.5: must be from 0"):
        interpolate(pair / "base", pair / "tuned", 1.5, pair / "out")
    assert not (pair / "out").exists()
