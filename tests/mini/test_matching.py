"""Matching names: what is asked for can be told from the text, and from nothing else."""

import random

import pytest

from kaft_promot.mini.facts import find_words
from kaft_promot.mini.fewshot import TASKS
from kaft_promot.mini.matching import draw_names
from kaft_promot.mini.reading import Reader


@pytest.fixture(scope="module")
def reader(split_part):
    return Reader(split_part, 0)


def test_one_name_stands_in_the_text_or_one_does_not(reader):
    reader.rng = random.Random(0)
    seen: dict[str, set[str]] = {}
    for row in draw_names(reader, 400):
        word, _, rest = row["inputs"].partition(": ")
        if word in ("which", "absent"):
            names, text = rest.split(" context: ")
            inside = {name: bool(find_words(name, text)) for name in names.split(" ; ")}
            assert len(inside) > 1
            assert [n for n, there in inside.items() if there == (word == "which")] == [
                row["targets"]
            ]
            place = str(list(inside).index(row["targets"]))
        elif word == "match":
            text, name = rest.rsplit(" has ", 1)
            assert str(bool(find_words(name, text))) == row["targets"]
            place = row["targets"]
        else:
            assert word in TASKS
            place = ""
        seen.setdefault(word, set()).add(place)
    assert seen["match"] == {"True", "False"}
    assert {"0", "1"} <= seen["which"] and {"0", "1"} <= seen["absent"]


def test_held_out_names_are_not_in_training(reader):
    reader.rng = random.Random(1)
    assert not any(reader.held_out.in_text(row["inputs"]) for row in draw_names(reader, 300))


def test_the_same_seed_gives_the_same_examples(reader):
    def rows(seed):
        reader.rng = random.Random(seed)
        return list(draw_names(reader, 20))

    assert rows(0) == rows(0) != rows(1)
