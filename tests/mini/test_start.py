"""What mini starts from."""

import gin
import jax
import numpy as np
import pytest

from kaft_promot.feeding.vocabulary import vocabulary_path
from kaft_promot.interop.checkpoint import load_model
from kaft_promot.mini.start import NEIGHBOUR_BIAS, main, start_params
from kaft_promot.mini.vocabulary import train_vocabulary
from kaft_promot.models import T5Config, Transformer, flatten, init_params

CONFIG = T5Config(
    vocab_size=50,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=8,
    mlp_dim=16,
)


def test_only_the_output_matrix_and_three_biases_differ_from_random_parameters():
    random = flatten(init_params(CONFIG, jax.random.key(0)))
    start = flatten(start_params(CONFIG, jax.random.key(0)))
    changed = {path for path in random if not np.array_equal(random[path], start[path])}
    biases = {f"{stack}/relpos_bias/rel_embedding" for stack in ("encoder", "decoder")}
    assert changed == biases | {"decoder/logits_dense/kernel"}
    np.testing.assert_allclose(
        start["decoder/logits_dense/kernel"], start["token_embedder/embedding"].T / 4
    )
    added = {path: int(np.count_nonzero(start[path] - random[path])) for path in biases}
    assert added == {
        "encoder/relpos_bias/rel_embedding": 2,
        "decoder/relpos_bias/rel_embedding": 1,
    }


def test_the_biased_heads_see_the_neighbouring_tokens():
    params = start_params(CONFIG, jax.random.key(0))
    tokens = np.arange(1, 13, dtype=np.int32)[None]
    _, state = Transformer(CONFIG).apply(
        {"params": params},
        tokens,
        method="encode",
        capture_intermediates=lambda module, _: type(module).__name__ == "RelativePositionBias",
        mutable=["intermediates"],
    )
    (bias_1xHxLxL,) = state["intermediates"]["encoder"]["relpos_bias"]["__call__"]
    for head, shift in ((0, -1), (1, 1)):
        row = np.asarray(bias_1xHxLxL)[0, head, 6]
        assert row.argmax() == 6 + shift
        assert row.max() - np.sort(row)[-2] > NEIGHBOUR_BIAS - 2


@pytest.fixture
def clean_gin():
    yield
    gin.clear_config()


def test_the_command_writes_a_checkpoint_with_its_vocabulary(tmp_path, clean_gin):
    assert main(["--vocabulary=mini", f"--output={tmp_path / 'start'}"]) == 0
    copied = tmp_path / "start" / "vocab.model"
    assert copied.read_bytes() == vocabulary_path("mini").read_bytes()
    assert load_model(tmp_path / "start").vocabulary == str(copied)


def test_a_vocabulary_that_is_none_or_too_large_is_one_line(tmp_path, capsys, clean_gin):
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [a + b + c for a in letters for b in letters for c in letters[:10]]
    train_vocabulary([" ".join(words[i : i + 9]) for i in range(len(words))], tmp_path / "v", 4000)
    (tmp_path / "text").write_text("no model")
    for vocabulary, message in (
        (tmp_path / "nope", "cannot read vocabulary"),
        (tmp_path / "text", "is not a SentencePiece model"),
        (tmp_path / "v", "has 4100 ids, but models/mini.gin has only 4096 embeddings"),
    ):
        assert main([f"--vocabulary={vocabulary}", f"--output={tmp_path / 'start'}"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        assert f"{vocabulary}" in error and message in error
    assert not (tmp_path / "start").exists()
