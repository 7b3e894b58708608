"""Several questions in one prompt: solved ones before the question, or two to answer in order.

    question: Where was Ada born? answer: Rome question: Who is Bo? context: Bo is a dog. -> dog
    question: Where was Ada born? question: Where was Bo born? context: Bo comes from Oslo.
      -> Rome ; Oslo

Asked alone, a remembered fact is always a short input of one sort, and what is learned from it
stops working as soon as more text stands beside the question. Here facts are recalled, and contexts
read, beside other questions, and which question a context answers is told by its subject alone.
Every context answers a question of its prompt and contradicts nothing; it never names the subject
of a question that is to be answered from memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from kaft_promot.knowledge.targets import format_input
from kaft_promot.mini.facts import REMEMBERED, Fact, find_words
from kaft_promot.mini.reading import Passage, Reader

BOTH = " ; "  # between the answers of two questions
_ANSWER = " answer: "


class _Asker:
    """Draws what is asked: facts that are remembered, and passages with their contexts."""

    def __init__(self, facts: Sequence[Fact], reader: Reader):
        self.reader, self.rng = reader, reader.rng
        self.remembered = [fact for fact in facts if fact.split in REMEMBERED]
        self.by_relation: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.remembered:
            self.by_relation[fact.relation].append(fact)

    def wording(self) -> int:
        return self.rng.choice((0, 0, 1, 2))

    def fact(self, relation: str) -> Fact:
        """A remembered fact, mostly of `relation`."""
        near = self.by_relation[relation] if self.rng.random() < 0.7 else None
        return self.rng.choice(near or self.remembered)

    def question(self, asked: Fact | Passage) -> str:
        return format_input(asked.question(self.wording()))

    def solved(self) -> dict[str, str] | None:
        """Solved questions, without contexts or with, before one."""
        rng, reader = self.rng, self.reader
        passage = reader.draw_passage()
        fact = self.fact(passage.relation)
        context = reader.context(passage, reader.others(passage.relation), rng.choice((0, 0, 1)))
        if find_words(fact.subject, context):
            return None
        recall = self.question(fact)
        read = f"{self.question(passage)} context: {context}"
        form = rng.random()
        if form < 0.5:  # a solved question with its context before one to recall
            return {"inputs": f"{read}{_ANSWER}{passage.answer} {recall}", "targets": fact.answer}
        if form < 0.75:  # a solved one before one with a context
            return {
                "inputs": f"{recall}{_ANSWER}{fact.answer} {read}",
                "targets": passage.answer,
            }
        shots = [rng.choice(self.remembered) for _ in range(rng.randint(1, 3))]
        if any(shot.subject == fact.subject for shot in shots):
            return None
        shown = " ".join(f"{self.question(s)}{_ANSWER}{s.answer}" for s in shots)
        return {"inputs": f"{shown} {recall}", "targets": fact.answer}

    def together(self) -> dict[str, str] | None:
        """A question to answer from memory and one that the context behind both answers."""
        rng, reader = self.rng, self.reader
        passage = reader.draw_passage()
        fact = self.fact(passage.relation)
        context = reader.context(passage, reader.others(passage.relation), rng.choice((0, 0, 1)))
        if fact.subject == passage.subject or find_words(fact.subject, context):
            return None
        asked: list[Fact | Passage] = [fact, passage]
        if rng.random() >= 0.5:
            asked.reverse()
        return {
            "inputs": f"{' '.join(map(self.question, asked))} context: {context}",
            "targets": BOTH.join(one.answer for one in asked),
        }


def draw_questions(facts: Sequence[Fact], reader: Reader, count: int) -> Iterator[dict[str, str]]:
    """`count` examples, `inputs` and `targets`.

    Args:
      facts: all facts with their splits; the remembered ones are asked closed book.
      reader: draws passages, and is the source of all randomness.
    """
    asker = _Asker(facts, reader)
    while count:
        example = asker.solved() if reader.rng.random() < 0.25 else asker.together()
        if example is not None:
            count -= 1
            yield example
