"""What must be known of the whole input before one example can be augmented.

Built in one pass and never changed after: the candidate answers of each relation and type with
all ways to write them, the right answers to each question, and the pool of contexts. Everything is
sorted by content, so it does not depend on the order of the input.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator

from kaft_promot.knowledge.answer_types import classify, is_clean
from kaft_promot.knowledge.records import QAExample
from kaft_promot.knowledge.spans import begins_with_preposition
from kaft_promot.knowledge.text import normal_forms, normal_passage, normalize_answer

CONTEXT_POOL_LIMIT = 200_000

Asked = tuple[str, str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """Something that answers questions.

    Attributes:
      aliases: every way to write it; the first, `surface`, is what a substitution writes.
      forms: the aliases' distinct normal forms; `forms[0]` is that of the canonical answers.
    """

    aliases: tuple[str, ...]
    forms: tuple[str, ...]

    @property
    def surface(self) -> str:
        return self.aliases[0]


@dataclasses.dataclass(frozen=True, slots=True)
class PoolContext:
    """A context that may be lent to another question.

    Attributes:
      text: the context.
      titles: of every article that it is known from.
      subjects: of every example that has it.
    """

    text: str
    titles: set[str]
    subjects: set[str]


def answer_type(example: QAExample) -> str:
    """The type of an example's answer: what its source says, else by `answer_types.classify`."""
    return example.answer_type or classify(example.answers[0], example.question)


class CorpusIndex:
    """The index of all examples of a run.

    Args:
      examples: every example, in any order. Read once.
      context_limit: at most so many contexts are kept for `random` irrelevant contexts (those
        with the smallest hashes: a sample that does not depend on the order).

    Attributes:
      examples: how many there are.
      by_relation: relation -> its candidate answers, sorted; those that could not stand in
        another sentence (see `answer_types.is_clean`) are left out.
      by_type: answer type -> its candidate answers, likewise.
    """

    def __init__(
        self, examples: Iterable[QAExample], *, context_limit: int = CONTEXT_POOL_LIMIT
    ) -> None:
        canonical: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        others: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        relations: dict[str, set[str]] = collections.defaultdict(set)
        types: dict[str, set[str]] = collections.defaultdict(set)
        first: dict[Asked, str] = {}  # most questions have one answer: no set for each
        facts: dict[Asked, set[str]] = {}
        contexts: dict[bytes, PoolContext] = {}
        self.examples = 0
        for example in examples:
            self.examples += 1
            if example.context:
                _add_context(contexts, example, context_limit)
            if not example.answers:
                continue
            key = normalize_answer(example.answers[0])
            canonical[key][example.answers[0]] += 1
            others[key].update(example.answers[1:])
            types[answer_type(example)].add(key)
            if example.relation:
                relations[example.relation].add(key)
            for asked in _asked(example):
                if first.setdefault(asked, key) != key:
                    facts.setdefault(asked, {first[asked]}).add(key)
        self._entities = {
            key: _entity(key, canonical[key], others[key]) for key in sorted(canonical)
        }
        self.by_relation = self._pools(relations)
        self.by_type = self._pools(types)
        self._facts = facts
        keys_of_form: dict[str, set[str]] = collections.defaultdict(set)
        for key, entity in self._entities.items():
            for form in entity.forms:
                keys_of_form[form].add(key)
        self._keys_of_form = {form: tuple(sorted(keys)) for form, keys in keys_of_form.items()}
        self._contexts = [contexts[digest] for digest in sorted(contexts)[:context_limit]]

    def _pools(self, members: dict[str, set[str]]) -> dict[str, tuple[Entity, ...]]:
        return {
            name: tuple(e for key in sorted(keys) if is_clean((e := self._entities[key]).surface))
            for name, keys in members.items()
        }

    @property
    def contexts(self) -> list[PoolContext]:
        """The pool of contexts, without doubles."""
        return self._contexts

    def same_things(self, answers: Iterable[str]) -> tuple[str, ...]:
        """The normal forms of some answers and of every alias that the corpus gives them."""
        forms = dict.fromkeys(normal_forms(answers))
        for form in tuple(forms):
            for key in self._keys_of_form.get(form, ()):
                forms.update(dict.fromkeys(self._entities[key].forms))
        return tuple(forms)

    def held_alias(self, text: str, answers: Iterable[str]) -> str | None:
        """The first normal form of `same_things(answers)` that stands in a text, or None."""
        passage = normal_passage(text)
        return next((f for f in self.same_things(answers) if f" {f} " in passage), None)

    def other_right_answers(self, example: QAExample) -> tuple[str, ...]:
        """Normal forms of what else the corpus gives as a right answer to an example's question.

        It is the same question if it asks for the same relation of the same subject, or if its
        normalised text is the same.
        """
        own = normalize_answer(example.answers[0]) if example.answers else ""
        keys = {key for asked in _asked(example) for key in self._facts.get(asked, ())} - {own}
        return tuple(form for key in sorted(keys) for form in self._entities[key].forms)


def _asked(example: QAExample) -> Iterator[Asked]:
    """What a question asks, in forms to compare: its text, and its subject and relation."""
    question = normal_passage(example.question)
    if not question.isspace():
        yield question, None
    if example.relation is not None and example.subject is not None:
        yield normalize_answer(example.subject), example.relation


def _add_context(contexts: dict[bytes, PoolContext], example: QAExample, limit: int) -> None:
    assert example.context is not None
    digest = hashlib.blake2b(example.context.encode(), digest_size=16).digest()
    entry = contexts.get(digest)
    if entry is None:
        entry = contexts[digest] = PoolContext(example.context, set(), set())
    if example.title is not None:
        entry.titles.add(example.title)
    if example.subject is not None:
        entry.subjects.add(example.subject)
    if len(contexts) > 2 * limit:
        for far in sorted(contexts)[limit:]:
            del contexts[far]


def _entity(
    key: str, canonical: collections.Counter[str], others: collections.Counter[str]
) -> Entity:
    names = sorted(canonical, key=lambda name: (-canonical[name], name))
    names += sorted(others.keys() - canonical.keys(), key=lambda name: (-others[name], name))
    names.sort(key=begins_with_preposition)  # "1041", not "in 1041"
    return Entity(tuple(names), tuple(dict.fromkeys((key, *normal_forms(names)))))
