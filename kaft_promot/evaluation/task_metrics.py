"""Metrics of SeqIO tasks (`metric_fns`): all targets and predictions -> figures by name.

As in T5's own metrics, figures are percent. They have no intervals: those come from sample rows.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def bleu(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """BLEU of all predictions together (Papineni et al., ACL 2002), as SacreBLEU computes it (Post,
    WMT 2018): 13a tokenization, exponential smoothing; from 0 to 100.

    Raises:
      UserError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ModuleNotFoundError as error:
        raise UserError("BLEU needs the package sacrebleu: pip install sacrebleu") from error
    pairs = _pairs(targets, predictions)
    score = sacrebleu.corpus_bleu([p for _, p in pairs], [[t for t, _ in pairs]])
    return {"bleu": float(score.score)}


def _pairs(targets: Sequence[str], predictions: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(targets, predictions, strict=True))


def _percent(hits: Sequence[bool]) -> float:
    return 100.0 * sum(hits) / max(1, len(hits))
