"""mini's in-context tasks as evaluation examples, read from their SeqIO tasks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gin

from kaft_promot.errors import UserError
from kaft_promot.evaluation.suites import EvalExample, EvalTask
from kaft_promot.mini.fewshot import QUERY_SPLITS, SHOTS, TASKS

Examples = Mapping[str, Sequence[EvalExample]]  # name of the SeqIO task -> its examples


def tasks() -> tuple[EvalTask, ...]:
    """An evaluation task for every in-context task and number of shots; each takes `Examples`."""
    return tuple(
        EvalTask(
            name=name,
            examples=functools.partial(_examples_of, name),
            read=lambda output: {"answer": output.strip()},
            # Exactly: normalisation would delete the label "A" as an article.
            score=lambda row: {"exact_match": float(row["answer"] == row["target"])},
        )
        for name in (seqio_name(task, shots) for shots in SHOTS for task in TASKS)
    )


def seqio_name(task: str, shots: int) -> str:
    """The SeqIO task of an in-context task with so many shots."""
    return f"mini_{task}_{shots}shot"


@gin.configurable(module="kaft_promot.evaluation")
def in_context_suite(
    *, shots: Sequence[int] = (2,), queries: int = 100, split: str = "validation"
) -> Examples:
    """What the suite asks. Needs TensorFlow, for the SeqIO tasks.

    Args:
      shots: how many solved examples the prompts have; several give as many tasks, with the same
        queries.
      queries: of each task, the first ones of the split.
      split: `validation`, to choose settings on, or `test`: other queries.

    Raises:
      UserError: tasks of so many shots, with so many queries or with such a split do not exist.
    """
    unknown = [k for k in shots if k not in SHOTS]
    if unknown or not shots:
        raise UserError(
            f"in_context_suite.shots = {tuple(shots)}: mini's in-context tasks have "
            f"{', '.join(map(str, SHOTS))} shots"
        )
    if queries < 1:
        raise UserError(f"in_context_suite.queries = {queries}: at least 1")
    if split not in QUERY_SPLITS:
        raise UserError(f"in_context_suite.split = {split!r}: choose {' or '.join(QUERY_SPLITS)}")
    return {
        seqio_name(task, k): _read(task, k, queries, split)
        for k in dict.fromkeys(shots)
        for task in TASKS
    }


def load(data: Mapping[str, Any] | None) -> Examples:
    """What the suite asks; `data` are arguments of `in_context_suite` (None: as gin binds them)."""
    return in_context_suite(**(data or {}))


def _examples_of(name: str, loaded: Examples) -> Sequence[EvalExample]:
    return loaded.get(name, ())


@functools.cache  # evaluations during a training ask the same again and again
def _read(task: str, shots: int, queries: int, split: str) -> tuple[EvalExample, ...]:
    from kaft_promot.feeding import DatasetConfig, eval_examples

    config = DatasetConfig(
        mixture_or_task_name=seqio_name(task, shots),
        task_feature_lengths={"inputs": 512, "targets": 64},  # of tokens, which nobody reads here
        split=split,
        batch_size=1,
    )
    found = eval_examples(config, max_examples=queries)
    if len(found) < queries:
        raise UserError(
            f"in_context_suite.queries = {queries}: mini's in-context tasks have {len(found)} each"
        )
    return tuple(_convert(task, shots, found))


def _convert(task: str, shots: int, found: Sequence[Mapping[str, Any]]) -> Iterator[EvalExample]:
    for example in found:
        yield EvalExample(
            example_id=f"{seqio_name(task, shots)}:{example['id']}",
            question_id=f"mini_in_context:{example['source_id']}",
            prompt=example["inputs_pretokenized"],
            fields={
                "in_context_task": task,
                "shots": shots,
                "output_format": TASKS[task].output,
                "target": example["targets_pretokenized"],
            },
        )
