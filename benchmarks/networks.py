"""The networks that the benchmarks time: ours, and Hugging Face's of the same sizes."""

from __future__ import annotations

from typing import Any

# T5 1.1; `layers` are the encoder's and the decoder's.
WIDE: dict[str, Any] = dict(vocab=8192, embed=256, heads=8, head=32, layers=(4, 4), mlp=1024)
MINI: dict[str, Any] = dict(vocab=4096, embed=128, heads=4, head=32, layers=(4, 2), mlp=384)


def ours(sizes: dict[str, Any]) -> Any:
    """The `T5Config` of the sizes."""
    from kaft_promot.models import T5Config

    return T5Config(
        vocab_size=sizes["vocab"],
        emb_dim=sizes["embed"],
        num_heads=sizes["heads"],
        head_dim=sizes["head"],
        num_encoder_layers=sizes["layers"][0],
        num_decoder_layers=sizes["layers"][1],
        mlp_dim=sizes["mlp"],
    )


def multiplications(sizes: dict[str, Any], inputs: int, targets: int) -> tuple[int, int]:
    """Of a row's forward pass: those with parameters, and those between tokens in attention."""
    d, ff, inner = sizes["embed"], sizes["mlp"], sizes["heads"] * sizes["head"]
    encoder, decoder = sizes["layers"]
    layer = 3 * d * ff + 4 * d * inner
    cross = (targets + inputs) * 2 * d * inner
    kernels = encoder * inputs * layer + decoder * (targets * layer + cross)
    between = encoder * inputs * inputs + decoder * targets * (targets + inputs)
    return kernels + targets * d * sizes["vocab"], between * 2 * inner


def hugging_face(sizes: dict[str, Any], **more: Any) -> Any:
    """PyTorch's T5 of the sizes, random parameters of seed 0; `more` goes to its configuration."""
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=sizes["vocab"],
            d_model=sizes["embed"],
            d_kv=sizes["head"],
            d_ff=sizes["mlp"],
            num_heads=sizes["heads"],
            num_layers=sizes["layers"][0],
            num_decoder_layers=sizes["layers"][1],
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=0,
            **more,
        )
    )
