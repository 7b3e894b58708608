"""Made-up names: pieces of real names of one relation put together anew."""

from __future__ import annotations

import random
from collections.abc import Sequence


def blend(left: str, right: str, rng: random.Random) -> str:
    """A new word from the beginning of one and the end of another ("Draheim", "Verne" -> "Draherne")."""
    if min(len(left), len(right)) < 3:
        return left
    return left[: rng.randint(2, len(left) - 1)] + right[-rng.randint(2, len(right) - 1) :].lower()


def made_up(names: Sequence[str], rng: random.Random) -> str:
    """A name of as many words as one of `names`, each word taken from some name of the pool, every other word blended."""
    shape = rng.choice(names).split()
    words = []
    for place, word in enumerate(shape):
        if not word[:1].isupper() and not word[:1].isdigit():
            words.append(word)  # "of", "the", "und": keep the name's build
            continue
        other = rng.choice(names).split()
        new = other[min(place, len(other) - 1)]
        words.append(blend(new, rng.choice(rng.choice(names).split()), rng) if rng.random() < 0.5 else new)
    return " ".join(words)
