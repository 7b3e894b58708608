"""What mini starts from."""

import jax
import numpy as np

from kaft_promot.mini.start import NEIGHBOUR_BIAS, start_params
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
