"""Greedy and beam search against Hugging Face's `generate` (see `make_hf_fixtures.py`)."""

import json
import pathlib

import numpy as np
import pytest

from kaft_promot.decoding import beam_search, greedy, score
from kaft_promot.models import T5Config, unflatten

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "hf_decoding.npz"
T = 12


@pytest.fixture(scope="module")
def hf():
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def hf_config(hf):
    return T5Config(**json.loads(hf["config"].item()))


@pytest.fixture(scope="module")
def hf_params(hf):
    flat = {k.removeprefix("params:"): v for k, v in hf.items() if k.startswith("params:")}
    return unflatten(flat)


def test_greedy_is_hugging_faces(hf, hf_config, hf_params):
    assert len(np.unique(hf["greedy"], axis=0)) > 12  # the outputs vary
    np.testing.assert_array_equal(
        greedy(hf_config, hf_params, hf["inputs"], T).tokens, hf["greedy"]
    )


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0])
def test_beam_4_is_never_less_probable_than_hugging_faces(hf, hf_config, hf_params, length_penalty):
    theirs, their_scores = hf[f"beam:{length_penalty}"], hf[f"score:{length_penalty}"]
    found = beam_search(
        hf_config, hf_params, hf["inputs"], T, num_beams=4, alpha=length_penalty, penalty="hf"
    )
    ours, our_scores = np.asarray(found.tokens[:, -1]), np.asarray(found.scores[:, -1])
    assert (our_scores >= their_scores - 1e-4).all()
    # Both measured by the scorer, which knows nothing of beams; n counts as Hugging Face does.
    for tokens, scores in ((ours, our_scores), (theirs, their_scores)):
        n = np.where((tokens == 1).any(1), (tokens == 1).argmax(1) + 1, T)
        total = np.asarray(score(hf_config, hf_params, hf["inputs"], tokens))
        whole = np.array([row[:k].all() for row, k in zip(tokens, n, strict=True)])
        assert whole.sum() > 20  # rows without a padding token in the midst
        np.testing.assert_allclose((total / n**length_penalty)[whole], scores[whole], atol=1e-4)
    same = (ours == theirs).all(axis=1)
    assert same.mean() > 0.5
    assert ((our_scores > their_scores + 1e-5) | same).all()
    assert (theirs != hf["greedy"]).any(axis=1).sum() > 3  # a beam finds what greedy misses
