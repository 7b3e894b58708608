"""Scores of one output against one or more accepted answers. All take text and return [0, 1].

Exact match and F1 are those of SQuAD's official scripts (Rajpurkar et al., 2016 and 2018): answers
are normalised, and the best score over the accepted answers counts. Containment and recall work on
whole tokens, never on raw substrings: "not" is not in "another".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from kaft_promot.knowledge.spans import holds_alias
from kaft_promot.knowledge.text import contains_tokens, normalize_answer


def tokens(text: str) -> list[str]:
    """Normalised text as a list of words."""
    return normalize_answer(text).split()


def same(a: str, b: str) -> bool:
    """Whether two answers are equal after normalisation.

    An answer of which normalisation leaves nothing ("The", "!") is compared as it is written, so
    that an empty output does not match it.
    """
    normal_a, normal_b = normalize_answer(a), normalize_answer(b)
    if normal_a or normal_b:
        return normal_a == normal_b
    return a.strip().casefold() == b.strip().casefold()


def exact_match(output: str, answers: Iterable[str]) -> float:
    """1.0 if the output equals any of the answers (alias match), else 0.0."""
    return float(any(same(output, answer) for answer in answers))


def f1(output: str, answers: Iterable[str]) -> float:
    """Best token F1 over the answers; 0.0 without answers.

    >>> round(f1("the city of Paris", ["Paris", "Paris France"]), 2)
    0.5
    """
    return max((_f1(tokens(output), tokens(answer)) for answer in answers), default=0.0)


def recall(output: str, answers: Iterable[str]) -> float:
    """Best token-wise recall: the share of an answer's tokens (with their number) in the output.

    >>> recall("it was New York", ["New York City"])
    0.6666666666666666
    """
    output_count = Counter(tokens(output))
    best = 0.0
    for answer in answers:
        answer_count = Counter(tokens(answer))
        if answer_count:
            best = max(best, (answer_count & output_count).total() / answer_count.total())
    return best


def contains(text: str, answers: Iterable[str]) -> float:
    """1.0 if the tokens of any answer stand in the text one after the other, else 0.0.

    >>> contains("another one", ["not"]), contains("He is in New York.", ["new york"])
    (0.0, 1.0)
    """
    return float(any(contains_tokens(text, answer) for answer in answers))


def extracts(output: str, context: str, question: str) -> float:
    """1.0 if the output is a span of the context that says more than the question's own words.

    >>> extracts("Paris", "Paris is large.", "Where does she live?")
    1.0
    >>> extracts("Paris", "Paris is large.", "Does she live in Paris?")
    0.0
    >>> extracts("1820", "He ruled 1820\N{EN DASH}1830.", "When?")
    1.0
    >>> extracts("東京", "彼は東京に住む。", "?")  # without spaces between words
    1.0
    """
    if set(tokens(output)) <= set(tokens(question)):
        return 0.0
    return float(holds_alias(context, output))


def _f1(output: Sequence[str], answer: Sequence[str]) -> float:
    if not output or not answer:
        return float(list(output) == list(answer))  # as SQuAD 2.0: both empty is right
    common = (Counter(output) & Counter(answer)).total()
    return 2 * common / (len(output) + len(answer))
