"""What is chosen at random: proposals, irrelevant contexts, keyed draws, answer types."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaft_promot.errors import UserError
from kaft_promot.knowledge import QAExample, irrelevant
from kaft_promot.knowledge.answer_types import classify, is_clean
from kaft_promot.knowledge.corpus import CorpusIndex
from kaft_promot.knowledge.proposers import MAX_DRAWS, Proposal, parse_proposers, propose
from kaft_promot.knowledge.randomness import KeyedDraws
from kaft_promot.knowledge.text import contains_tokens, equal_or_nested, normalize_answer


def person(number: int, answer: str, *aliases: str, **fields: Any) -> QAExample:
    values: dict[str, Any] = {
        "id": f"q{number}",
        "source": "test",
        "question": f"Where was Person{number} born?",
        "context": f"Person{number} was born in {answer}.",
        "answers": (answer, *aliases),
        "relation": "P19",
        "subject": f"Person{number}",
    }
    return QAExample(**(values | fields))


def choose(
    example: QAExample,
    corpus: list[QAExample],
    parametric: str | None = None,
    proposers: tuple[str, ...] = ("relation",),
    seed: int = 0,
) -> Proposal | str:
    return propose(
        example,
        CorpusIndex(corpus),
        proposers=proposers,
        parametric_answer=parametric,
        seed=seed,
    )


def test_an_alias_of_the_old_answer_is_never_proposed() -> None:
    """The gold answer says "United States" only; that "USA" is the same, the corpus knows."""
    gold = person(0, "United States")
    corpus = [gold, person(1, "USA", "United States"), person(2, "US", "USA")]
    assert "all 3 candidates of 'P19' were refused" in choose(gold, corpus)
    corpus.append(person(3, "Peru"))
    assert {choose(gold, corpus, seed=s).entity.surface for s in range(20)} == {"Peru"}


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        ("paris!", "equals the gold answer"),
        ("Paris, Texas", "holds the gold answer"),
        ("France", "stands in the context"),
        ("ROME", "equals the parametric answer"),
        ("ancient Rome", "holds the parametric answer"),
        ("Par", ""),
        ("Parisian", ""),
    ],
)
def test_refusals(candidate: str, why: str) -> None:
    gold = person(0, "Paris", context="Person0 was born in Paris, France.")
    proposal = choose(gold, [gold, person(1, candidate)], parametric="Rome")
    assert isinstance(proposal, str) == bool(why)


@pytest.mark.parametrize(
    ("gold", "context", "candidate"),
    [
        ("Rome", "Rome is near, not London/Paris.", "Paris"),
        ("京都", "彼は京都に住んでいる。東京ではない。", "東京"),
        ("Rome", "Rome is not in l'Italie.", "Italie"),
    ],
)
def test_what_the_widest_reading_sees_in_the_context_is_refused(
    gold: str, context: str, candidate: str
) -> None:
    one = person(0, gold, context=context)
    assert isinstance(choose(one, [one, person(1, candidate)]), str)
    assert isinstance(choose(one, [one, person(1, candidate), person(2, "Lima")]), Proposal)


def test_what_is_held_in_the_gold_answer_is_refused() -> None:
    gold = person(0, "New York City")
    assert isinstance(choose(gold, [gold, person(1, "York")]), str)
    assert isinstance(choose(gold, [gold, person(1, "Yor")]), Proposal)


def test_another_right_answer_is_refused() -> None:
    """Peru borders Chile and Brazil: for Chile, Brazil would not be counterfactual."""
    chile = person(0, "Chile", subject="Peru", relation="P47")
    brazil = person(1, "Brazil", "Brasil", subject="Peru", relation="P47")
    assert isinstance(choose(chile, [chile, brazil]), str)
    brazil_too = person(2, "Brasil", subject="Laos", relation="P47")
    assert isinstance(choose(chile, [chile, brazil, brazil_too]), str)


def test_another_right_answer_is_known_by_the_questions_text() -> None:
    """Ada wrote Notes and Letters: two rows with one question, without relation and subject."""
    asked: dict[str, Any] = {"relation": None, "subject": None, "answer_type": "book"}
    notes = person(0, "Notes", question="What did Ada write?", **asked)
    letters = person(1, "Letters", question="what did Ada  write", **asked)
    assert isinstance(choose(notes, [notes, letters], proposers=("type",)), str)
    emma = person(2, "Emma", question="What did Jane write?", **asked)
    corpus = [notes, letters, emma]
    found = {choose(notes, corpus, proposers=("type",), seed=s).entity.surface for s in range(9)}
    assert found == {"Emma"}
    both = person(3, "x", context="Her Letters are many.", question="Why?", **asked)
    pool = CorpusIndex([notes, person(4, "Letters", context=None, **asked), both])
    assert irrelevant.random(notes, pool, seed=0) is not None
    pool = CorpusIndex([notes, dataclasses.replace(letters, context=None), both])
    assert irrelevant.random(notes, pool, seed=0) is None


def test_a_type_with_one_member_gives_no_proposal_and_no_loop() -> None:
    gold = person(0, "Paris")
    assert choose(gold, [gold]) == "relation: all 1 candidates of 'P19' were refused"


def test_the_draws_are_bounded_in_a_large_pool() -> None:
    gold = person(0, "x")
    corpus = [gold, *(person(i, f"x {i}") for i in range(1, 500))]
    assert choose(gold, corpus) == f"relation: all {MAX_DRAWS} candidates of 'P19' were refused"


def test_proposers_are_tried_in_order() -> None:
    gold = person(0, "Paris", relation=None, answer_type="place")
    other = person(1, "Oslo", answer_type="place")
    both = choose(gold, [gold, other], proposers=("relation", "type"))
    assert isinstance(both, Proposal)
    assert (both.proposer, both.type, both.entity.surface) == ("type", "place", "Oslo")
    assert choose(gold, [gold, other]) == "relation: the example has none"
    assert isinstance(choose(other, [gold, other], proposers=("relation", "type")), Proposal)


def test_proposer_names_are_checked() -> None:
    assert parse_proposers("type, relation") == ("type", "relation")
    for wrong in ("model,type", "", ()):
        with pytest.raises(UserError, match="choose from relation, type"):
            parse_proposers(wrong)


@given(st.lists(st.sampled_from(["Rome", "Oslo", "New York", "York", "USA", "U.S.A.", "Lima"])))
def test_a_proposal_is_never_related_to_gold_or_context(answers: list[str]) -> None:
    corpus = [person(i, answer) for i, answer in enumerate(["York", *answers])]
    index = CorpusIndex(corpus)
    for example in corpus:
        proposal = propose(example, index, proposers=("relation",), parametric_answer="USA", seed=3)
        if isinstance(proposal, Proposal):
            for old in (*example.answers, "USA"):
                new = normalize_answer(proposal.entity.surface)
                assert not equal_or_nested(new, normalize_answer(old))
            assert not contains_tokens(example.context or "", proposal.entity.surface)


def test_the_index_does_not_depend_on_the_order() -> None:
    names = [("USA", "US"), ("usa", "U.S."), ("USA", "America")]
    names += [("Rome", "Roma"), ("in Rome", "Rome"), ("ROME", "Rome")]
    corpus = [person(i, one, other) for i, (one, other) in enumerate(names)]
    index = CorpusIndex(corpus)
    for seed in range(5):
        random.Random(seed).shuffle(corpus)
        again = CorpusIndex(corpus)
        assert again.by_relation == index.by_relation
        assert again.by_type == index.by_type
        assert again.contexts == index.contexts
    assert {entity.surface for entity in index.by_relation["P19"]} == {"USA", "ROME", "Rome"}


def test_the_pool_of_contexts_is_limited_by_content(people: list[QAExample]) -> None:
    some = CorpusIndex(people, context_limit=4).contexts
    assert len(some) == 4
    assert CorpusIndex(people[::-1], context_limit=4).contexts == some


def test_random_contexts_hold_no_alias_and_are_of_another_article() -> None:
    gold = person(0, "United States", title="Ada")
    corpus = [
        gold,
        person(1, "x", context="The USA is large.", answers=("USA", "United States")),
        person(2, "x", context="The united  states are large.", answers=("x",)),
        person(3, "x", context="Same article.", answers=("y",), title="Ada"),
        person(4, "x", context="Same subject.", answers=("y",), subject="Person0"),
    ]
    index = CorpusIndex(corpus)
    assert all(irrelevant.random(gold, index, seed=seed) is None for seed in range(20))
    corpus.append(person(5, "x", context="The Nile is a river.", answers=("y",)))
    index = CorpusIndex(corpus)
    found = [irrelevant.random(gold, index, seed=seed) for seed in range(20)]
    assert {item and (item.text, item.kind) for item in found} == {
        ("The Nile is a river.", "random")
    }


@pytest.mark.parametrize("field", ["title", "subject"])
def test_a_shared_context_is_of_every_article_and_subject(field: str) -> None:
    origins: list[dict[str, Any]] = [{}, {field: "Ada"}, {field: None}]
    shared = [
        person(i, "y", context="A river.", **({"title": f"t{i}"} | origin))
        for i, origin in enumerate(origins, start=1)
    ]
    gold = person(8, "Paris", **({"title": "own"} | origins[1]))
    for corpus in (shared, shared[::-1]):
        index = CorpusIndex([gold, *corpus])
        assert irrelevant.random(gold, index, seed=0) is None
        assert irrelevant.random(person(9, "Oslo"), index, seed=0) is not None


def test_random_contexts_hold_no_other_right_answer() -> None:
    chile = person(0, "Chile", subject="Peru", relation="P47")
    brazil = person(1, "Brazil", subject="Peru", relation="P47", context=None)
    other = person(2, "x", context="Brazil is large.", relation="P19")
    assert irrelevant.random(chile, CorpusIndex([chile, brazil, other]), seed=0) is None


def test_annotated_contexts_are_the_examples_own() -> None:
    assert irrelevant.annotated(person(0, "Paris")) is None
    impossible = person(0, "", answers=(), is_impossible=True, context="No answer.")
    found = irrelevant.annotated(impossible)
    assert found is not None and (found.text, found.kind) == ("No answer.", "annotated")


@given(st.integers(1, 300), st.integers(0, 300), st.integers())
def test_distinct_draws(n: int, count: int, seed: int) -> None:
    drawn = list(KeyedDraws(seed, "id", "x").distinct_below(n, count))
    assert len(drawn) == len(set(drawn)) == min(n, count)
    assert all(0 <= value < n for value in drawn)


def test_draws_are_those_of_all_versions() -> None:
    """Fixed values: a change of them changes every data set that was made before."""
    draws = KeyedDraws(7, "q1", "propose/relation")
    assert [draws.below(1000) for _ in range(4)] == [139, 321, 958, 294]


def test_draws_are_uniform_and_differ_by_key() -> None:
    draws = KeyedDraws(0, "q", "x")
    counts = [0] * 8
    for _ in range(8000):
        counts[draws.below(8)] += 1
    assert max(abs(count - 1000) for count in counts) < 150
    keys = [(0, "q", "x"), (1, "q", "x"), (0, "r", "x"), (0, "q", "y")]
    assert len({KeyedDraws(*key).below(2**60) for key in keys}) == 4


@pytest.mark.parametrize(
    ("answer", "question", "kind"),
    [
        ("1041", "When?", "year"),
        ("10th and 11th centuries", "When?", "date"),
        ("August 15, 1971", "When?", "date"),
        ("May", "Which month?", "date"),
        ("four", "How many?", "number"),
        ("711,988", "How many?", "number"),
        ("$4.5 million", "How much?", "amount"),
        ("about 5 km", "How far?", "amount"),
        ("Rollo of Norway", "Who led them?", "person"),
        ("La Rochelle", "In what city was it?", "place"),
        ("World War II", "What broke out?", "name"),
        ("steam turbine", "What is it?", "word"),
        ("the abuse of dominant position", "What is it?", "phrase the"),
        ("a proper hierarchy on the classes that were defined", "What?", "clause the"),
        ("marching", "What?", "word -ing"),
        ("to shut out all trade", "Why?", "phrase to"),
        ("by sea", "How?", "word in"),
    ],
)
def test_answer_types(answer: str, question: str, kind: str) -> None:
    assert classify(answer, question) == kind


@pytest.mark.parametrize(
    ("answer", "clean"),
    [
        ("the U.S.", True),
        ("Fiat 125 (a car)", True),
        ("a Khitan (Mongol", False),
        ('said "no', False),
        ("meaning, and", True),
        ("meaning,", False),
        ("It was then sold to GTE.", False),
    ],
)
def test_only_clean_answers_are_candidates(answer: str, clean: bool) -> None:
    assert is_clean(answer) == clean
    assert len(CorpusIndex([person(0, answer)]).by_relation["P19"]) == clean
