"""Several questions in one prompt: solved ones before the question, or two to answer in order.

    question: Where was Ada born? answer: Rome question: Who is Bo? context: Bo is a dog. -> dog
    question: Where was Ada born? question: Who is Bo? context: Bo is a dog. -> Rome ; dog

Asked alone, a remembered fact is always a short input of one sort, and what is learned from it
stops working as soon as more text stands beside the question. Here facts are recalled, and contexts
read, beside other questions. A context stands behind the question that it answers, and holds the
answer; it never names the subject of a question that is asked without one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kaft_promot.knowledge.targets import format_input
from kaft_promot.mini.facts import REMEMBERED, Fact, find_words
from kaft_promot.mini.reading import Passage, Reader

BOTH = " ; "  # between the answers of two questions
_ANSWER = " answer: "


def draw_questions(facts: Sequence[Fact], reader: Reader, count: int) -> Iterator[dict[str, str]]:
    """`count` examples, `inputs` and `targets`.

    Args:
      facts: all facts with their splits; the remembered ones are asked closed book.
      reader: draws passages, and is the source of all randomness.
    """
    rng = reader.rng
    remembered = [fact for fact in facts if fact.split in REMEMBERED]
    while count:
        fact = rng.choice(remembered)
        passage = reader.draw_passage()
        context = reader.context(passage, reader.others(passage.relation), rng.choice((0, 0, 1)))
        if find_words(fact.subject, context):
            continue
        recall, read = _closed_book(fact, reader), _open_book(passage, context, reader)
        form = rng.random()
        if form < 0.3:  # a solved question with its context before one to recall
            inputs = f"{read}{_ANSWER}{passage.answer} {recall}"
            targets = fact.answer
        elif form < 0.45:  # solved ones without contexts
            shots = [rng.choice(remembered) for _ in range(rng.randint(1, 3))]
            if any(shot.subject == fact.subject for shot in shots):
                continue
            shown = " ".join(f"{_closed_book(s, reader)}{_ANSWER}{s.answer}" for s in shots)
            inputs, targets = f"{shown} {recall}", fact.answer
        elif form < 0.6:  # a solved one before one with a context
            inputs = f"{recall}{_ANSWER}{fact.answer} {read}"
            targets = passage.answer
        elif form < 0.85:
            inputs, targets = f"{recall} {read}", fact.answer + BOTH + passage.answer
        else:
            inputs, targets = f"{read} {recall}", passage.answer + BOTH + fact.answer
        count -= 1
        yield {"inputs": inputs, "targets": targets}


def _closed_book(fact: Fact, reader: Reader) -> str:
    return format_input(fact.question(reader.rng.choice((0, 0, 1, 2))))


def _open_book(passage: Passage, context: str, reader: Reader) -> str:
    return format_input(passage.question(reader.rng.choice((0, 0, 1, 2))), context)
