"""Reading examples: a question and a context of one to four sentences of which exactly one is
about the subject.

Nothing here contradicts a remembered fact and every context holds its answer: mini stays naive
about conflict. The facts that mini does not remember are also told of made-up subjects, with
other objects of the relation.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaft_promot.knowledge.relations import RELATIONS
from kaft_promot.knowledge.targets import format_input
from kaft_promot.mini.facts import (
    READING_TEST,
    READING_VALIDATION,
    REMEMBERED,
    UNREAD,
    Fact,
    find_words,
)
from kaft_promot.mini.names import made_up
from kaft_promot.mini.profiles import draw_profile

PROFILES = 0.1  # share of made-up profiles among training examples
WORD = re.compile(r"\w+")
# Objects of these types may be replaced by made-up names; the others come from the relation's own
# objects.
NAME_TYPES = frozenset({"place", "organisation", "team"})


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A sentence that answers one question about its subject."""

    relation: str
    subject: str
    answer: str
    sentence: str

    def question(self, wording: int) -> str:
        return RELATIONS[self.relation].question(self.subject, wording)


def replace_words(text: str, swaps: Mapping[str, str]) -> str:
    """Replaces whole words by whole words, all at once: what came in is never replaced again."""
    parts = [text]  # replaced ones are marked by a leading NUL
    for old in sorted(swaps, key=len, reverse=True):
        split: list[str] = []
        for part in parts:
            at = 0
            if not part.startswith("\0"):
                for start in find_words(old, part):
                    split += [part[at:start], "\0" + swaps[old]]
                    at = start + len(old)
            split.append(part[at:])
        parts = split
    return "".join(part.removeprefix("\0") for part in parts)


class NameFinder:
    """Tells whether a text holds one of many names as whole words."""

    def __init__(self, names: Iterable[str]):
        self.by_first_word: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(set(names)):
            for word in WORD.findall(name)[:1]:  # none in a name of signs alone
                self.by_first_word[word].append(name)

    def in_text(self, text: str) -> bool:
        return any(
            find_words(name, text)
            for word in set(WORD.findall(text))
            for name in self.by_first_word.get(word, ())
        )


class Reader:
    """Draws reading examples of a set of facts.

    Args:
      facts: all facts with their splits.
      seed: seed of everything that is drawn.
      max_context: longest context, in characters; sentences beyond it are left out.
    """

    def __init__(self, facts: Sequence[Fact], seed: int, max_context: int = 250):
        self.rng = random.Random(f"{seed} reading")
        self.max_context = max_context
        self.real = frozenset(fact.subject for fact in facts)
        self.remembered = NameFinder(f.subject for f in facts if f.split in REMEMBERED)
        self.held_out = NameFinder(
            f.subject for f in facts if f.split in (READING_VALIDATION, READING_TEST)
        )
        trained = [f for f in facts if f.split not in UNREAD]
        self.by_relation: dict[str, list[Passage]] = defaultdict(list)
        self.subject_names: dict[str, list[str]] = defaultdict(list)
        self.objects: dict[str, list[str]] = defaultdict(list)
        for fact in trained:
            for sentence in fact.sentences:
                if self.held_out.in_text(sentence):
                    continue
                passage = Passage(
                    relation=fact.relation,
                    subject=fact.subject,
                    answer=fact.answer,
                    sentence=sentence,
                )
                self.by_relation[fact.relation].append(passage)
                self.subject_names[fact.relation].append(fact.subject)
                if fact.answer not in self.objects[fact.relation]:
                    self.objects[fact.relation].append(fact.answer)
        self.relations = sorted(self.by_relation)
        # Square roots: rare relations are seen often enough without being learned by heart.
        self.relation_weights = [len(self.by_relation[r]) ** 0.5 for r in self.relations]
        self.free = {
            r: [p for p in self.by_relation[r] if not self.remembered.in_text(p.sentence)]
            for r in self.relations
        }

    @staticmethod
    def _of(fact: Fact) -> list[Passage]:
        return [
            Passage(relation=fact.relation, subject=fact.subject, answer=fact.answer, sentence=s)
            for s in fact.sentences
        ]

    def invent(self, passage: Passage) -> Passage | None:
        """The passage told of a made-up subject, mostly with another object; None where that is
        not possible.
        """
        rng, relation = self.rng, passage.relation
        subject = made_up(self.subject_names[relation], rng)
        answer, chance = passage.answer, rng.random()
        if chance < 0.55:
            answer = rng.choice(self.objects[relation])
        elif chance < 0.8 and RELATIONS[relation].answer_type in NAME_TYPES:
            answer = made_up(self.objects[relation], rng)
        if subject in self.real or len(subject) < 3 or len(answer) < 2:
            return None
        if answer != passage.answer and find_words(answer, passage.sentence):
            return None
        sentence = replace_words(
            passage.sentence, {passage.subject: subject, passage.answer: answer}
        )
        if (
            find_words(answer, subject)
            or not find_words(answer, sentence)
            or self.reserved(sentence)
        ):
            return None
        return Passage(relation=relation, subject=subject, answer=answer, sentence=sentence)

    def reserved(self, text: str) -> bool:
        """Whether a made-up text names a subject that is remembered or held out."""
        return self.remembered.in_text(text) or self.held_out.in_text(text)

    def draw_passage(self, relation: str | None = None) -> Passage:
        """A passage of training, of `relation` or any: as it is, or of a made-up subject."""
        rng = self.rng
        while True:
            chosen = relation or rng.choices(self.relations, self.relation_weights)[0]
            if rng.random() < 0.35 or not self.free[chosen]:
                return rng.choice(self.by_relation[chosen])
            invented = self.invent(rng.choice(self.free[chosen]))
            if invented:
                return invented
            relation = chosen if rng.random() < 0.9 else relation

    def context(self, passage: Passage, others: Iterator[Passage], count: int) -> str:
        """The passage's sentence among at most `count` sentences of other subjects, in random
        order.
        """
        sentences, size = [passage.sentence], len(passage.sentence)
        subjects = {passage.subject}
        for _ in range(4 * count):
            if len(sentences) > count:
                break
            other = next(others)
            if (
                size + len(other.sentence) > self.max_context
                or other.subject in subjects
                or other.sentence in sentences
                or find_words(passage.subject, other.sentence)
                or find_words(other.subject, passage.sentence)
            ):
                continue
            subjects.add(other.subject)
            sentences.append(other.sentence)
            size += len(other.sentence)
        self.rng.shuffle(sentences)
        return " ".join(sentences)

    def draw_quote(self) -> dict[str, str]:
        """One example of quoting: of several sentences, the one about a subject, word for word.

        Its targets are long: thirty words that must be found and copied teach matching a subject
        and copying much sooner than answers of one or two words do.
        """
        passage = self.draw_passage()
        count = self.rng.choices((0, 1, 2, 3), (0.3, 0.4, 0.2, 0.1))[0]
        context = self.context(passage, self.others(passage.relation), count)
        return {
            "inputs": f"quote: {passage.subject} context: {context}",
            "targets": passage.sentence,
            "relation": passage.relation,
        }

    def others(self, relation: str) -> Iterator[Passage]:
        """Passages without end, mostly of `relation`."""
        while True:
            yield self.draw_passage(relation if self.rng.random() < 0.6 else None)

    def draw(self) -> dict[str, str]:
        """One training example: `inputs`, `targets` and `relation`."""
        rng = self.rng
        if rng.random() < PROFILES:
            profile = None
            while profile is None:
                profile = draw_profile(self.subject_names, self.objects, self.real, rng)
                if profile and self.reserved(profile["context"]):
                    profile = None
            return {
                "inputs": format_input(profile["question"], profile["context"]),
                "targets": profile["answer"],
                "relation": profile["relation"],
            }
        passage = self.draw_passage()
        wording = (
            0 if rng.random() < 0.6 else rng.randrange(len(RELATIONS[passage.relation].questions))
        )
        count = rng.choices((0, 1, 2, 3), (0.4, 0.35, 0.17, 0.08))[0]
        context = self.context(passage, self.others(passage.relation), count)
        return {
            "inputs": format_input(passage.question(wording), context),
            "targets": passage.answer,
            "relation": passage.relation,
        }


def held_out_examples(
    facts: Sequence[Fact], split: str, distractors: int, seed: int, max_context: int = 250
) -> list[dict[str, Any]]:
    """Every fact of `split` with its first sentence among `distractors` other sentences of the
    same split.
    """
    rng = random.Random(f"{seed} held out {distractors}")
    chosen = [f for f in facts if f.split == split]
    reader = Reader(facts, seed, max_context)
    reader.rng = rng
    passages = [Reader._of(fact)[0] for fact in chosen]
    by_relation: defaultdict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        by_relation[passage.relation].append(passage)

    def others(relation: str) -> Iterator[Passage]:
        while True:
            yield rng.choice(by_relation[relation] if rng.random() < 0.6 else passages)

    return [
        {
            "inputs": format_input(
                p.question(0), reader.context(p, others(p.relation), distractors)
            ),
            "targets": p.answer,
            "relation": p.relation,
            "fact": fact.id,
            "distractors": distractors,
        }
        for p, fact in zip(passages, chosen, strict=True)
    ]
