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


def test_contexts_answer_one_question_and_name_the_subject_of_no_other(facts):
    remembered = {f.subject: f.answer for f in facts if f.split in REMEMBERED}
    forms = set()
    for row in draw_questions(facts, reader_of(facts), 300):
        asked = row["inputs"].split("question: ")[1:]
        contexts = [q.partition(" context: ")[2].partition(" answer: ")[0] for q in asked]
        context = next(filter(None, contexts), "")
        wanted = iter(row["targets"].split(BOTH))
        together = BOTH in row["targets"]
        places, read = [], 0
        for place, question in enumerate(asked):
            told = question.partition(" answer: ")[2].strip()
            answer = told or next(wanted)
            text = question.partition(" context: ")[0].partition(" answer: ")[0]
            subject = next((n for n in remembered if find_words(n, text)), None)
            if subject is not None and not find_words(subject, context):
                assert answer == remembered[subject]
                assert together or not contexts[place]
            else:
                assert find_words(answer, context)
                assert together or contexts[place]
                read += 1
                places.append(place)
        assert read == bool(context)
        assert next(wanted, None) is None  # as many answers as questions without one
        forms.add((len(asked), together, *places))
    assert {(2, False, 0), (2, False, 1), (2, True, 0), (2, True, 1), (4, False)} <= forms


def test_the_same_seed_gives_the_same_examples(facts):
    first, second = (list(draw_questions(facts, reader_of(facts), 20)) for _ in range(2))
    assert first == second
    assert list(draw_questions(facts, reader_of(facts, seed=1), 20)) != first
