"""Mentions: word boundaries, nested aliases, Unicode, substitution."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaft_promot.knowledge.spans import (
    core_aliases,
    doubtful_spans,
    find_spans,
    first_held,
    holds_alias,
    substitute,
)
from kaft_promot.knowledge.text import fold

WORDS = st.sampled_from(
    ["Rome", "new", "York", "New York", "İzmir", "IZMIR", "Straße", "strasse", "e\u0301te", "été"]
    + ["Obama", "Obamacare", "of", "São", "Sa\u0303o", "Paulo", "ﬁn", "fin", "İ", "ß", "x", "1,5"]
)
CONTEXT = st.lists(WORDS | st.sampled_from([" ", "  ", ".", "-", "\n", "\u00a0"]), max_size=14).map(
    lambda parts: " ".join(parts)
)


def surfaces(context: str, aliases: list[str]) -> list[str]:
    return [context[start:end] for start, end in find_spans(context, aliases)]


@pytest.mark.parametrize(
    ("context", "aliases", "found"),
    [
        ("Obamacare is not Obama's own; Obama said", ["Obama"], ["Obama", "Obama"]),
        ("İİİ in Paris and İstanbul", ["paris", "Istanbul"], ["Paris", "İstanbul"]),
        ("He left New York City for York", ["York", "New York", "New York City"],
         ["New York City", "York"]),
        ("Obama cared", ["Obama care", "Obama"], ["Obama"]),
        ("Straße, STRASSE, Strasse", ["straße"], ["Straße", "STRASSE", "Strasse"]),
        ("Strassen and Straße", ["stras"], []),
        ("cafe\u0301 Café cafe", ["café"], ["cafe\u0301", "Café"]),
        ("cafe cafe\u0301", ["cafe"], ["cafe"]),
        ("New\n  York", ["new york"], ["New\n  York"]),
        ("give us the US army", ["US"], ["US"]),
        ("Don't ask Don", ["Don"], ["Don"]),
        ("O'Brien met Brien's son", ["Brien"], ["Brien"]),
        ("1,500 people, 1.5 km, 500 men, 5.", ["500", "5", "1"], ["500", "5"]),
        ("in 10:30 at 10", ["10"], ["10"]),
        ("snake_case case", ["case"], ["case"]),
        ("Anglo-Saxon", ["Saxon"], ["Saxon"]),
        ("the “Iron Lady”", ["Iron Lady", ""], ["Iron Lady"]),
        ("rock ’n’ roll", ["Rock 'n' Roll"], ["rock ’n’ roll"]),
        ("東京都に住む", ["東京"], ["東京"]),
        ("nothing here", ["Paris"], []),
        ("", ["Paris"], []),
    ],
)  # fmt: skip
def test_mentions(context: str, aliases: list[str], found: list[str]) -> None:
    assert surfaces(context, aliases) == found


@pytest.mark.parametrize(
    ("context", "alias", "replaced"),
    [
        ("He moved from the U.S.S.R. to the U.S. then.", "U.S.",
         "He moved from the U.S.S.R. to the * then."),
        ("the U.S.A. in 1990", "U.S.", "the U.S.A. in 1990"),
        ("the U.S.A in 1990", "U.S", "the U.S.A in 1990"),
        ("J.R.R. Tolkien, J.R. Ewing", "J.R.", "J.R.R. Tolkien, * Ewing"),
        ("J.R.R. Tolkien", "R. Tolkien", "J.R.R. Tolkien"),
        ("a Ph.D. on vitamin D.", "D", "a Ph.D. on vitamin *."),
        ("Node.js is no Node.", "Node", "Node.js is no *."),
        ("ASP.NET and ASP", "ASP", "ASP.NET and *"),
        ("C++, C#, US$5 and C", "C", "C++, C#, US$5 and *"),
        ("C++ is C++", "C+", "C++ is C++"),
        ("US$5 in the US", "US", "US$5 in the *"),
        ("AT&T stands AT", "AT", "AT&T stands *"),
        ("write to Ada@Home.org, Ada", "Ada", "write to Ada@Home.org, *"),
        ("see www.x.org/Paris/a and https://x.org/Paris. Paris", "Paris",
         "see www.x.org/Paris/a and https://x.org/Paris. *"),
        ("see http://x.org/a.", "http://x.org/a", "see *."),
        # a full stop without a space, a compound, a list
        ("He left London.He never saw London.I did.", "London", "He left *.He never saw *.I did."),
        ("by J.R.R.Tolkien", "Tolkien", "by J.R.R.*"),
        ("U.S.-based, the U.S.The end", "U.S.", "*-based, the *The end"),
        ("London/Paris, 50+ km", "London", "*/Paris, 50+ km"),
        ("50+ km", "50", "*+ km"),
        ("owned by Amazon.com.", "Amazon", "owned by *.com."),
        ("at Amazon.com.br", "Amazon", "at Amazon.com.br"),
        ("e.\u0301x", "e", "*.\u0301x"),
    ],
)  # fmt: skip
def test_a_name_is_not_cut_inside(context: str, alias: str, replaced: str) -> None:
    assert substitute(context, find_spans(context, [alias]), "*")[0] == replaced


@pytest.mark.parametrize(
    ("context", "alias", "found"),
    [
        ("She may come in May.", "May", ["May"]),
        ("Mrs. May may come.", "May", ["May"]),
        ("vitamin A is a thing", "A", ["A"]),
        # at the beginning of a sentence a capital says nothing
        ("Football is played. They play football.", "Football", ["Football", "football"]),
        ("They play football.", "Football", ["football"]),
        ("the Football Association for football", "football", ["Football", "football"]),
    ],
)
def test_a_lower_case_word_beside_a_name(context: str, alias: str, found: list[str]) -> None:
    assert surfaces(context, [alias]) == found


@pytest.mark.parametrize(
    ("context", "aliases", "doubtful"),
    [
        ("Will sang it. It will be sung, and people will.", ["Will"], ["will", "will"]),
        ("William sang it. It will be sung.", ["Will", "William"], ["will"]),
        ("Football is played. They play football.", ["Football"], ["football"]),
        ("They will go.", ["Will"], []),  # a text in lower case
        ("Will met Will. It will do.", ["Will"], []),  # here the capital tells
        ("In 1041 it fell. It stood in 1041.", ["In 1041"], []),
        ("Second century art, of the second century.", ["Second century"], []),
        ("Football is played. They play football.", ["football"], []),
    ],
)  # fmt: skip
def test_a_word_where_only_a_beginning_has_a_capital(
    context: str, aliases: list[str], doubtful: list[str]
) -> None:
    assert [context[start:end] for start, end in doubtful_spans(context, aliases)] == doubtful


@given(CONTEXT, st.lists(WORDS, min_size=1, max_size=5), st.randoms())
def test_spans_are_whole_mentions_in_any_alias_order(
    context: str, aliases: list[str], order: random.Random
) -> None:
    spans = find_spans(context, aliases)
    shuffled = list(aliases)
    order.shuffle(shuffled)
    assert find_spans(context, shuffled) == spans
    folded = {fold(alias).text for alias in aliases}
    end = 0
    for start, stop in spans:
        assert start >= end
        end = stop
        assert fold(context[start:stop]).text in folded
        assert holds_alias(context, context[start:stop])


@given(CONTEXT, st.lists(WORDS, min_size=1, max_size=4))
def test_substituted_spans_slice_to_the_new_answer(context: str, aliases: list[str]) -> None:
    spans = find_spans(context, aliases)
    new = "Nova Würzburg"
    text, new_spans = substitute(context, spans, new)
    assert len(new_spans) == len(spans)
    assert all(text[start:end] == new for start, end in new_spans)
    # putting the old surfaces back gives the old context
    back, done = "", 0
    for (start, end), (old_start, old_end) in zip(new_spans, spans, strict=True):
        back += text[done:start] + context[old_start:old_end]
        done = end
    assert back + text[done:] == context
    # what may be left is a lower-case word beside a name ("may" beside "May")
    assert all(text[start:end].islower() for start, end in find_spans(text, aliases))


def test_substitution_is_the_same_for_all_mentions() -> None:
    context = "USA, United States, U.S. and Obama's USA-wide plan"
    spans = find_spans(context, ["United States", "USA", "U.S."])
    assert substitute(context, spans, "Peru")[0] == "Peru, Peru, Peru and Obama's Peru-wide plan"


def test_holding_reads_wider_than_finding() -> None:
    assert holds_alias("give us more", "US")  # normalised, "US" may stand there
    assert holds_alias("the Anglo-Saxon king", "Saxon")
    assert holds_alias("l'Italie", "Italie")
    assert not holds_alias("another", "not")
    assert not holds_alias("Obamacare", "Obama")
    assert not holds_alias("anything", "")
    assert first_held("Rome and Paris", ("Oslo", "Paris", "Rome")) == "Paris"


def test_an_alias_with_a_preposition_is_not_replaced_whole() -> None:
    assert core_aliases(["1041", "in 1041"]) == ("1041",)
    assert core_aliases(["In the north", "north", "Norway"]) == ("north", "Norway")
    assert core_aliases(["in 1041"]) == ("in 1041",)
    assert core_aliases(["of the", "1041"]) == ("of the", "1041")
