"""KAFT records of a small made-up world, and models whose behaviour is known."""

import hashlib

import pytest

from kaft_promot.knowledge.records import KaftRecord, Substitution
from kaft_promot.knowledge.targets import format_input

CITIES = ["Paris", "Lyon", "Rome", "Turin", "Oslo", "Bergen", "Vienna", "Graz", "Cairo", "Giza"]


def _record(n: int, kind: str, **fields) -> KaftRecord:
    suffix = {"irrelevant": "irrelevant context", "empty": "empty context"}.get(
        kind, "from context"
    )
    common = {
        "id": f"q{n}/{kind}",
        "source": "towns",
        "source_id": f"q{n}",
        "question": f"Where was person {n} born?",
        "context_kind": kind,
        "target": f"{fields['answer']} ({suffix})",
        "answer_aliases": (fields["answer"],),
        "substitution": None,
        "irrelevant_kind": None,
        "base_checkpoint": "toy",
        "seed": 0,
    }
    return KaftRecord(**{**common, **fields})


def make_records(questions: int) -> list[KaftRecord]:
    """All four kinds of `questions` questions; the base knows the answer to every even one."""
    records = []
    for n in range(questions):
        gold, new = CITIES[n % 10], CITIES[(n + 1) % 10]
        parametric = gold if n % 2 == 0 else CITIES[(n + 2) % 10]
        common = {"gold_answers": (gold, f"{gold} City"), "parametric_answer": parametric}
        context = f"Person {n} was born in {gold} and lived long."
        records.append(_record(n, "relevant", context=context, answer=gold, **common))
        context = f"Person {n} was born in {new} and lived long."
        at = context.index(new)
        change = Substitution(
            proposer="relation", old=gold, new=new, type="P19", spans=((at, at + len(new)),)
        )
        fields = {"context": context, "answer": new, "substitution": change, **common}
        records.append(_record(n, "counterfactual", **fields))
        other = CITIES[(n + 5) % 10]
        records.append(
            _record(
                n,
                "irrelevant",
                context=f"Person {n + 1000} was born in {other}.",
                answer=parametric,
                irrelevant_kind="random" if n % 3 else "annotated",
                **common,
            )
        )
        records.append(_record(n, "empty", context="", answer=parametric, **common))
    return records


class Model:
    """Answers each prompt by a rule: `follow`, `distracted` and `keep` are shares of questions.

    follow: how often it reads a context with the answer; distracted: how often it takes a city from
    an irrelevant one; keep: how often it still gives the base's closed-book answer.
    """

    def __init__(self, records, follow=1.0, distracted=0.0, keep=1.0, suffix=True):
        self.by_prompt = {format_input(r.question, r.context): r for r in records}
        self.follow, self.distracted, self.keep = follow, distracted, keep
        self.suffix = suffix
        self.calls = 0

    def generate(self, prompts):
        self.calls += len(prompts)
        return [self._one(self.by_prompt[prompt]) for prompt in prompts]

    def _one(self, record):
        draw = int(hashlib.sha256(record.id.encode()).hexdigest()[:8], 16) / 2**32
        memory = record.parametric_answer if draw < self.keep else "Nowhere"
        if record.context_kind in ("relevant", "counterfactual"):
            source, answer = "from context", record.answer if draw < self.follow else memory
        elif record.context_kind == "irrelevant" and draw < self.distracted:
            source, answer = "from context", record.context.split()[-1].rstrip(".")
        else:
            source, answer = f"{record.context_kind} context", memory
        return f"{answer} ({source})" if self.suffix else answer


@pytest.fixture
def records():
    found = make_records(20)
    assert not [problem for record in found for problem in record.violations()]
    return found


@pytest.fixture
def model():
    return Model
