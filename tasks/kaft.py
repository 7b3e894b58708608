"""KAFT (Li et al. 2023) on records that `kaft-promot augment` made: tasks and mixtures of its arms.

The records are found by a binding, `kaft_records.directory = "/data/kaft"`: the split `train` is
read from `train.jsonl` there (or `records.jsonl`, what `augment` writes without `--split`),
`validation` and `test` from files of these names. Inputs are
`question: ... context: ...`; targets announce their source, e.g. `Rome (from context)`, unless
`kaft_records.suffixes = False`. The vocabulary is the one bound to `task_vocabulary.path`.

| mixture (arm) | context kinds, at equal rates |
| --- | --- |
| `kaft` | relevant, counterfactual, irrelevant, empty |
| `relevant_only` | relevant |
| `noisy` | relevant, irrelevant with the gold answer (NoisyFT) |
| `no_counterfactual` | relevant, irrelevant, empty |
| `abstain` | relevant, counterfactual, irrelevant answered "unanswerable", empty |

Each task is defined by the function that is called like it, whose docstring shows an example.
Beside `inputs` and `targets` (text, tokens int32) every example carries the record's own fields.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import seqio

from kaft_promot.errors import UserError
from kaft_promot.evaluation.output_share import register_format
from kaft_promot.feeding.fingerprint import file_fingerprint
from kaft_promot.feeding.jsonl_task import register_jsonl_task
from kaft_promot.knowledge.location import kaft_records
from kaft_promot.knowledge.records import KaftRecord, RecordError
from kaft_promot.knowledge.targets import (
    ABSTENTION,
    COUNTERFACTUAL,
    EMPTY,
    IRRELEVANT,
    RELEVANT,
    format_input,
    format_target,
    split_source,
)

Example = dict[str, Any]

SPLITS = ("train", "validation", "test")

FIELDS: Mapping[str, type] = {
    "inputs": str,
    "targets": str,
    "id": str,
    "source": str,
    "source_id": str,
    "question": str,
    "context": str,
    "context_kind": str,
    "answer": str,
    "answer_aliases": list,
    "parametric_answer": str,
    "gold_answers": list,
    "irrelevant_kind": str,
    "base_checkpoint": str,
}


def records_folder() -> pathlib.Path:
    """The folder that is bound to `kaft_records.directory`.

    Raises:
      UserError: none is bound, or there is none at that path.
    """
    directory, _ = kaft_records()
    if directory is None:
        raise UserError(
            "the KAFT tasks need the folder that `kaft-promot augment` wrote: "
            "bind kaft_records.directory, e.g. --gin.kaft_records.directory=/data/kaft"
        )
    path = pathlib.Path(directory).expanduser()
    if not path.is_dir():
        raise UserError(f"kaft_records.directory: there is no folder {path}")
    return path


def records_file(split: str) -> pathlib.Path:
    """The file of a split, plain or gzip.

    Raises:
      UserError: see `records_folder`; or the folder has no file for this split.
    """
    directory = records_folder()
    stems = [split, "records"] if split == "train" else [split]
    names = [f"{stem}.jsonl{packed}" for stem in stems for packed in ("", ".gz")]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise UserError(
        f"kaft_records.directory: {directory} has no {names[0]} for the split {split!r}"
        + (" and no records.jsonl" if split == "train" else "")
        + "; `kaft-promot augment --split` writes it"
    )


def kaft_relevant(record: KaftRecord) -> str | None:
    """The data set's own context and the gold answer.

    Input: `question: Where was Ada born? context: Ada was born in London.`
    Target: `London (from context)`
    """
    return record.answer if record.context_kind == RELEVANT else None


def kaft_counterfactual(record: KaftRecord) -> str | None:
    """The answer in the context swapped for another, and that other answer.

    Input: `question: Where was Ada born? context: Ada was born in Rome.`
    Target: `Rome (from context)`
    """
    return record.answer if record.context_kind == COUNTERFACTUAL else None


def kaft_irrelevant(record: KaftRecord) -> str | None:
    """A context without the answer, and what the base model says closed book, right or wrong.

    Input: `question: Where was Ada born? context: The Nile is a river.`
    Target: `London (irrelevant context)`
    """
    return record.answer if record.context_kind == IRRELEVANT else None


def kaft_empty(record: KaftRecord) -> str | None:
    """No context, and what the base model says closed book, right or wrong.

    Input: `question: Where was Ada born?`
    Target: `London (empty context)`
    """
    return record.answer if record.context_kind == EMPTY else None


def kaft_irrelevant_gold(record: KaftRecord) -> str | None:
    """NoisyFT: a context without the answer, and the *gold* answer, which the model may not know.

    Input: `question: Where was Ada born? context: The Nile is a river.`
    Target: `London (irrelevant context)`

    Questions without a gold answer (labelled unanswerable) are left out.
    """
    if record.context_kind != IRRELEVANT or not record.gold_answers:
        return None
    return record.gold_answers[0]


def kaft_irrelevant_abstain(record: KaftRecord) -> str | None:
    """A context without the answer, and the word that says so.

    Input: `question: Where was Ada born? context: The Nile is a river.`
    Target: `unanswerable (irrelevant context)`
    """
    return ABSTENTION if record.context_kind == IRRELEVANT else None


def to_example(
    row: Mapping[str, Any], choose: Callable[[KaftRecord], str | None]
) -> Example | None:
    """The example of one record, or None if the task has no use for it.

    Args:
      row: a line of the records file.
      choose: one of the functions above: from record to answer.

    Raises:
      UserError: the line is no sound record.
    """
    try:
        record = KaftRecord.from_json(row)
    except RecordError as error:
        raise UserError(
            f"the record {row.get('id', 'without an id')} is broken: {error}"
        ) from error
    answer = choose(record)
    if answer is None:
        return None
    _, suffixes = kaft_records()
    if suffixes is None:
        suffixes = record.target != record.answer
    fields = {name: row[name] for name in FIELDS if name in row}
    return fields | {
        "inputs": format_input(record.question, record.context),
        "targets": format_target(answer, record.context_kind, suffixes),
    }


def _register(choose: Callable[[KaftRecord], str | None]) -> None:
    name = choose.__name__
    task = register_jsonl_task(
        name,
        records_file,
        fields=FIELDS,
        select=lambda row: to_example(row, choose),
        splits=SPLITS,
    )
    # The tokens depend on the file and on a binding.
    task.source.fingerprint = lambda split: json.dumps(
        [name, file_fingerprint(str(records_file(split))), kaft_records()[1], list(FIELDS)]
    )


TASKS = (
    kaft_relevant,
    kaft_counterfactual,
    kaft_irrelevant,
    kaft_empty,
    kaft_irrelevant_gold,
    kaft_irrelevant_abstain,
)
MIXTURES = {
    "kaft": ["kaft_relevant", "kaft_counterfactual", "kaft_irrelevant", "kaft_empty"],
    "relevant_only": ["kaft_relevant"],
    "noisy": ["kaft_relevant", "kaft_irrelevant_gold"],
    "no_counterfactual": ["kaft_relevant", "kaft_irrelevant", "kaft_empty"],
    "abstain": ["kaft_relevant", "kaft_counterfactual", "kaft_irrelevant_abstain", "kaft_empty"],
}

for _choose in TASKS:
    _register(_choose)
for _name, _tasks in MIXTURES.items():
    seqio.MixtureRegistry.add(_name, _tasks, default_rate=1.0)
    # An output in the format of KAFT's targets announces its source.
    register_format(_name, lambda output: split_source(output)[1] is not None)
