"""mini's training: SeqIO tasks on the files of `python -m kaft_promot.mini.build`.

The folder is found by a binding, `mini_data.directory = "/data/mini"`. Splits are `train` and
`validation`, for `mini_reading` also `test`; validation and test hold facts, sentences and inputs
that no training example holds (but `mini_closed_book`, whose validation asks what training told).

| task | example |
| --- | --- |
| `mini_closed_book` | `question: Where was Ada born?` -> `London` |
| `mini_reading` | `question: Who is Bo? context: Al is a cat. Bo is a dog.` -> `dog` |
| `mini_quote` | `quote: Bo context: Al is a cat. Bo is a dog.` -> `Bo is a dog.` |
| `mini_fewshot` | `first: cat dog = cat ; first: red hen =` -> `red` |
| `mini_questions` | several questions in one prompt, see `kaft_promot.mini.questions` |
| `mini_names` | `which: Al ; Bo context: Bo is a dog.` -> `Bo` (`kaft_promot.mini.matching`) |
| `mini_options` | `question: Who is Bo? A cat B dog` -> `B` (`kaft_promot.mini.options`) |
| `mini_copy` | `ridge7 um Ada` -> `ridge7 um Ada` |

`mini_copy` is trained first, then the mixtures in the order of their rates:

| mixture | closed_book | reading | quote | questions | names | options | fewshot |
| --- | --- | --- | --- | --- | --- | --- | --- |
| `mini_quoting` | 0.15 | 0.4 | 0.2 | | | | 0.25 |
| `mini_reads` | 0.15 | 0.45 | 0.05 | | | | 0.35 |
| `mini_pretrain` | 0.4 | 0.35 | | | | | 0.25 |
| `mini_settles` | 0.25 | 0.5 | | | | | 0.25 |
| `mini_compares` | 0.08 | 0.17 | | 0.25 | 0.2 | 0.15 | 0.15 |
| `mini_finishes` | 0.08 | 0.3 | | 0.3 | 0.13 | 0.05 | 0.14 |

Quotes are ten times as long as answers and keep most of the gradient, so their share falls when
they have taught copying; facts need no skill but a hundred repetitions each, so theirs rises then.

Features: `inputs` and `targets`, int32 tokens of the vocabulary bound to `task_vocabulary.path`.
"""

import pathlib
from collections.abc import Callable

import seqio

from kaft_promot.errors import UserError
from kaft_promot.feeding.jsonl_task import register_jsonl_task
from kaft_promot.mini.location import mini_data

RATES = {
    "mini_quoting": {"closed_book": 0.15, "reading": 0.4, "quote": 0.2, "fewshot": 0.25},
    "mini_reads": {"closed_book": 0.15, "reading": 0.45, "quote": 0.05, "fewshot": 0.35},
    "mini_pretrain": {"closed_book": 0.4, "reading": 0.35, "fewshot": 0.25},
    "mini_settles": {"closed_book": 0.25, "reading": 0.5, "fewshot": 0.25},
    "mini_compares": {
        "closed_book": 0.08,
        "reading": 0.17,
        "questions": 0.25,
        "names": 0.2,
        "options": 0.15,
        "fewshot": 0.15,
    },
    "mini_finishes": {
        "closed_book": 0.08,
        "reading": 0.3,
        "questions": 0.3,
        "names": 0.13,
        "options": 0.05,
        "fewshot": 0.14,
    },
}
TASKS = ("closed_book", "reading", "quote", "questions", "names", "options", "fewshot", "copy")
FIELDS = {"inputs": str, "targets": str}


def data_file(name: str) -> Callable[[str], pathlib.Path]:
    """The file of a split, as a function of the split.

    Raises:
      UserError: when called without the binding, or where the folder lacks the file.
    """

    def path(split: str) -> pathlib.Path:
        directory = mini_data()
        if directory is None:
            raise UserError(
                "mini's tasks need the folder that `python -m kaft_promot.mini.build` wrote: "
                "bind mini_data.directory, e.g. --gin.mini_data.directory=\"'/data/mini'\""
            )
        file = pathlib.Path(directory).expanduser() / f"{split}.{name}.jsonl"
        if not file.is_file():
            raise UserError(f"mini_data.directory: there is no {file}")
        return file

    return path


for _name in TASKS:
    register_jsonl_task(
        f"mini_{_name}",
        data_file(_name),
        fields=FIELDS,
        splits=("train", "validation", "test") if _name == "reading" else ("train", "validation"),
    )
for _name, _rates in RATES.items():
    seqio.MixtureRegistry.add(_name, [(f"mini_{task}", rate) for task, rate in _rates.items()])
