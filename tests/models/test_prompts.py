"""How prompt rows start, and attaching them to a network."""

import numpy as np
import pytest

from kaft_promot.errors import UserError
from kaft_promot.models import T5Config, attach_prompts, flatten, prompts_of, remove_prompts
from kaft_promot.models.prompts import FIRST_PIECE, PROMPT, sampled_rows, uniform_rows, word_rows

CONFIG = T5Config(
    vocab_size=30,
    emb_dim=4,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=2,
    mlp_dim=4,
)
EMBEDDING = np.arange(120, dtype=np.float32).reshape(30, 4)


def test_sampled_rows_are_different_frequent_pieces():
    rows = sampled_rows(8, EMBEDDING, 10, np.random.default_rng(0))
    ids = (rows[:, 0] / 4).astype(int)
    np.testing.assert_array_equal(rows, EMBEDDING[ids])
    assert len(set(ids)) == 8
    assert set(ids) <= set(range(FIRST_PIECE, FIRST_PIECE + 10))
    again = sampled_rows(8, EMBEDDING, 10, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, again)
    # More rows than pieces: every piece before any repeats.
    many = sampled_rows(60, EMBEDDING, 5000, np.random.default_rng(0))
    assert len({row[0] for row in many[:27]}) == 27


def test_uniform_rows():
    rows = uniform_rows(500, 4, np.random.default_rng(0))
    assert rows.dtype == np.float32
    assert -0.5 <= rows.min() < -0.45 and 0.45 < rows.max() <= 0.5


def test_words_come_first_and_pieces_of_a_word_are_averaged():
    rest = np.full((4, 4), -1.0)
    rows = word_rows(4, EMBEDDING, [[5], [7, 9]], rest)
    np.testing.assert_array_equal(rows[0], EMBEDDING[5])
    np.testing.assert_array_equal(rows[1], EMBEDDING[8])
    np.testing.assert_array_equal(rows[2:], rest[2:])
    np.testing.assert_array_equal(word_rows(1, EMBEDDING, [[5], [6]], rest[:1]), EMBEDDING[5:6])


def test_attaching_and_removing_are_inverse():
    params = {"token_embedder": {"embedding": EMBEDDING}}
    prompts = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    config, attached = attach_prompts(CONFIG, params, prompts)
    assert (config.prompt_length, config.num_prompts) == (3, 2)
    np.testing.assert_array_equal(flatten(attached)[PROMPT], prompts.reshape(6, 4))
    np.testing.assert_array_equal(prompts_of(config, attached), prompts)
    back = remove_prompts(config, attached)
    assert back[0] == CONFIG and flatten(back[1]).keys() == flatten(params).keys()
    assert prompts_of(*back) is None
    with pytest.raises(UserError, match="3 wide.*emb_dim is 4"):
        attach_prompts(CONFIG, params, np.zeros((1, 5, 3)))
