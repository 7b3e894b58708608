"""Soft prompts as parameters: attaching them to a network, removing them, and how rows start.

A network's prompts are one table `[K * P, D]` of K prompts of P rows each, at the path that
google-research/prompt-tuning uses. An example uses prompt k by starting with the placeholder ids
`config.placeholder_ids(k)`.

The three starts are those of prompt tuning (Lester et al., EMNLP 2021, arXiv 2104.08691, section
3.2): random uniform, sampled vocabulary embeddings, and the embeddings of given words, which is the
best one for class labels. Shapes: K prompts, P rows, D embed, V vocab.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.models.config import T5Config
from kaft_promot.models.params import Params, flatten, unflatten

PROMPT = "encoder/prompt/prompt/prompt"
FIRST_PIECE = 3  # below are padding, end and unknown, which no prompt should start from


def attach_prompts(
    config: T5Config, params: Mapping[str, Any], prompts_KxPxD: np.ndarray
) -> tuple[T5Config, Params]:
    """The network with these prompts in place of any that it had.

    Args:
      config: the network.
      params: its parameters, layers stacked or not.
      prompts_KxPxD: the rows of K prompts.

    Raises:
      UserError: if the prompts have another width than the network.
    """
    count, length, width = np.shape(prompts_KxPxD)
    if width != config.emb_dim:
        raise UserError(
            f"the prompt is {width} wide, but the model's emb_dim is {config.emb_dim}: a prompt "
            "works on models of its own width only"
        )
    table = np.asarray(prompts_KxPxD, np.float32).reshape(count * length, width)
    config = dataclasses.replace(config, prompt_length=length, num_prompts=count)
    return config, unflatten({**flatten(params), PROMPT: table})


def remove_prompts(config: T5Config, params: Mapping[str, Any]) -> tuple[T5Config, Params]:
    """The network without soft prompts; one that has none passes through."""
    flat = {path: value for path, value in flatten(params).items() if path != PROMPT}
    return dataclasses.replace(config, prompt_length=0, num_prompts=0), unflatten(flat)


def prompts_of(config: T5Config, params: Mapping[str, Any]) -> np.ndarray | None:
    """The network's prompts, float32 `[K, P, D]`; None if it has none."""
    if not config.prompt_rows:
        return None
    table = np.asarray(flatten(params)[PROMPT], np.float32)
    return table.reshape(config.num_prompts, config.prompt_length, config.emb_dim)


def uniform_rows(length: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Rows `[P, D]` uniform in [-0.5, 0.5]."""
    return rng.uniform(-0.5, 0.5, (length, width)).astype(np.float32)


def sampled_rows(
    length: int, embedding_VxD: np.ndarray, pieces: int, rng: np.random.Generator
) -> np.ndarray:
    """Rows `[P, D]` that are embeddings of pieces drawn from the vocabulary.

    Args:
      length: P.
      embedding_VxD: the token embedding.
      pieces: draw from this many first pieces after the special ids; SentencePiece orders them by
        frequency, so they are the most frequent. No piece is drawn twice while others are left.
      rng: the randomness.
    """
    known = min(pieces, len(embedding_VxD) - FIRST_PIECE)
    rounds = [rng.permutation(known) for _ in range(-(-length // known))]
    return np.asarray(embedding_VxD, np.float32)[FIRST_PIECE + np.concatenate(rounds)[:length]]


def word_rows(
    length: int, embedding_VxD: np.ndarray, words: Sequence[Sequence[int]], rest_PxD: np.ndarray
) -> np.ndarray:
    """Rows `[P, D]` that start with given words, then go on with `rest`.

    Args:
      length: P; words beyond it are left out.
      embedding_VxD: the token embedding.
      words: token ids of each word; a word of several pieces becomes the mean of their embeddings.
      rest_PxD: rows for the places after the last word.
    """
    embedding = np.asarray(embedding_VxD, np.float32)
    rows = np.array(rest_PxD, np.float32)
    for row, ids in zip(rows, words[:length], strict=False):
        row[:] = embedding[list(ids)].mean(axis=0)
    return rows
