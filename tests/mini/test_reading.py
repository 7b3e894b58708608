"""Reading examples: what mini may be shown, and what it must never be."""

import random

import pytest

from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.facts import find_words
from kaft_promot.mini.names import made_up
from kaft_promot.mini.reading import NameFinder, Passage, Reader, held_out_examples, replace_words


@pytest.fixture(scope="module")
def drawn(split_part):
    reader = Reader(split_part, 0)
    return [reader.draw() for _ in range(1500)]


def context_of(row):
    return row["inputs"].split(" context: ", 1)[1]


def test_words_are_replaced_all_at_once():
    text = "Ada of Kent, Adams and Ada's Kent."
    assert (
        replace_words(text, {"Ada": "Kent", "Kent": "Ada"}) == "Kent of Ada, Adams and Kent's Ada."
    )
    assert replace_words("New York, York", {"York": "Bath", "New York": "Rome"}) == "Rome, Bath"


def test_names_are_found_as_whole_words():
    finder = NameFinder(["Ada Byron", "Kent", "!!!"])
    assert finder.in_text("So Ada Byron left.") and finder.in_text("Kent")
    assert not finder.in_text("Ada and Byron left Kentucky.")


def test_a_made_up_name_is_built_of_its_pool():
    names = ["Ada of Kent", "Bo von Lee", "Cyrus Dow"]
    found = {made_up(names, random.Random(seed)) for seed in range(200)}
    assert len(found) > 50
    assert any(" of " in name for name in found)


def test_every_context_holds_its_answer(drawn):
    assert all(find_words(row["targets"], context_of(row)) for row in drawn)


def test_no_unread_sentence_and_no_held_out_subject_is_in_training(drawn, split_part):
    text = "\n".join(row["inputs"] for row in drawn)
    for fact in split_part:
        if fact.split in facts_lib.UNREAD:
            assert not any(sentence in text for sentence in fact.sentences)
        if fact.split in (facts_lib.READING_TEST, facts_lib.READING_VALIDATION):
            assert not find_words(fact.subject, text)


def test_no_sentence_about_a_remembered_subject_is_made_up(drawn, split_part):
    real = {s for f in split_part for s in f.sentences}
    remembered = NameFinder(f.subject for f in split_part if f.split in facts_lib.REMEMBERED)
    kept = 0
    for row in drawn:
        left = context_of(row)
        for sentence in real:
            if sentence in left:
                left = left.replace(sentence, " ")
        assert not remembered.in_text(left), row
        kept += remembered.in_text(context_of(row))
    assert kept > 20  # their own sentences do stand in training


def test_no_remembered_question_is_answered_otherwise(drawn, split_part):
    answers = {
        f.question(wording): f.answer
        for f in split_part
        if f.split in facts_lib.REMEMBERED
        for wording in range(3)
    }
    asked = 0
    for row in drawn:
        question = row["inputs"].split(" context: ")[0].removeprefix("question: ")
        if question in answers:
            asked += 1
            assert row["targets"] == answers[question]
    assert asked > 20


def test_made_up_passages_have_another_subject_and_mostly_another_object(split_part):
    reader = Reader(split_part, 1)
    subjects = {fact.subject for fact in split_part}
    passages = [p for r in reader.relations for p in reader.free[r]]
    made = [(p, reader.invent(p)) for p in passages[:300]]
    made = [(old, new) for old, new in made if new]
    assert len(made) > 100
    assert not any(new.subject in subjects for _, new in made)
    assert all(find_words(new.subject, new.sentence) for _, new in made)
    changed = [new for old, new in made if new.answer != old.answer]
    assert len(changed) > 0.5 * len(made)
    for old, new in made:
        assert not find_words(old.subject, new.sentence) or old.subject in new.subject


def test_the_other_sentences_are_about_others(split_part):
    reader = Reader(split_part, 2)
    passage = Passage(
        relation="P19", subject="Zoe Zed", answer="Rome", sentence="Zoe Zed was born in Rome."
    )
    others = iter(
        [
            Passage(
                relation="P19",
                subject="Bo",
                answer="Kent",
                sentence="Bo, not Zoe Zed, is from Kent.",
            ),
            Passage(relation="P19", subject="Zed", answer="Kent", sentence="Zed was born in Kent."),
            Passage(relation="P19", subject="Cy", answer="Kent", sentence="Cy was born in Kent."),
            Passage(relation="P19", subject="Cy", answer="Oslo", sentence="Cy was born in Oslo."),
            Passage(relation="P19", subject="Di", answer="Bonn", sentence="Di " + "x" * 300),
            Passage(relation="P19", subject="Ed", answer="Bonn", sentence="Ed was born in Bonn."),
        ]
    )
    context = reader.context(passage, others, 2)
    for sentence in ("Zoe Zed was born in Rome.", "Cy was born in Kent.", "Ed was born in Bonn."):
        assert sentence in context
    assert len(context) == len(
        "Zoe Zed was born in Rome. Cy was born in Kent. Ed was born in Bonn."
    )


def test_the_same_seed_draws_the_same(split_part, drawn):
    reader = Reader(split_part, 0)
    assert [reader.draw() for _ in range(50)] == drawn[:50]
    other = Reader(split_part, 1)
    assert [other.draw() for _ in range(50)] != drawn[:50]


def test_held_out_examples_ask_every_fact_of_the_split(split_part):
    asked = [f for f in split_part if f.split == facts_lib.READING_TEST]
    alone = held_out_examples(split_part, facts_lib.READING_TEST, 0, 0)
    among = held_out_examples(split_part, facts_lib.READING_TEST, 2, 0)
    assert [row["fact"] for row in alone] == [fact.id for fact in asked]
    assert all(context_of(row) == fact.sentence for row, fact in zip(alone, asked, strict=True))
    assert sum(len(context_of(row)) for row in among) > 1.5 * sum(map(len, map(context_of, alone)))
    own = {s for f in asked for s in f.sentences}
    for row, fact in zip(among, asked, strict=True):
        left = context_of(row)
        assert fact.sentence in left
        for sentence in own:
            left = left.replace(sentence, "")
        assert not left.strip()  # the other sentences are of the same split


def test_a_quote_is_the_sentence_about_its_subject(split_part):
    reader = Reader(split_part, 3)
    held_out = {s for f in split_part if f.split in facts_lib.UNREAD for s in f.sentences}
    several = 0
    for _ in range(200):
        row = reader.draw_quote()
        subject = row["inputs"].split(" context: ")[0].removeprefix("quote: ")
        assert find_words(subject, row["targets"])
        assert row["targets"] in context_of(row) and row["targets"] not in held_out
        others = context_of(row).replace(row["targets"], " ", 1)
        assert not find_words(subject, others)
        several += bool(others.strip())
    assert several > 100
