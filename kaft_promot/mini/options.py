"""Choosing among proposed answers: what is remembered, or read, is compared with each of them.

    question: Where was Ada born? A Oslo B Rome -> B
    question: Who is Bo? context: Bo is a dog. A dog B cat -> A
    question: Where was Ada born? wrong: Oslo ; Rome ; Lima -> Oslo ; Lima

An answer that was only ever written need not be known where it could be compared with anything;
here it must be. Other proposals are mostly objects of the same relation. None of them is claimed
to be right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kaft_promot.knowledge.targets import format_input
from kaft_promot.knowledge.text import equal_or_nested, normalize_answer
from kaft_promot.mini.facts import REMEMBERED, Fact
from kaft_promot.mini.reading import Passage, Reader

LETTERS = "ABC"
_SEPARATOR = " ; "


def draw_options(facts: Sequence[Fact], reader: Reader, count: int) -> Iterator[dict[str, str]]:
    """`count` examples, `inputs` and `targets`.

    Args:
      facts: all facts with their splits; the remembered ones are asked closed book.
      reader: draws passages, and is the source of all randomness.
    """
    rng = reader.rng
    remembered = [fact for fact in facts if fact.split in REMEMBERED]
    while count:
        asked: Fact | Passage
        if rng.random() < 0.65:
            asked, context = rng.choice(remembered), None
        else:
            asked = reader.draw_passage()
            context = reader.context(asked, reader.others(asked.relation), rng.choice((0, 0, 1)))
        proposals = _proposals(reader, asked, rng.choice((1, 1, 2)))
        if proposals is None:
            continue
        question = format_input(asked.question(rng.choice((0, 0, 1, 2))), context)
        if rng.random() < 0.65:
            listed = " ".join(f"{x} {p}" for x, p in zip(LETTERS, proposals, strict=False))
            inputs = f"{question} {listed}"
            targets = LETTERS[proposals.index(asked.answer)]
        else:
            inputs = f"{question} wrong: {_SEPARATOR.join(proposals)}"
            targets = _SEPARATOR.join(p for p in proposals if p != asked.answer)
        count -= 1
        yield {"inputs": inputs, "targets": targets}


def _proposals(reader: Reader, asked: Fact | Passage, wrong: int) -> list[str] | None:
    """The answer and `wrong` other proposals in random order; None where they are too alike."""
    rng = reader.rng
    names = [asked.answer]
    for _ in range(wrong):
        near = rng.random() < 0.7
        relation = asked.relation if near else rng.choice(reader.relations)
        names.append(rng.choice(reader.objects[relation]))
    keys = [normalize_answer(name) for name in names]
    if any(equal_or_nested(a, b) for i, a in enumerate(keys) for b in keys[:i]):
        return None
    rng.shuffle(names)
    return names
