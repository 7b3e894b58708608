"""Made-up names: pieces of real names of one relation put together anew."""

from __future__ import annotations

import random
from collections.abc import Sequence

LONGEST = 5  # words


def blend(left: str, right: str, rng: random.Random) -> str:
    """A new word from the beginning of one and the end of another ("Draheim", "Verne" ->
    "Draherne").
    """
    if min(len(left), len(right)) < 3:
        return left
    return left[: rng.randint(2, len(left) - 1)] + right[-rng.randint(2, len(right) - 1) :].lower()


def made_up(names: Sequence[str], rng: random.Random) -> str:
    """A name built like one of `names`: each capitalised word is taken from the pool, every other
    one of these blended.
    """
    shape = rng.choice(names).split()[:LONGEST]
    while not any(len(word) > 3 and word[0].isupper() for word in shape):
        shape = rng.choice(names).split()[:LONGEST]
    words = []
    for place, word in enumerate(shape):
        if not word[:1].isupper() and not word[:1].isdigit():
            words.append(word)  # "of", "the", "und": keep the name's build
            continue
        other = rng.choice(names).split()
        new = other[min(place, len(other) - 1)]
        words.append(
            blend(new, rng.choice(rng.choice(names).split()), rng) if rng.random() < 0.5 else new
        )
    return " ".join(words)
