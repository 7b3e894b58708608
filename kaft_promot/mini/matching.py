"""Matching: which of some names stands in a text, and which does not?

    which: Al Tobin ; Bo context: Bo is a dog from Rome. -> Bo
    absent: Ada Lee ; Al Tobin ; Bo context: Bo is a dog. Ada Lee was born in Oslo. -> Al Tobin
    which: ridge ; um ; cat context: um go seven -> um
    match: Bo is a dog from Rome. has Bo -> True

Telling whose sentence one has, and whether a claim is the answer that one remembers, both rest on
comparing two parts of the input. One bit an example teaches that slowly, and among other tasks not
at all; a name that must be written is worth twenty bits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from kaft_promot.mini.facts import find_words
from kaft_promot.mini.fewshot import TASKS, draw_example
from kaft_promot.mini.names import made_up
from kaft_promot.mini.reading import Reader
from kaft_promot.mini.words import WORDS

_SEPARATOR = " ; "
_WORD_TASKS = ("same", "contains", "choice", "lookup")


def draw_names(reader: Reader, count: int, split: str = "train") -> Iterator[dict[str, str]]:
    """`count` examples, `inputs` and `targets`; `reader` is the source of all randomness."""
    while count:
        chance = reader.rng.random()
        example: dict[str, str] | None
        if chance < 0.25:
            example = draw_example(TASKS[reader.rng.choice(_WORD_TASKS)], split, 0, reader.rng)
        elif chance < 0.4:
            example = _words(reader.rng)
        else:
            example = _names(reader)
        if example is not None:
            count -= 1
            yield example


def _words(rng: random.Random) -> dict[str, str]:
    asked = rng.sample(WORDS, rng.randint(2, 4))
    inside, word = _shown(rng, asked)
    others = [w for w in rng.sample(WORDS, rng.randint(1, 6)) if w not in asked]
    text = rng.sample(inside + others, len(inside + others))
    return _example(word, asked, " ".join(text), inside)


def _shown(rng: random.Random, asked: list[str]) -> tuple[list[str], str]:
    """Which of `asked` a text shall name: one of them or all but one, and the word that asks."""
    one = rng.choice(asked)
    if rng.random() < 0.5:
        return [one], "which"
    return [name for name in asked if name != one], "absent"


def _names(reader: Reader) -> dict[str, str] | None:
    rng = reader.rng
    passages = [reader.draw_passage()]
    relation = passages[0].relation
    if rng.random() < 0.4:
        passages.append(reader.draw_passage(relation))
    text = " ".join(passage.sentence for passage in passages)
    if len(text) > reader.max_context:
        return None
    names, inside = reader.subject_names[relation], [p.subject for p in passages]

    def other() -> str:
        return rng.choice(names) if rng.random() < 0.7 else made_up(names, rng)

    form = rng.random()
    if form < 0.35:
        true = rng.random() < 0.5
        name = rng.choice(inside) if true else other()
        if bool(find_words(name, text)) != true:
            return None
        return {"inputs": f"match: {text} has {name}", "targets": str(true)}
    word = "which" if len(inside) == 1 and form < 0.75 else "absent"
    asked = inside + [other() for _ in range(rng.randint(1, 2) if word == "which" else 1)]
    if any(bool(find_words(name, text)) != (name in inside) for name in asked):
        return None
    if any(find_words(a, b) for i, a in enumerate(asked) for j, b in enumerate(asked) if i != j):
        return None
    rng.shuffle(asked)
    return _example(word, asked, text, inside)


def _example(word: str, asked: list[str], text: str, inside: list[str]) -> dict[str, str]:
    wanted = [name for name in asked if (name in inside) == (word == "which")]
    assert len(wanted) == 1
    return {
        "inputs": f"{word}: {_SEPARATOR.join(asked)} context: {text}",
        "targets": wanted[0],
    }
