"""In-context tasks: right targets, and inputs that no training prompt holds."""

import random

import pytest

from kaft_promot.mini.fewshot import TASKS, draw_example, draw_item, held_out, new_words, prompt
from kaft_promot.mini.words import KINDS, WORDS

EXAMPLES = {
    "first": ("cat dog sun", "cat"),
    "last": ("cat dog sun", "sun"),
    "twice": ("cat dog", "cat dog cat dog"),
    "reverse": ("cat dog sun", "sun dog cat"),
    "rest": ("cat dog sun", "dog sun"),
    "count": ("cat dog sun", "3"),
    "larger": ("31 17", "31"),
    "next": ("a y", "b z"),
    "upper": ("a y", "A Y"),
}
RIGHT = {
    "first": lambda words: words[0],
    "last": lambda words: words[-1],
    "twice": lambda words: " ".join(words * 2),
    "reverse": lambda words: " ".join(words[::-1]),
    "rest": lambda words: " ".join(words[1:]),
    "same": lambda words: "yes" if words[0] == words[1] else "no",
    "contains": lambda words: str(words[-1] in words[:-2]),
    "claim": lambda words: str(words[0] in KINDS[words[-1]]),
    "count": lambda words: str(len(words)),
    "larger": lambda words: str(max(map(int, words))),
    "next": lambda words: " ".join(chr(ord(word) + 1) for word in words),
    "upper": lambda words: " ".join(words).upper(),
    "choice": lambda words: "A" if words[2] == words[0] else "B",
    "kind": lambda words: "A" if words[2] in KINDS[words[0]] else "B",
    "odd": lambda words: next(
        w
        for w in words
        if sum(len({w, v} & set(k)) == 2 for v in words for k in KINDS.values()) == 0
    ),
    "lookup": lambda words: words[words.index(words[-1]) + 1],
}


def test_words_are_distinct_and_many_formats_are_there():
    assert len(set(WORDS)) == len(WORDS) >= 150
    assert len(TASKS) >= 10
    assert len({task.output for task in TASKS.values()}) >= 4


@pytest.mark.parametrize("name", TASKS)
def test_targets_are_right(name):
    rng = random.Random(name)
    targets = set()
    for _ in range(200):
        text, target = draw_item(TASKS[name], "train", rng)
        assert text.startswith(f"{name}: ")
        words = text.removeprefix(f"{name}: ").split()
        assert target == RIGHT[name](words), text
        targets.add(target)
    if name in EXAMPLES:
        assert RIGHT[name](EXAMPLES[name][0].split()) == EXAMPLES[name][1]
    assert len(targets) >= 2


@pytest.mark.parametrize("name", ["same", "contains", "claim", "choice", "kind"])
def test_labels_are_balanced(name):
    rng = random.Random(name)
    targets = [draw_item(TASKS[name], "validation", rng)[1] for _ in range(400)]
    assert 0.4 < targets.count(targets[0]) / len(targets) < 0.6


@pytest.mark.parametrize("name", TASKS)
def test_held_out_inputs_are_in_no_training(name):
    task, rng = TASKS[name], random.Random(name)
    trained = {draw_item(task, "train", rng)[0] for _ in range(500)}
    asked = {draw_item(task, "validation", rng)[0] for _ in range(100)}
    assert not trained & asked
    words = {word for text in trained for word in text.split()[1:]}
    assert not words & new_words(task)
    for text in asked:
        assert held_out(task, text.removeprefix(f"{name}: "))
        if task.new_words:
            assert set(text.split()) & new_words(task)


def test_most_tasks_hold_out_words():
    holding = [task for task in TASKS.values() if task.new_words]
    assert len(holding) >= 6
    assert all(8 <= len(new_words(task)) <= 40 for task in holding)
    assert len({new_words(task) for task in holding}) == len(holding)


def test_a_prompt_is_what_seqio_writes():
    seqio = pytest.importorskip("seqio")
    import tensorflow as tf

    from kaft_promot.mini.fewshot import INPUTS_PREFIX, SEPARATOR, TARGETS_PREFIX

    shots = [("first: cat dog", "cat"), ("first: sun hen", "sun")]
    rows = {
        "train": {"inputs": [x for x, _ in shots], "targets": [y for _, y in shots]},
        "eval": {"inputs": "first: red bus", "targets": "red"},
    }
    dataset = tf.data.Dataset.from_tensors(rows)
    dataset = seqio.experimental.fewshot_preprocessor(
        dataset,
        inputs_prefix=INPUTS_PREFIX,
        targets_prefix=TARGETS_PREFIX,
        example_separator=SEPARATOR,
    )
    (made,) = dataset.as_numpy_iterator()
    assert made["inputs"].decode() == prompt(shots, "first: red bus")
    assert prompt(shots, "first: red bus") == (
        "first: cat dog = cat ; first: sun hen = sun ; first: red bus ="
    )


def test_an_example_has_its_shots_and_never_shows_its_query():
    for name, task in TASKS.items():
        for shots in (0, 1, 4):
            row = draw_example(task, "train", shots, random.Random(shots))
            parts = row["inputs"].split(" ; ")
            assert len(parts) == shots + 1
            assert all(part.startswith(f"{name}: ") for part in parts)
            assert parts[-1].endswith(" =")
            assert not any(part.startswith(parts[-1] + " ") for part in parts[:-1])
            assert len(set(parts)) == len(parts)
