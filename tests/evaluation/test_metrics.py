import collections
import doctest
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaft_promot.evaluation import formatting, metrics


def squad_tokens(text):
    """As SQuAD 2.0's official evaluation script describes it, written independently."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_f1(gold, output):
    gold, output = squad_tokens(gold), squad_tokens(output)
    if not gold or not output:
        return float(gold == output)
    same = sum((collections.Counter(gold) & collections.Counter(output)).values())
    if not same:
        return 0.0
    precision, recall = same / len(output), same / len(gold)
    return 2 * precision * recall / (precision + recall)


_TEXT = st.lists(
    st.sampled_from(["the", "A", "Paris", "paris.", "an", "new", "York", "U.S.", "1,000", "!", ""])
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(_TEXT, _TEXT)
def test_scores_are_squads(gold, output):
    assert metrics.f1(output, [gold]) == pytest.approx(squad_f1(gold, output))
    if squad_tokens(gold) or squad_tokens(output):
        assert metrics.exact_match(output, [gold]) == (squad_tokens(gold) == squad_tokens(output))


def test_exact_match_by_hand():
    assert metrics.exact_match("the U.S. Army!", ["US army"]) == 1
    assert metrics.exact_match("Paris, France", ["Paris"]) == 0
    assert metrics.exact_match("Paris", ["Lyon", "paris"]) == 1  # any alias
    assert metrics.exact_match("Paris", []) == 0


def test_answer_of_which_normalisation_leaves_nothing():
    assert metrics.exact_match("", ["The"]) == 0
    assert metrics.exact_match("the", ["The"]) == 1
    assert metrics.exact_match("", [""]) == 1


def test_f1_by_hand():
    # 2 of 3 output words, 2 of 2 gold words: 2 * (2/3) * 1 / (5/3)
    assert metrics.f1("in New York", ["New York"]) == pytest.approx(0.8)
    assert metrics.f1("York York", ["York"]) == pytest.approx(2 / 3)  # each word counts once
    assert metrics.f1("Rome", ["New York", "Rome Italy"]) == pytest.approx(2 / 3)  # best alias
    assert metrics.f1("Rome", []) == 0


def test_recall_by_hand():
    assert metrics.recall("It was New York", ["New York City"]) == pytest.approx(2 / 3)
    assert metrics.recall("Paris is the capital of France", ["Paris"]) == 1
    assert metrics.recall("Paris", ["Paris Paris"]) == 0.5
    assert metrics.recall("", ["Paris"]) == 0
    assert metrics.recall("another", ["not"]) == 0


def test_containment_is_of_whole_tokens_in_a_row():
    assert metrics.contains("another thing", ["not"]) == 0
    assert metrics.contains("This is not it.", ["not"]) == 1
    assert metrics.contains("New old York", ["New York"]) == 0
    assert metrics.contains("anything", [""]) == 0


def test_extraction():
    context = "Ann Lee was born in Lyon, France, in 1901."
    question = "Where was Ann Lee born?"
    assert metrics.extracts("Lyon", context, question) == 1
    assert metrics.extracts("lyon france", context, question) == 1
    assert metrics.extracts("Ann Lee", context, question) == 0  # the question's own words
    assert metrics.extracts("Ann Lee was born in Lyon", context, question) == 1
    assert metrics.extracts("Lyon 1901", context, question) == 0  # no span
    assert metrics.extracts("Paris", context, question) == 0
    assert metrics.extracts("", context, question) == 0


def test_examples_in_docstrings():
    for module in (metrics, formatting):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed
