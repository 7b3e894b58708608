"""Writes what Hugging Face's PyTorch T5 generates, for `test_hf_parity.py`.

    pip install -e .[parity]
    python tests/decoding/make_hf_fixtures.py

One small .npz holds the random parameters of a tiny T5 1.1 under T5X's names, a padded batch of
inputs, Hugging Face's greedy output, and for some length penalties its best sequence of a beam of 4
with `sequences_scores` (log probability / number of tokens ** length penalty).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers

from kaft_promot.interop.huggingface import write_huggingface
from kaft_promot.models import T5Config, abstract_params, flatten, unflatten

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "hf_decoding.npz"
MAX_LENGTH = 12
PENALTIES = (0.0, 0.6, 1.0)
CONFIG = T5Config(
    vocab_size=30,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=24,
)


def random_params(seed: int) -> dict[str, np.ndarray]:
    """Flat parameters with strong layers, so that outputs depend on the input and on each other."""
    rng = np.random.default_rng(seed)
    flat = {}
    for path, spec in flatten(abstract_params(CONFIG)).items():
        value = rng.normal(size=spec.shape)
        if path.endswith("scale"):
            value = 1 + 0.2 * value
        elif not path.endswith("embedding"):
            value *= spec.shape[0] ** -0.5
        if path.endswith(("out/kernel", "wo/kernel")):
            value *= 4.0
        if path.endswith("logits_dense/kernel"):
            value[:, 0] = 0.0  # padding is seldom best, the end often
            value[:, 1] *= 1.7
        flat[path] = value.astype(np.float32)
    return flat


def random_inputs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    inputs = np.zeros((24, 14), np.int32)
    for row in inputs:
        length = rng.integers(2, 15)
        row[:length] = rng.integers(3, CONFIG.vocab_size, length)
        row[length - 1] = 1
    return inputs


def main() -> None:
    flat, inputs = random_params(0), random_inputs(0)
    with tempfile.TemporaryDirectory() as folder:
        write_huggingface(folder, unflatten(flat), CONFIG)
        network = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    arguments = {
        "input_ids": torch.tensor(inputs, dtype=torch.long),
        "attention_mask": torch.tensor(inputs > 0).long(),
        "max_new_tokens": MAX_LENGTH,
        "do_sample": False,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "return_dict_in_generate": True,
        "output_scores": True,
    }

    def padded(sequences: torch.Tensor) -> np.ndarray:
        """Without the start token, up to MAX_LENGTH, 0 after the end (beam search fills with 1)."""
        tokens = sequences[:, 1:].numpy().astype(np.int32)
        tokens[np.cumsum(tokens == 1, axis=1) - (tokens == 1) > 0] = 0
        return np.pad(tokens, ((0, 0), (0, MAX_LENGTH - tokens.shape[1])))

    arrays = {"greedy": padded(network.generate(**arguments, num_beams=1).sequences)}
    for penalty in PENALTIES:
        found = network.generate(**arguments, num_beams=4, length_penalty=penalty)
        arrays[f"beam:{penalty}"] = padded(found.sequences)
        arrays[f"score:{penalty}"] = found.sequences_scores.numpy()
    FIXTURE.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        FIXTURE,
        **{f"params:{path}": value for path, value in flat.items()},
        **arrays,
        inputs=inputs,
        config=np.array(json.dumps(dataclasses.asdict(CONFIG))),
    )
    print(FIXTURE, FIXTURE.stat().st_size, "bytes;", transformers.__version__)


if __name__ == "__main__":
    main()
