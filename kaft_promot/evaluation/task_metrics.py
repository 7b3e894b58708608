"""Metrics of SeqIO tasks (`metric_fns`): all targets and predictions -> figures by name.

As in T5's own metrics, figures are percent. `own_metrics` gives them their intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kaft_promot.errors import UserError
from kaft_promot.evaluation import metrics


def accuracy(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Percent of labels that are right after SQuAD's normalisation.

    >>> accuracy(["True", "False"], ["true.", "True"])
    {'accuracy': 50.0}
    """
    return {"accuracy": _percent([metrics.same(t, p) for t, p in _pairs(targets, predictions)])}


def strict_exact_match(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Percent of predictions that equal their target, apart from white space around it.

    >>> strict_exact_match(["A", "b"], [" A", "B"])
    {'exact_match': 50.0}
    """
    return {"exact_match": _percent([p.strip() == t for t, p in _pairs(targets, predictions)])}


@dataclass(frozen=True)
class SummedMetric:
    """A metric that depends on sums over examples alone, as BLEU does on counts of n-grams.

    It is a metric function like any other. That the sums are known makes its bootstrap cheap: a
    resample adds up rows instead of reading every text again.

    Attributes:
      name: what messages call it.
      statistics: (targets, predictions) -> float64 [n, statistics], what is summed.
      figures: the sums [statistics] -> figures by name.
    """

    name: str
    statistics: Callable[[Sequence[str], Sequence[str]], np.ndarray]
    figures: Callable[[np.ndarray], dict[str, float]]

    def __call__(self, targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
        return self.figures(self.statistics(targets, predictions).sum(axis=0))


_ORDERS = 4  # BLEU counts n-grams of 1 to 4 words


def _bleu_statistics(targets: Sequence[str], predictions: Sequence[str]) -> np.ndarray:
    """[n, 10]: matching n-grams, n-grams of the output, length of output and of target."""
    metric = _sacrebleu()()
    scores = (metric.corpus_score([p], [[t]]) for t, p in _pairs(targets, predictions))
    rows = [[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores]
    return np.array(rows, np.float64).reshape(-1, 2 * _ORDERS + 2)


def _bleu_figures(sums: np.ndarray) -> dict[str, float]:
    counts = [round(x) for x in sums]
    right, made, lengths = counts[:_ORDERS], counts[_ORDERS : 2 * _ORDERS], counts[2 * _ORDERS :]
    score = _sacrebleu().compute_bleu(right, made, *lengths, smooth_method="exp")
    return {"bleu": float(score.score)}


def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics import BLEU
    except ModuleNotFoundError as error:
        raise UserError("BLEU needs the package sacrebleu: pip install sacrebleu") from error
    return BLEU


# BLEU of all predictions together (Papineni et al., ACL 2002), as SacreBLEU computes it (Post, WMT
# 2018): 13a tokenization, exponential smoothing; from 0 to 100.
bleu = SummedMetric("bleu", _bleu_statistics, _bleu_figures)


def _pairs(targets: Sequence[str], predictions: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(targets, predictions, strict=True))


def _percent(hits: Sequence[bool]) -> float:
    return 100.0 * sum(hits) / max(1, len(hits))
