"""Several questions in one prompt: what they ask is in the input, or remembered."""

import random

import pytest

from kaft_promot.mini.facts import REMEMBERED, Fact, find_words
from kaft_promot.mini.questions import BOTH, draw_questions
from kaft_promot.mini.reading import Reader

CITIES = ["Rome", "Oslo", "Bonn", "Lima", "Cairo", "Quito"]


@pytest.fixture(scope="module")
def facts():
    made = []
    for i in range(40):
        split = ("remembered_train", "remembered_test", "reading_train", "reading_train")[i % 4]
        subject, city = f"Ann{chr(97 + i % 26)}{i} Lee", CITIES[i % len(CITIES)]
        made.append(
            Fact(
                id=str(i),
                relation="P19",
                subject=subject,
                answer=city,
                subject_uri="Q1",
                object_uri="Q2",
                sentences=(f"{subject} was born in {city} long ago.",),
                split=split,
            )
        )
    return made


def reader_of(facts, seed=0):
    reader = Reader(facts, 0)
    reader.rng = random.Random(seed)
    return reader


def test_contexts_answer_their_own_question_and_none_other(facts):
    remembered = {f.subject: f.answer for f in facts if f.split in REMEMBERED}
    forms = set()
    for row in draw_questions(facts, reader_of(facts), 300):
        asked = row["inputs"].split("question: ")[1:]
        wanted = iter(row["targets"].split(BOTH))
        for question in asked:
            text, _, told = question.partition(" answer: ")
            answer = told.strip() or next(wanted)
            text, _, context = text.partition(" context: ")
            if context:
                assert find_words(answer, context)
            else:
                name = next(name for name in remembered if name in text)
                assert all(name not in q.partition(" context: ")[2] for q in asked)
                assert answer == remembered[name]
        assert next(wanted, None) is None  # as many answers as questions without one
        forms.add((len(asked), BOTH in row["targets"]))
    assert {(2, False), (2, True)} <= forms


def test_the_same_seed_gives_the_same_examples(facts):
    first, second = (list(draw_questions(facts, reader_of(facts), 20)) for _ in range(2))
    assert first == second
    assert list(draw_questions(facts, reader_of(facts, seed=1), 20)) != first
