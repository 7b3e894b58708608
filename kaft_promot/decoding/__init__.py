"""Decoding: greedy, sampling, beam search, scoring; `Predictor` for text in, text out."""

from kaft_promot.decoding.beam import BeamDecoded, beam_decode
from kaft_promot.decoding.loop import Decoded, decode
from kaft_promot.decoding.predictor import Predictor
from kaft_promot.decoding.programs import beam_search, greedy, sample, score, trace_counts

__all__ = [
    "BeamDecoded",
    "Decoded",
    "Predictor",
    "beam_decode",
    "beam_search",
    "decode",
    "greedy",
    "sample",
    "score",
    "trace_counts",
]
