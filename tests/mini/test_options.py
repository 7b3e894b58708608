"""Proposed answers: exactly one of them is the answer that is remembered or read."""

import random

import pytest

from kaft_promot.mini.facts import find_words
from kaft_promot.mini.options import LETTERS, draw_options
from kaft_promot.mini.reading import Reader


@pytest.fixture(scope="module")
def reader(split_part):
    return Reader(split_part, 0)


def test_one_proposal_is_the_answer(reader, split_part):
    reader.rng = random.Random(2)
    answers = {f.question(w): f.answer for f in split_part for w in range(3)}
    letters = set()
    for row in draw_options(split_part, reader, 300):
        question = row["inputs"].removeprefix("question: ").split("?")[0] + "?"
        if " wrong: " in row["inputs"]:
            proposals = row["inputs"].split(" wrong: ")[1].split(" ; ")
            left = [p for p in proposals if p not in row["targets"].split(" ; ")]
            assert len(left) == 1 and len(proposals) > 1
            chosen = left[0]
        else:
            letters.add(row["targets"])
            after = row["inputs"].rsplit(f" {row['targets']} ", 1)[1]
            chosen = after
            for letter in LETTERS:
                chosen = chosen.split(f" {letter} ")[0]
        if "context:" in row["inputs"]:
            context = row["inputs"].split("context: ")[1]
            assert find_words(chosen, context)
        else:
            assert answers[question] == chosen
    assert letters == set(LETTERS)


def test_the_same_seed_gives_the_same_examples(reader, split_part):
    def rows(seed):
        reader.rng = random.Random(seed)
        return list(draw_options(split_part, reader, 20))

    assert rows(0) == rows(0) != rows(1)
