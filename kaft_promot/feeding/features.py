"""Token examples to batches with T5X's feature names. numpy only.

A batch is a dict of int32 arrays, L and T being the lengths of inputs and targets:
`encoder_input_tokens` [B, L], `decoder_target_tokens`, `decoder_input_tokens` and
`decoder_loss_weights` [B, T]; packed batches also have `encoder_segment_ids`,
`encoder_positions` [B, L], `decoder_segment_ids`, `decoder_positions` [B, T], where segment 0 is
padding. They equal those of `seqio.EncDecFeatureConverter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Example = Mapping[str, Sequence[int] | np.ndarray]
Batch = dict[str, np.ndarray]
FEATURES = ("inputs", "targets")
PADDING: Example = {"inputs": (), "targets": ()}  # as an example: a row that weighs nothing


def shift_right(targets_BxT: np.ndarray, segment_ids_BxT: np.ndarray | None = None) -> np.ndarray:
    """Decoder inputs: targets moved one to the right behind a start id 0.

    With segment ids every packed example starts with 0, so that none sees its neighbour's end.
    """
    shifted_BxT = np.zeros_like(targets_BxT)
    shifted_BxT[:, 1:] = targets_BxT[:, :-1]
    if segment_ids_BxT is not None:
        continues_BxT = segment_ids_BxT[:, 1:] == segment_ids_BxT[:, :-1]
        shifted_BxT[:, 1:] *= continues_BxT
    return shifted_BxT


def pad_rows(rows: Sequence[Sequence[int] | np.ndarray], length: int) -> np.ndarray:
    """Rows cut and zero-padded to one int32 array [len(rows), length]."""
    padded = np.zeros((len(rows), length), np.int32)
    for row, ids in zip(padded, rows, strict=True):
        ids = ids[:length]
        row[: len(ids)] = ids
    return padded


def pad_examples(examples: Sequence[Example], feature_lengths: Mapping[str, int]) -> Batch:
    """One example a row, padded."""
    inputs_BxL = pad_rows([e["inputs"] for e in examples], feature_lengths["inputs"])
    targets_BxT = pad_rows([e["targets"] for e in examples], feature_lengths["targets"])
    return {
        "encoder_input_tokens": inputs_BxL,
        "decoder_target_tokens": targets_BxT,
        "decoder_input_tokens": shift_right(targets_BxT),
        "decoder_loss_weights": (targets_BxT > 0).astype(np.int32),
    }


def convert_packed(packed: Mapping[str, np.ndarray]) -> Batch:
    """Grain's packed features [B, ...] under T5X's names."""
    targets_BxT = packed["targets"]
    return {
        "encoder_input_tokens": packed["inputs"],
        "decoder_target_tokens": targets_BxT,
        "decoder_input_tokens": shift_right(targets_BxT, packed["targets_segment_ids"]),
        "decoder_loss_weights": (targets_BxT > 0).astype(np.int32),
        "encoder_segment_ids": packed["inputs_segment_ids"],
        "encoder_positions": packed["inputs_positions"],
        "decoder_segment_ids": packed["targets_segment_ids"],
        "decoder_positions": packed["targets_positions"],
    }


def batch_examples(
    examples: Sequence[Example],
    feature_lengths: Mapping[str, int],
    batch_size: int,
    *,
    fill_last: bool = False,
) -> list[Batch]:
    """Padded batches in order; longer examples are cut at the feature's length.

    Args:
        examples: dicts with token ids under `inputs` and `targets`.
        feature_lengths: length of each feature.
        batch_size: rows of a batch; the last batch may have fewer.
        fill_last: fill the last batch with rows of padding, for one compiled shape.
    """
    batches = []
    for start in range(0, len(examples), batch_size):
        chosen = list(examples[start : start + batch_size])
        if fill_last:
            chosen += [PADDING] * (batch_size - len(chosen))
        batches.append(pad_examples(chosen, feature_lengths))
    return batches


def unpack(batch: Batch) -> list[dict[str, np.ndarray]]:
    """The examples of a packed batch, row by row in packing order: the inverse of packing."""
    examples = []
    for row in range(len(batch["encoder_input_tokens"])):
        encoder_L = batch["encoder_segment_ids"][row]
        decoder_T = batch["decoder_segment_ids"][row]
        for segment in range(1, int(max(encoder_L.max(), decoder_T.max())) + 1):
            examples.append(
                {
                    "inputs": batch["encoder_input_tokens"][row][encoder_L == segment],
                    "targets": batch["decoder_target_tokens"][row][decoder_T == segment],
                }
            )
    return examples
