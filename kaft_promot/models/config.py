"""The sizes and switches of a T5-family network."""

from __future__ import annotations

import dataclasses

import gin

from kaft_promot.errors import UserError

REMAT_POLICIES = ("none", "full", "dots")
ACTIVATIONS = ("gelu", "relu", "linear", "silu")


@gin.configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """A T5 1.0, T5 1.1, mT5, Flan-T5 or ByT5 network; fields are named as in T5X's `T5Config`.

    T5 1.0 is `mlp_activations=('relu',), logits_via_embedding=True`; the others are
    `('gelu', 'linear')` with an output matrix of their own (Raffel et al., JMLR 2020; Shazeer,
    arXiv 2002.05202 for the gate).

    Attributes:
      vocab_size: rows of the embedding, including padding rows above the vocabulary's size.
      emb_dim: width of the residual stream.
      num_heads: attention heads.
      num_encoder_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder.
      head_dim: width of one head.
      mlp_dim: hidden width of the feed-forward block.
      mlp_activations: one activation, or two whose products gate each other.
      dropout_rate: probability of dropping a unit while training.
      logits_via_embedding: whether the output matrix is the embedding (then logits are divided
        by sqrt(emb_dim)).
      dtype: dtype of activations, 'float32' or 'bfloat16'; parameters are always float32.
      relative_attention_num_buckets: buckets of the relative-position bias.
      relative_attention_max_distance: distance from which all positions share the last bucket.
      scan_layers: stack the layers' parameters along a leading axis and run them with one
        `lax.scan` (short compilation on accelerators) instead of unrolling them.
      remat: what to recompute in the backward pass: 'none', 'full' (every layer's activations)
        or 'dots' (everything but the matrix products without batch axes).
      prompt_length: P, the rows of one soft prompt (0: the model has none).
      num_prompts: how many soft prompts the prompt table holds.

    Raises:
      UserError: if a field has a value that no network can have.
    """

    vocab_size: int
    emb_dim: int
    num_heads: int
    num_encoder_layers: int
    num_decoder_layers: int
    head_dim: int
    mlp_dim: int
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    dropout_rate: float = 0.0
    logits_via_embedding: bool = False
    dtype: str = "float32"
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    scan_layers: bool = False
    remat: str = "none"
    prompt_length: int = 0
    num_prompts: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        for name in ("vocab_size", "emb_dim", "num_heads", "head_dim", "mlp_dim"):
            if getattr(self, name) < 1:
                raise UserError(f"T5Config.{name} = {getattr(self, name)}: must be at least 1")
        for activation in self.mlp_activations:
            if activation not in ACTIVATIONS:
                raise UserError(
                    f"T5Config.mlp_activations: unknown activation {activation!r}; "
                    f"choose from {', '.join(ACTIVATIONS)}"
                )
        if self.remat not in REMAT_POLICIES:
            raise UserError(
                f"T5Config.remat = {self.remat!r}: choose from {', '.join(REMAT_POLICIES)}"
            )
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"T5Config.dtype = {self.dtype!r}: choose 'float32' or 'bfloat16'")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise UserError(f"T5Config.dropout_rate = {self.dropout_rate}: must be in [0, 1)")
        if (self.prompt_length > 0) != (self.num_prompts > 0):
            raise UserError(
                "T5Config.prompt_length and T5Config.num_prompts: set both or neither "
                f"(they are {self.prompt_length} and {self.num_prompts})"
            )

    @property
    def prompt_rows(self) -> int:
        """Rows of the prompt table; see `placeholder_ids`."""
        return self.prompt_length * self.num_prompts

    def placeholder_ids(self, prompt: int = 0) -> range:
        """The token ids that stand for the rows of soft prompt number `prompt`."""
        start = self.vocab_size + prompt * self.prompt_length
        return range(start, start + self.prompt_length)
