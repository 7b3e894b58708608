"""Folders that transformers 4 and 5 saved, against the logits that these computed.

`make_transformers_fixtures.py` wrote the fixtures. What transformers 5 saves differs: it says of
every network that its embeddings are tied.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from kaft_promot.interop import export_model, load_model
from kaft_promot.models import Transformer

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
NETWORKS = (
    "t5_1_0",
    "t5_1_1",
    "mt5",
    "t5_1_0_two_matrices",
    "t5_1_0_made",
    "t5_1_1_made",
    "mt5_made",
    "mt5_tied_made",
)


@functools.partial(jax.jit, static_argnames="config")
def logits_of(config, params, inputs, targets):
    shifted = jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    return Transformer(config).apply({"params": params}, inputs, shifted)


@pytest.mark.parametrize("major", [4, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_equal_those_of_the_transformers_that_saved_it(tmp_path, major, name):
    arrays = dict(np.load(FIXTURES / f"transformers_{major}.npz"))
    folder, prefix = tmp_path / "saved", f"{name}:tensor:"
    folder.mkdir()
    (folder / "config.json").write_text(str(arrays[f"{name}:config"]))
    tensors = {
        path.removeprefix(prefix): value.astype(np.float32)
        for path, value in arrays.items()
        if path.startswith(prefix)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    export_model(folder, tmp_path / "again", "huggingface")
    for path in (folder, tmp_path / "again"):
        model = load_model(path)
        found = logits_of(
            model.config, model.params, arrays["inputs"], arrays["targets"].astype(np.int32)
        )
        np.testing.assert_allclose(found, arrays[f"{name}:logits"], atol=1e-4)
