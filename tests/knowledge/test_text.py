"""Folding keeps its way back; normalisation is SQuAD's."""

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaft_promot.knowledge.text import (
    contains_tokens,
    equal_or_nested,
    fold,
    normal_forms,
    normalize_answer,
)

TEXT = st.text(
    st.sampled_from("abIiİıßſ ẞéE\u0301\u0307 \u00a0\t\n'’ﬁ½Å\u212b한\u1112-–.,09x"), max_size=30
)


def official(s: str) -> str:
    """SQuAD's official normalisation, for ASCII."""
    s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_ascii_normalisation_is_the_official_one(text: str) -> None:
    assert normalize_answer(text) == official(text)


@given(TEXT | st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize_answer(text)
    assert normalize_answer(once) == once


@given(st.text(max_size=30))
def test_encodings_of_one_text_are_equal(text: str) -> None:
    composed, split = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert normalize_answer(composed) == normalize_answer(split)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles", "beatles"),
        ("U.S.", "us"),
        ("İstanbul", "istanbul"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("“Beyoncé”", "beyoncé"),
        ("Beyonce\u0301", "beyoncé"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("¿Qué?", "qué"),
        ("a\u0301n", "án"),
        ("１９９８年", "1998年"),
        ("The!", ""),
        ("🚁", "🚁"),
    ],
)
def test_normal_forms(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@given(TEXT)
def test_every_folded_stretch_maps_to_the_original(text: str) -> None:
    folded = fold(text)
    assert folded.starts is None or len(folded.starts) == len(folded.text)
    for start in range(len(folded.text)):
        for end in range(start + 1, len(folded.text) + 1):
            span = folded.original_span(start, end)
            if span is not None:
                assert 0 <= span[0] < span[1] <= len(text)
                assert fold(text[span[0] : span[1]]).text == folded.text[start:end]


@given(TEXT, TEXT)
def test_what_stands_before_shifts_nothing(before: str, after: str) -> None:
    text = before + " |Zürich| " + after
    at = fold(text).text.index(fold("|Zürich|").text)
    span = fold(text).original_span(at, at + len(fold("|Zürich|").text))
    assert span is not None
    assert text[span[0] : span[1]] == "|Zürich|"


def test_a_span_never_cuts_a_character() -> None:
    folded = fold("Straße")
    assert folded.text == "strasse"
    assert folded.original_span(0, 5) is None  # would cut the ß
    assert folded.original_span(0, 6) == (0, 5)
    assert folded.original_span(2, 2) is None


def test_containment_is_token_wise() -> None:
    assert not contains_tokens("another story", "not")
    assert contains_tokens("Is it not so?", "not")
    assert contains_tokens("born in the U.S. Army", "US army")
    assert not contains_tokens("anything", "The")


def test_nesting_is_token_wise_and_ignores_nothing() -> None:
    assert equal_or_nested("united states", "united states of america")
    assert not equal_or_nested("states", "interstates")
    assert not equal_or_nested("", "rome")


def test_normal_forms_are_distinct_and_not_empty() -> None:
    assert normal_forms(["The U.S.", "us", "the", "USA"]) == ("us", "usa")
