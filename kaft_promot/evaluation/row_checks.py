"""What a sample row must hold before figures are computed from it.

Rows that an evaluation wrote always pass. Rows that a person or another program has changed may
not, and a wrong type would not always fail by itself: the text "Rome" where a list of answers is
meant would be compared letter by letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kaft_promot.evaluation.suites import MAIN_SCORE
from kaft_promot.knowledge.targets import KINDS

# Suites whose rows `retention` measures.
_RETENTION = ("target", "in_context")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_or_null(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(score, (int, float)) for score in value.values()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _is_target_and_prediction(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= {"target", "prediction"}


_Check = tuple[Callable[[Any], bool], str]
_TEXT: _Check = (_is_text, "a text")
_TEXT_OR_NULL: _Check = (_is_text_or_null, "a text or null")
_TEXTS: _Check = (_is_texts, "a list of texts")
_SCORES: _Check = (_is_scores, "an object of numbers")

_GROUNDING: Mapping[str, _Check] = {
    "question_id": _TEXT,
    "question": _TEXT,
    "context": _TEXT_OR_NULL,
    "target": _TEXT,
    "prediction": _TEXT,
    "answer": _TEXT,
    "source": _TEXT_OR_NULL,
    "contextual_answers": _TEXTS,
    "gold_answers": _TEXTS,
}
# What a task's own metrics take (`own_metrics`); the second, where a row has it.
_OF_SEQIO: Mapping[str, _Check] = {"prediction": _TEXT, "target": _TEXT, "split": _TEXT}
_OF_METRICS: Mapping[str, _Check] = {
    "postprocessed": (_is_target_and_prediction, "an object with target and prediction"),
    "log_likelihood": (_is_number, "a number"),
}
_OF_ANY_SUITE: Mapping[str, _Check] = {"question_id": _TEXT, "task": _TEXT, "scores": _SCORES}
_OF_RETENTION: Mapping[str, _Check] = {
    **_OF_ANY_SUITE,
    "prediction": _TEXT,
    "answer": _TEXT,
    "target": _TEXT,
}


def problem(row: Mapping[str, Any]) -> str | None:
    """What is wrong with a sample row, in words; None if nothing is.

    Args:
      row: a row with an arm and an example_id. Only the fields are looked at that are read for the
        suite that it names; a row without one (such as a prediction of `infer`) is always right.
    """
    suite, kind = row.get("suite"), row.get("context_kind")
    if suite == "grounding" and kind not in KINDS:
        return f"has the context_kind {kind!r}, which is none of {', '.join(KINDS)}"
    if kind in KINDS:
        return _first(row, _GROUNDING) or _optional(row, "parametric_answer")
    if suite in _RETENTION:
        return _first(row, _OF_RETENTION) or _main_score(row)
    if suite is None:
        return None
    of_metrics = {name: check for name, check in _OF_METRICS.items() if name in row}
    of_seqio = _OF_SEQIO if "seqio_task" in row else {}
    return _first(row, {**_OF_ANY_SUITE, **of_seqio, **of_metrics})


def _main_score(row: Mapping[str, Any]) -> str | None:
    """What is wrong with the score that arms are compared by."""
    name = row.get("main_score", MAIN_SCORE)
    if name not in row["scores"]:
        return f"has no scores.{name}"
    value = row["scores"][name]
    return None if 0 <= value <= 1 else f"has scores.{name} = {value}, not a number from 0 to 1"


def _first(row: Mapping[str, Any], checks: Mapping[str, _Check]) -> str | None:
    absent = [name for name in checks if name not in row]
    if absent:
        return f"has no {', '.join(absent)}"
    for name, (holds, wanted) in checks.items():
        if not holds(row[name]):
            return f"needs {wanted} as its {name}"
    return None


def _optional(row: Mapping[str, Any], name: str) -> str | None:
    return None if _is_text_or_null(row.get(name)) else f"needs a text or null as its {name}"
