"""RTE, CB and WiC of SuperGLUE (Wang et al., NeurIPS 2019), in ProMoT's templates.

The folder is found by a binding, `superglue_data.directory = "/data/superglue"`; below it stand
SuperGLUE's own folders and JSON lines, plain or gzip: `RTE/train.jsonl`, `RTE/val.jsonl`, ...

A split is its file: `train.jsonl`, `val.jsonl` (for `validation`), `test.jsonl`. Of what the folder
has no file, a tenth of `train.jsonl` is cut off by a hash of the example's premise (RTE, CB) or word
(WiC), so that `validation` and `test` ask about premises and words that `train` does not have.
SuperGLUE's published test files have no labels and cannot be used.

| task | inputs | targets |
| --- | --- | --- |
| `rte` | `PREMISE question: HYPOTHESIS Is it true or false? answer:` | `True`, `False` |
| `cb` | `PREMISE question: HYPOTHESIS Is it true or false or neither? answer:` | `True`, `False`, `Neither` |
| `wic` | `SENTENCE1 SENTENCE2 question: The word WORD is used in the same way in the two sentences. Is it true or False? answer:` | `True`, `False` |

The templates are those of Wang et al. (ICLR 2024, arXiv 2211.00635), as written there. Each task is
defined by the function that is called like it, whose docstring shows an example. Features:
`inputs` and `targets`, int32 tokens of the vocabulary bound to `task_vocabulary.path`; `id`
(`rte/17`) and `source_id` (the same), str. Metric: accuracy. Format: the output is one of the
labels.
"""  # noqa: E501

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from kaft_promot.errors import UserError
from kaft_promot.evaluation.output_share import one_of, register_format
from kaft_promot.evaluation.outputs import clean_output
from kaft_promot.evaluation.task_metrics import accuracy
from kaft_promot.feeding.fingerprint import file_fingerprint
from kaft_promot.feeding.jsonl_task import read_rows
from kaft_promot.feeding.location import bound_folder, superglue_data
from kaft_promot.feeding.text_task import register_text_task
from kaft_promot.knowledge.randomness import tenth

Row = Mapping[str, Any]

# split -> SuperGLUE's name of its file
FILES = {"train": "train", "validation": "val", "test": "test"}
# split -> which tenth of `train` it is where it has no file
TENTHS = {"validation": 0, "test": 1}
# Examples whose value of this field is equal stay together. WiC gives a word several examples: cut
# by example, most held-out ones would ask about a word of `train`.
GROUP_FIELDS = {"rte": "premise", "cb": "premise", "wic": "word"}
LABELS: Mapping[str, Mapping[Any, str]] = {
    "rte": {"entailment": "True", "not_entailment": "False"},
    "cb": {"entailment": "True", "contradiction": "False", "neutral": "Neither"},
    "wic": {True: "True", False: "False"},
}


def rte(row: Row) -> str:
    """Does the premise entail the hypothesis?

    Input: `No weapons were found. question: Weapons were found. Is it true or false? answer:`
    Target: `False`
    """
    return f"{row['premise']} question: {row['hypothesis']} Is it true or false? answer:"


def cb(row: Row) -> str:
    """Does the speaker hold the hypothesis to be true, false, or neither?

    Input: `I think it rains. question: it rains Is it true or false or neither? answer:`
    Target: `True`
    """
    return f"{row['premise']} question: {row['hypothesis']} Is it true or false or neither? answer:"


def wic(row: Row) -> str:
    """Has the word the same sense in both sentences?

    Input: `A bed of roses. Go to bed. question: The word bed is used in the same way in the two
    sentences. Is it true or False? answer:`
    Target: `False`
    """
    return (
        f"{row['sentence1']} {row['sentence2']} question: The word {row['word']} is used in the "
        "same way in the two sentences. Is it true or False? answer:"
    )


TASKS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "rte": ("RTE", rte),
    "cb": ("CB", cb),
    "wic": ("WiC", wic),
}


def split_file(task: str, split: str) -> pathlib.Path | None:
    """The file of a split, or None if the folder has none.

    Raises:
      UserError: no folder is bound, or it has no folder for this task.
    """
    binding = "superglue_data.directory"
    folder = bound_folder(binding, superglue_data(), "SuperGLUE's RTE, CB and WiC")
    folder /= TASKS[task][0]
    if not folder.is_dir():
        raise UserError(f"{binding}: there is no folder {folder}")
    for ending in (".jsonl", ".jsonl.gz"):
        if (folder / (FILES[split] + ending)).is_file():
            return folder / (FILES[split] + ending)
    return None


def read_from(task: str, split: str) -> tuple[pathlib.Path, dict[str, int]]:
    """The file that holds a split, and which tenths of it are other splits (or this one).

    Raises:
      UserError: see `split_file`; or there is no file for this split and none to cut it from.
    """
    own, train = split_file(task, split), split_file(task, "train")
    if own is not None and split != "train":
        return own, {}
    if train is None:
        folder = pathlib.Path(superglue_data() or "") / TASKS[task][0]
        raise UserError(f"superglue_data.directory: {folder} has no train.jsonl")
    return train, {name: t for name, t in TENTHS.items() if split_file(task, name) is None}


def examples(task: str, split: str) -> list[dict[str, str]]:
    """The examples of a split.

    Raises:
      UserError: see `read_from`; a line that lacks a field, or has a label that the task does not
        know (with file and line).
    """
    path, cut = read_from(task, split)
    split_of = {number: name for name, number in cut.items()}

    def select(row: Row) -> dict[str, str] | None:
        example_id = f"{task}/{row['idx']}"
        group = row[GROUP_FIELDS[task]]
        if not isinstance(group, str):
            raise UserError(f"field {GROUP_FIELDS[task]!r} is {group!r}, which is no text")
        if cut and split_of.get(tenth(group), "train") != split:
            return None
        if "label" not in row:
            raise UserError(
                "the line has no label, like all of SuperGLUE's published test files; without "
                "the file, a part of the training file takes its place"
            )
        target = LABELS[task].get(row["label"])
        if target is None:
            known = ", ".join(str(label) for label in LABELS[task])
            raise UserError(f"label {row['label']!r} of task {task!r} is none of {known}")
        inputs = TASKS[task][1](row)
        return {"inputs": inputs, "targets": target, "id": example_id, "source_id": example_id}

    return [dict(row) for _, row in read_rows(path, select)]


def _decided_by(task: str, split: str) -> Any:
    path, cut = read_from(task, split)
    return [file_fingerprint(str(path)), cut, GROUP_FIELDS[task]]


def _postprocess(output: str, **unused: Any) -> str:
    return clean_output(output, "question:")


for _task, _labels in LABELS.items():
    register_text_task(
        _task,
        functools.partial(examples, _task),
        decided_by=functools.partial(_decided_by, _task),
        postprocess_fn=_postprocess,
        metric_fns=[accuracy],
    )
    register_format(_task, one_of(*_labels.values()))
