"""mini's in-context tasks: a few solved examples in the prompt, then one to solve.

`mini_{task}_{k}shot` for every task below and k = 0, 1, 2, 4, for example `mini_first_2shot`:

    inputs:  first: cat dog sun = cat ; first: red hen = red ; first: bus tea =
    targets: bus

They are made by SeqIO's own few-shot source (`seqio.experimental.FewshotDataSource` and
`fewshot_preprocessor`), from items made in code, so that they need no files. They are for
evaluation: the splits are `validation`, to choose settings on, and `test`. Their queries are held
out from mini's training (`kaft_promot.mini.fewshot`), their shots are items of the kind that mini
was trained on. The same query stands at the same place for every k, each with shots of its own, of
which fewer shots are the first ones. Queries are drawn one by one; where a task has few held-out
inputs one may come twice, with other shots, and then under the same `source_id`. So the splits
overlap: of the first 50 test queries the first 50 of validation ask 23 of `claim`, 18 of `same`, 10
of `twice`, 8 of `next`, 5 of `upper`, 3 of `larger`, 1 of `kind` and none of the other tasks.

| task | output format | example |
| --- | --- | --- |
| `first` | word | `first: cat dog sun` -> `cat` |
| `last` | word | `last: cat dog sun` -> `sun` |
| `lookup` | word | `lookup: cat red , dog tea find dog` -> `tea` |
| `odd` | word | `odd: cat red dog` -> `red` |
| `twice` | words | `twice: cat dog` -> `cat dog cat dog` |
| `reverse` | words | `reverse: cat dog sun` -> `sun dog cat` |
| `rest` | words | `rest: cat dog sun` -> `dog sun` |
| `same` | yes_no | `same: cat cat` -> `yes` |
| `contains` | true_false | `contains: cat dog has sun` -> `False` |
| `claim` | true_false | `claim: cat is animal` -> `True` |
| `count` | number | `count: cat dog sun` -> `3` |
| `larger` | number | `larger: 31 17` -> `31` |
| `next` | letters | `next: a y` -> `b z` |
| `upper` | letters | `upper: a y` -> `A Y` |
| `choice` | a_b | `choice: cat A cat B dog` -> `A` |
| `kind` | a_b | `kind: animal A red B cat` -> `B` |

Features: `inputs` and `targets`, int32 tokens of the vocabulary bound to `task_vocabulary.path`;
`id` (`first/17`) and `source_id` (the query's text), str. Metric: exact match of the stripped text,
without normalisation, which would delete the label "A" as an article.
"""

import contextlib
import functools
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import seqio
import tensorflow as tf
from absl import logging

from kaft_promot.evaluation.task_metrics import strict_exact_match
from kaft_promot.feeding.jsonl_task import TOKENIZE
from kaft_promot.feeding.seqio_door import output_features
from kaft_promot.feeding.text_task import TextSource
from kaft_promot.mini.fewshot import (
    INPUTS_PREFIX,
    MAX_SHOTS,
    QUERY_SPLITS,
    SEPARATOR,
    SHOTS,
    TARGETS_PREFIX,
    TASKS,
    FewshotTask,
    draw_item,
)

QUERIES = 400  # of every task in every split
SEED = 0


def query(task: FewshotTask, number: int) -> dict[str, str]:
    """The query of that number, with `inputs`, `targets`, `id` and `source_id`."""
    rng = random.Random(f"{SEED} {task.name} query {number}")
    text, target = draw_item(task, "validation", rng)
    return {"inputs": text, "targets": target, "id": f"{task.name}/{number}", "source_id": text}


def shots(task: FewshotTask, number: int) -> dict[str, list[str]]:
    """The `MAX_SHOTS` different training items that are shown before query `number`.

    No query is among them: what is asked, training never holds.
    """
    rng = random.Random(f"{SEED} {task.name} shots {number}")
    shown: dict[str, str] = {}
    while len(shown) < MAX_SHOTS:
        text, target = draw_item(task, "train", rng)
        shown[text] = target
    return {"inputs": list(shown), "targets": list(shown.values())}


@functools.cache
def items(task: FewshotTask, part: str) -> tuple[dict[str, Any], ...]:
    """What the few-shot source reads: a split's queries, or as `SPLIT_shots` the shots of each."""
    split, _, shown = part.partition("_")
    first = QUERY_SPLITS.index(split) * QUERIES
    make = shots if shown else query
    return tuple(make(task, first + i) for i in range(QUERIES))


def first_shots(dataset: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """The first `count` of the shots of each query, one after the other."""
    return dataset.map(lambda shown: {name: shown[name][:count] for name in shown}).unbatch()


def item_source(task: FewshotTask) -> TextSource:
    """Queries and shots of a task, as the pairs of splits from which few-shot prompts are made."""
    return TextSource(
        functools.partial(items, task),
        splits=[f"{split}{part}" for split in QUERY_SPLITS for part in ("", "_shots")],
        decided_by=lambda split: hashlib.sha256(repr(items(task, split)).encode()).hexdigest(),
    )


@contextlib.contextmanager
def _no_warning_of_no_shots(count: int) -> Iterator[None]:
    """SeqIO warns each time that a prompt of 0 shots has no shots."""
    before = logging.get_verbosity()
    if not count:
        logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


class HeldOutQueries(seqio.DataSource):
    """SeqIO's few-shot source for every split of the queries, each with shots of its own.

    Args:
      items: where queries and shots come from.
      num_shots: how many shots a prompt has.
    """

    def __init__(self, items: TextSource, num_shots: int):
        super().__init__(splits=QUERY_SPLITS)
        self._items, self._shown = items, num_shots
        self._of = {
            split: seqio.experimental.FewshotDataSource(
                items,
                num_shots,
                train_preprocessors=(functools.partial(first_shots, count=num_shots),),
                train_split=f"{split}_shots",
                # SeqIO shuffles shots even where the caller does not; here each query has its own.
                shuffle_buffer_size=1,
            )
            for split in QUERY_SPLITS
        }

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        return self._of[split].list_shards(split)

    def get_dataset(self, split: str = "validation", *args: Any, **kwargs: Any) -> tf.data.Dataset:
        with _no_warning_of_no_shots(self._shown):
            return self._of[split].get_dataset(split, *args, **kwargs)

    def num_input_examples(self, split: str) -> int:
        return QUERIES

    def fingerprint(self, split: str) -> str:
        """What decides the prompts: the key under which their tokens are kept."""
        parts = [self._items.fingerprint(name) for name in (f"{split}_shots", split)]
        return "/".join([str(self._shown), *parts])


for _task in TASKS.values():
    for _shots in SHOTS:
        seqio.TaskRegistry.add(
            f"mini_{_task.name}_{_shots}shot",
            source=HeldOutQueries(item_source(_task), _shots),
            preprocessors=[
                functools.partial(
                    seqio.experimental.fewshot_preprocessor,
                    inputs_prefix=INPUTS_PREFIX,
                    targets_prefix=TARGETS_PREFIX,
                    example_separator=SEPARATOR,
                ),
                *TOKENIZE,
            ],
            output_features=output_features(),
            metric_fns=[strict_exact_match],
        )
