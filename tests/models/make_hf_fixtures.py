"""Writes what Hugging Face's PyTorch T5 computes, for `test_parity.py`.

    pip install -e .[parity]
    python tests/models/make_hf_fixtures.py

Per variant (T5 1.0: ReLU, tied output; T5 1.1: gated GELU, untied) one small .npz holds random
parameters under T5X's names, a batch with padding and lengths beyond the last relative-position
bucket (128), the logits, the summed cross entropy and every parameter's gradient, all float32.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile

import jax
import numpy as np
import torch
import transformers

from kaft_promot.interop.huggingface import t5x_path, write_huggingface
from kaft_promot.models import T5Config, flatten, init_params, unflatten

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SMALL = dict(
    vocab_size=40,
    emb_dim=16,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=24,
)
VARIANTS = {
    "t5_1_0": T5Config(**SMALL, mlp_activations=("relu",), logits_via_embedding=True),
    "t5_1_1": T5Config(**SMALL, mlp_activations=("gelu", "linear")),
}


def random_params(config: T5Config, seed: int) -> dict:
    """Parameters whose norms, biases and attention are far from their initial values."""
    rng = np.random.default_rng(seed)
    flat = flatten(init_params(config, jax.random.key(seed)))
    for path, value in flat.items():
        noise = rng.normal(size=value.shape).astype(np.float32)
        scale = 1.0 if path.endswith("rel_embedding") else 0.3
        flat[path] = np.asarray(value) + scale * noise * (0.5 + np.abs(np.asarray(value)).mean())
    return unflatten(flat)


def random_batch(seed: int) -> dict[str, np.ndarray]:
    """Three examples: full length, short, and a single token."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(2, 40, (3, 150)).astype(np.int32)
    targets = rng.integers(2, 40, (3, 140)).astype(np.int32)
    for row, (length, target_length) in enumerate([(150, 140), (37, 9), (1, 1)]):
        inputs[row, length:] = 0
        targets[row, target_length:] = 0
    return {"encoder_input_tokens": inputs, "decoder_target_tokens": targets}


def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    for seed, (name, config) in enumerate(VARIANTS.items()):
        params, batch = random_params(config, seed), random_batch(seed)
        with tempfile.TemporaryDirectory() as folder:
            write_huggingface(folder, params, config)
            network = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
        inputs = torch.tensor(batch["encoder_input_tokens"], dtype=torch.long)
        targets = torch.tensor(batch["decoder_target_tokens"], dtype=torch.long)
        logits = network(
            input_ids=inputs,
            attention_mask=(inputs > 0).long(),
            decoder_input_ids=torch.nn.functional.pad(targets, (1, -1)),
        ).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=0, reduction="sum"
        )
        loss.backward()
        arrays = {f"params:{path}": value for path, value in flatten(params).items()}
        for hf_name, parameter in network.named_parameters():
            path, transposed = t5x_path(hf_name)
            gradient = parameter.grad.numpy()
            arrays[f"gradient:{path}"] = gradient.T if transposed else gradient
        np.savez_compressed(
            FIXTURES / f"hf_{name}.npz",
            **arrays,
            **batch,
            # Every fifth position: enough to catch a wrong bucket, a third of the size.
            logits=logits.detach().numpy()[:, ::5],
            loss=loss.item(),
            config=np.array(repr(dataclasses.asdict(config))),
        )


if __name__ == "__main__":
    main()
