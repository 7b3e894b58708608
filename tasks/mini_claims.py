"""`mini_claims`, `mini_claims_typed`: is a claim about one of mini's remembered facts true?

Target tasks for fine-tuning: mini remembers the facts, but was never asked in this form. Their
format is the one of RTE's template (Wang et al., ICLR 2024, arXiv 2211.00635). Each fact gives two
examples:

| id | inputs | targets |
| --- | --- | --- |
| `FACT/true` | `question: Where was Ada born? London. Is it true or false? answer:` | `True` |
| `FACT/false` | `question: Where was Ada born? Rome. Is it true or false? answer:` | `False` |

In `mini_claims` the object of a false claim is another fact's object of the same relation, each as
likely as it is frequent, so that only who remembers the fact can tell. In `mini_claims_typed` it is
an object of another type (`jazz`), so that who knows what kind of thing answers can tell, too. It
depends on the fact and nothing else. Splits: `train`, `validation` and `test` are the facts that
mini remembers and that are in its splits `remembered_train`, `remembered_validation` and
`remembered_test`.

The facts are the shipped ones, or those of a file: `mini_claims_data.facts = "facts.jsonl.gz"`, as
`python -m kaft_promot.mini.build` writes it. Features: `inputs` and `targets`, int32 tokens of the
vocabulary bound to `task_vocabulary.path`; `id`, `source_id` (the fact's id) and `relation`, str.
"""

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from kaft_promot.evaluation.output_share import one_of, register_format
from kaft_promot.evaluation.task_metrics import accuracy
from kaft_promot.feeding.fingerprint import file_fingerprint
from kaft_promot.feeding.text_task import FIELDS, register_text_task
from kaft_promot.knowledge.randomness import KeyedDraws
from kaft_promot.knowledge.relations import RELATIONS
from kaft_promot.knowledge.targets import format_input
from kaft_promot.knowledge.text import equal_or_nested, normalize_answer
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.location import mini_claims_data

SEED = 0
QUESTION = "Is it true or false? answer:"
SPLITS = {
    "train": facts_lib.REMEMBERED_TRAIN,
    "validation": facts_lib.REMEMBERED_VALIDATION,
    "test": facts_lib.REMEMBERED_TEST,
}


def claims(
    facts: Sequence[facts_lib.Fact], split: str, typed: bool = False
) -> list[dict[str, str]]:
    """A true and a false claim about every fact of a split, as examples.

    A fact is left out where no other object is known.

    Args:
      facts: facts of all splits; the remembered ones are where false objects come from.
      split: `train`, `validation` or `test`.
      typed: whether false objects are of another type, or of the same relation.
    """
    objects: dict[str, list[str]] = collections.defaultdict(list)
    for fact in facts:
        if fact.split not in facts_lib.REMEMBERED:
            continue
        if not typed:
            objects[fact.relation].append(fact.answer)
            continue
        own = RELATIONS[fact.relation].answer_type
        for relation in RELATIONS.values():
            if relation.answer_type != own:
                objects[relation.id].append(fact.answer)
    found, alone = [], 0
    for fact in facts:
        if fact.split != SPLITS[split]:
            continue
        other = false_object(fact, objects[fact.relation])
        if other is None:
            alone += 1
            continue
        for name, true_or_false in ((fact.answer, "True"), (other, "False")):
            found.append(
                {
                    "inputs": f"{format_input(fact.question())} {name}. {QUESTION}",
                    "targets": true_or_false,
                    "id": f"{fact.id}/{true_or_false.lower()}",
                    "source_id": fact.id,
                    "relation": fact.relation,
                }
            )
    if alone:
        logging.warning("claims: %d facts left out, for which no other object is known", alone)
    return found


def false_object(fact: facts_lib.Fact, objects: Sequence[str]) -> str | None:
    """One of `objects` that is not the fact's, nor a part of it ("York" of "New York"); or None.

    The draw is keyed by the fact's id (wall 7 of the design).
    """
    answer = normalize_answer(fact.answer)
    draws = KeyedDraws(SEED, fact.id, "false claim")
    for place in draws.distinct_below(len(objects), len(objects)):
        if not equal_or_nested(normalize_answer(objects[place]), answer):
            return objects[place]
    return None


def _examples(split: str, typed: bool) -> Sequence[Mapping[str, str]]:
    """The examples of a split, from the facts that are bound.

    Raises:
      UserError: the bound file is missing, or a line of it is no fact.
    """
    return claims(facts_lib.load_facts(mini_claims_data()), split, typed)


def _decided_by(split: str) -> Any:
    return [SEED, file_fingerprint(str(mini_claims_data() or facts_lib.SHIPPED))]


for _name, _typed in (("mini_claims", False), ("mini_claims_typed", True)):
    register_text_task(
        _name,
        functools.partial(_examples, typed=_typed),
        decided_by=_decided_by,
        splits=tuple(SPLITS),
        fields=(*FIELDS, "relation"),
        metric_fns=[accuracy],
    )
    register_format(_name, one_of("True", "False"))
