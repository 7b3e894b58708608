"""One more head: the network stays as it was, and equal tokens find each other."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from kaft_promot.interop.checkpoint import load_model
from kaft_promot.interop.native import write_native
from kaft_promot.mini import grow as grow_lib
from kaft_promot.mini.vocabulary import train_vocabulary
from kaft_promot.models import T5Config, Transformer, flatten, init_params

CONFIG = T5Config(
    vocab_size=60,
    emb_dim=48,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=1,
    head_dim=16,
    mlp_dim=32,
)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 60, (64, 40)).astype(np.int32)
    rows[:, 30:] = 0
    return rows


@pytest.fixture(scope="module")
def grown(tokens):
    params = init_params(CONFIG, jax.random.key(0))
    return params, *grow_lib.grow(params, CONFIG, tokens, jax.random.key(1))


def test_the_network_computes_what_it_did(grown, tokens):
    params, wider, config = grown
    assert config.num_heads == CONFIG.num_heads + 1
    targets = tokens[:, :8]
    before = Transformer(CONFIG).apply({"params": params}, tokens, targets)
    after = Transformer(config).apply({"params": wider}, tokens, targets)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_only_the_new_heads_output_is_zero(grown):
    params, wider, _ = grown
    old, new = flatten(params), flatten(wider)
    for path, value in new.items():
        if path.endswith("out/kernel"):
            assert not np.any(value[len(old[path]) :])
        elif path.split("/")[-2] in ("query", "key", "value"):
            assert np.all(np.any(value[:, old[path].shape[1] :], axis=0))
        kept = value[tuple(slice(0, n) for n in old[path].shape)]
        np.testing.assert_array_equal(kept, old[path])


def test_new_heads_attend_to_the_same_token_elsewhere(grown):
    params, wider, config = grown
    row = np.zeros((1, 40), np.int32)
    row[0, :12] = [5, 9, 13, 21, 33, 47, 2, 13, 50, 21, 58, 5]
    for layer, x_BxLxD in grow_lib.attention_inputs(params, CONFIG, row).items():
        attention = wider["encoder"][layer]["attention"]
        query, key = (np.asarray(attention[n]["kernel"])[:, -16:] for n in ("query", "key"))
        x_LxD = x_BxLxD[0, :12]
        scores = (x_LxD @ query) @ (x_LxD @ key).T
        bias = wider["encoder"]["relpos_bias"]["rel_embedding"][-1]
        assert bias[0] == grow_lib.SELF_BIAS and not np.any(bias[1:])
        np.fill_diagonal(scores, scores.diagonal() + grow_lib.SELF_BIAS)
        found = scores.argmax(axis=1)
        for place, twin in ((0, 11), (2, 7), (3, 9), (7, 2), (9, 3), (11, 0)):
            assert found[place] == twin, layer


def test_the_command_writes_a_checkpoint_with_its_vocabulary(tmp_path: Path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    text = [f"{a} {b} runs to the {b}" for a in ("ant", "bee", "cat") for b in ("hill", "tree")]
    train_vocabulary(text * 20, data / "vocab.model", 278)
    rows = [json.dumps({"inputs": line, "targets": "x"}) for line in text]
    (data / "train.reading.jsonl").write_text("\n".join(rows) + "\n")
    config = dataclasses.replace(CONFIG, vocab_size=400)
    write_native(tmp_path / "old", init_params(config, jax.random.key(0)), config)
    arguments = [
        f"--checkpoint={tmp_path / 'old'}",
        f"--data={data}",
        f"--output={tmp_path / 'new'}",
        "--examples=6",
    ]
    assert grow_lib.main(arguments) == 0
    model = load_model(tmp_path / "new")
    assert model.config is not None and model.config.num_heads == 3
    assert grow_lib.main([*arguments[:3], "--examples=7"]) == 2
    assert "train.reading.jsonl has 6" in capsys.readouterr().err
    assert grow_lib.main([*arguments[:3], "--examples=0"]) == 2
    assert "error: argument --examples: 0: must be 1 or more" in capsys.readouterr().err
    assert grow_lib.main([arguments[0], f"--data={tmp_path}", arguments[2]]) == 2
    assert "vocab.model" in capsys.readouterr().err
