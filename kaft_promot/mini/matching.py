"""Matching: does a name, or a word, stand in a text?

    match: Bo is a dog from Rome. has Bo -> True
    match: Ada Lee , Al Tobin has Bo -> False

Telling whose sentence one has, and whether a claim is the answer that one remembers, both rest on
comparing two things in the input. Among other tasks that is not learned for thousands of steps;
asked for alone it comes within a few hundred.
"""

from __future__ import annotations

from collections.abc import Iterator

from kaft_promot.mini.facts import find_words
from kaft_promot.mini.fewshot import TASKS, draw_example
from kaft_promot.mini.reading import Reader

_WORD_TASKS = ("same", "contains", "choice", "lookup")


def draw_matches(reader: Reader, count: int, split: str = "train") -> Iterator[dict[str, str]]:
    """`count` examples, `inputs` and `targets`; `reader` is the source of all randomness."""
    rng = reader.rng
    while count:
        if rng.random() < 0.4:
            count -= 1
            yield draw_example(TASKS[rng.choice(_WORD_TASKS)], split, 0, rng)
            continue
        relation = rng.choice(reader.relations)
        names = reader.subject_names[relation]
        if rng.random() < 0.5:
            passage = reader.draw_passage(relation)
            text, inside = passage.sentence, [passage.subject, passage.answer]
        else:
            inside = [rng.choice(names) for _ in range(rng.randint(1, 4))]
            text = " , ".join(inside)
        true = rng.random() < 0.5
        name = rng.choice(inside) if true else rng.choice(names)
        if bool(find_words(name, text)) != true:
            continue
        count -= 1
        yield {"inputs": f"match: {text} has {name}", "targets": str(true)}
