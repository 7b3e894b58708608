"""A tiny random model whose outputs vary, and an uncached reference to compare decoding with."""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaft_promot.models import T5Config, Transformer, abstract_params

VOCAB = 17


@pytest.fixture(scope="module", autouse=True)
def quick_decoding_tests(quick_compilation):
    """All of these tests compile tiny programs."""


CONFIG = T5Config(
    vocab_size=VOCAB,
    emb_dim=8,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=4,
    mlp_dim=12,
)


class LetterVocabulary:
    """Letters a to n are ids 3 to 16."""

    pad_id, eos_id, unk_id = 0, 1, 2
    vocab_size = VOCAB
    digest = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(letter) - ord("a") + 3 for letter in text]

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(chr(i - 3 + ord("a")) for i in ids if i >= 3)


@pytest.fixture(scope="session")
def config() -> T5Config:
    return CONFIG


@pytest.fixture(scope="session")
def params():
    """Parameters with strong layers: rows differ, and some end early, some never."""
    rng = np.random.default_rng(3)

    def draw(path, x):
        name = path[-2].key if len(path) > 1 else ""
        if path[-1].key == "scale":
            return np.ones(x.shape, np.float32)
        size = 1.0 if path[-1].key in ("embedding", "rel_embedding") else x.shape[0] ** -0.5
        size *= 6.0 if name in ("out", "wo") else 1.0
        return (rng.normal(size=x.shape) * size).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(CONFIG))


@pytest.fixture(scope="session")
def vocabulary() -> LetterVocabulary:
    return LetterVocabulary()


@functools.partial(jax.jit, static_argnums=0)
def _full_log_probs(config, params, inputs_BxL, targets_BxT):
    shifted = jnp.pad(targets_BxT, ((0, 0), (1, 0)))[:, :-1]
    return jax.nn.log_softmax(Transformer(config).apply({"params": params}, inputs_BxL, shifted))


def full_log_probs(config, params, inputs_BxL, targets_BxT) -> np.ndarray:
    """Log probabilities [B, T, V] by the whole network at once, without a cache."""
    return np.asarray(_full_log_probs(config, params, inputs_BxL, targets_BxT))


@pytest.fixture(scope="session")
def reference():
    return full_log_probs


@pytest.fixture(scope="session")
def make_inputs():
    return random_inputs


LENGTHS = (1, 3, 9, 12, 5, 7, 2, 12)


def random_inputs(seed: int, lengths: Iterable[int] = LENGTHS, width: int = 12) -> np.ndarray:
    """int32 [B, width], row b has lengths[b] random tokens, the last one the end token.

    The default shape is shared by most tests, so that they share compiled programs.
    """
    rng = np.random.default_rng(seed)
    lengths = list(lengths)
    inputs = np.zeros((len(lengths), width), np.int32)
    for row, length in zip(inputs, lengths, strict=True):
        row[:length] = rng.integers(3, VOCAB, length)
        row[length - 1] = 1
    return inputs
