"""Writes what transformers saves and computes, for `test_transformers.py`.

    pip install torch transformers==4.57.1      # then again with transformers==5.24.0
    python tests/interop/make_transformers_fixtures.py

One .npz for each major version of transformers. For each network it holds the `config.json` and
the tensors that `save_pretrained` wrote, and the logits of the network that was saved. A network
is either read from a folder as Google publishes it, and saved again, or made from a configuration.
"""

from __future__ import annotations

import json
import pathlib
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
SIZES = dict(vocab_size=20, d_model=8, d_kv=3, num_heads=2, d_ff=12, num_layers=1)
GATED = {"feed_forward_proj": "gated-gelu"}
# The fields by which the published configurations of t5-small, of google/t5-v1_1-small and
# google/flan-t5-small, and of google/mt5-small differ.
PUBLISHED = {
    "t5_1_0": {"model_type": "t5"},
    "t5_1_1": {"model_type": "t5", **GATED, "tie_word_embeddings": False},
    "mt5": {"model_type": "mt5", **GATED, "tie_word_embeddings": False},
    # No one's, but transformers 5 reads it so: two matrices, and logits divided by sqrt(d_model).
    "t5_1_0_two_matrices": {"model_type": "t5"},
}
MADE = {
    "t5_1_0_made": transformers.T5Config(**SIZES),
    "t5_1_1_made": transformers.T5Config(**SIZES, **GATED, tie_word_embeddings=False),
    "mt5_made": transformers.MT5Config(**SIZES),
    "mt5_tied_made": transformers.MT5Config(**SIZES, tie_word_embeddings=True),
}
INPUTS = np.array([[5, 7, 2, 9, 1], [3, 19, 4, 1, 0]])
TARGETS = np.array([[6, 4, 8, 1], [11, 2, 18, 1]])


def randomize(network: torch.nn.Module) -> None:
    """Parameters far from their initial values, which float16 can hold."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in network.parameters():  # tied ones come once
            values = rng.normal(0, 0.5, tuple(parameter.shape)).astype(np.float16)
            parameter.copy_(torch.tensor(values, dtype=torch.float32))


def published(name: str, folder: str) -> torch.nn.Module:
    """The network read from a folder with a configuration as it is published."""
    fields = {**SIZES, **PUBLISHED[name], "layer_norm_epsilon": 1e-6, "pad_token_id": 0}
    kind = "MT5" if fields["model_type"] == "mt5" else "T5"
    network_class = getattr(transformers, f"{kind}ForConditionalGeneration")
    network = network_class(getattr(transformers, f"{kind}Config")(**fields))
    randomize(network)
    tensors = {
        path: value.numpy()
        for path, value in network.state_dict().items()
        if "embed_tokens" not in path and path != "lm_head.weight"
    }
    if "tie_word_embeddings" in fields or name == "t5_1_0_two_matrices":
        head = np.random.default_rng(1).normal(0, 0.5, tensors["shared.weight"].shape)
        tensors["lm_head.weight"] = head.astype(np.float16).astype(np.float32)
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    pathlib.Path(folder, "config.json").write_text(json.dumps(fields))
    return network_class.from_pretrained(folder)


def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    arrays: dict[str, np.ndarray] = {"inputs": INPUTS, "targets": TARGETS}
    for name in (*PUBLISHED, *MADE):
        with tempfile.TemporaryDirectory() as folder:
            if name in PUBLISHED:
                network = published(name, folder)
            else:
                config = MADE[name]
                kind = "MT5" if config.model_type == "mt5" else "T5"
                network = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
                randomize(network)
            network.eval().save_pretrained(f"{folder}/saved")
            config_text = pathlib.Path(folder, "saved", "config.json").read_text()
            tensors = load_file(f"{folder}/saved/model.safetensors")
        with torch.no_grad():
            logits = network(
                input_ids=torch.tensor(INPUTS),
                attention_mask=torch.tensor(INPUTS > 0).long(),
                decoder_input_ids=torch.nn.functional.pad(torch.tensor(TARGETS), (1, -1)),
            ).logits
        arrays[f"{name}:config"] = np.array(config_text)
        arrays[f"{name}:logits"] = logits.numpy()
        for path, value in tensors.items():
            arrays[f"{name}:tensor:{path}"] = value.astype(np.float16)
        print(name, sorted(path for path in tensors if "layer" not in path))
    major = transformers.__version__.partition(".")[0]
    np.savez_compressed(FIXTURES / f"transformers_{major}.npz", **arrays)


if __name__ == "__main__":
    main()
