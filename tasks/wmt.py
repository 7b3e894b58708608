"""WMT's translation from English, in ProMoT's template.

The folder is found by a binding, `wmt_data.directory = "/data/wmt"`. It holds pairs of line-aligned
files, plain or gzip, of which the tasks find those that are called

| files | example |
| --- | --- |
| `newstestYEAR.en-XX.{eng,XXX}` | `newstest2013.en-fr.eng.gz`, `newstest2013.en-fr.fra.gz` |
| `extra_en_XX/NAME.{eng,XXX}` | `extra_en_ro/tatoeba-test-v2021-08-07.ron.gz` |
| `flores101/devtest.XXX.devtest` | `flores101/devtest.deu.devtest.gz` |

| task | inputs | targets |
| --- | --- | --- |
| `wmt_en_fr` | `Translate English to French: The cat sleeps.` | `Le chat dort.` |
| `wmt_en_de` | `Translate English to German: The cat sleeps.` | `Die Katze schläft.` |
| `wmt_en_ro` | `Translate English to Romanian: The cat sleeps.` | `Pisica doarme.` |

Splits: where there are newstests of three years or more, `test` is the last year, `validation` the
one before, `train` all others. Otherwise a tenth each of all lines of newstests and `extra` files
are `validation` and `test`, cut off by a hash of the English sentence, so that no sentence is in
two splits. `flores` is FLORES-101's devtest (Goyal et al., TACL 2022), for the three languages
alike; in no other split.

The template is that of Wang et al. (ICLR 2024, arXiv 2211.00635). Features: `inputs` and `targets`,
int32 tokens of the vocabulary bound to `task_vocabulary.path`; `id` (`newstest2013.en-fr:17`, the
line) and `source_id` (the English sentence), str. Metric: BLEU. Format: the output is written in
the target language (`kaft_promot.evaluation.language.written_in`).
"""

import functools
import pathlib
from typing import Any

from absl import logging

from kaft_promot.errors import UserError
from kaft_promot.evaluation.language import written_in
from kaft_promot.evaluation.output_share import register_format
from kaft_promot.evaluation.outputs import clean_output
from kaft_promot.evaluation.task_metrics import bleu
from kaft_promot.feeding.fingerprint import file_fingerprint
from kaft_promot.feeding.location import bound_folder, wmt_data
from kaft_promot.feeding.text_task import register_text_task
from kaft_promot.knowledge.files import read_lines
from kaft_promot.knowledge.randomness import tenth

SPLITS = ("train", "validation", "test", "flores")
TENTHS = {0: "validation", 1: "test"}  # of what is cut by hash; the others are `train`
# code -> the language's name, and its code in file names
LANGUAGES = {"fr": ("French", "fra"), "de": ("German", "deu"), "ro": ("Romanian", "ron")}
Pair = tuple[str, pathlib.Path, pathlib.Path]  # (name of the text, English file, other file)


def prefix(language: str) -> str:
    """What every input begins with: `Translate English to French:`."""
    return f"Translate English to {LANGUAGES[language][0]}:"


def pairs(language: str, split: str) -> tuple[list[Pair], bool]:
    """The files of a split, and whether they are to be cut by hash.

    Raises:
      UserError: no folder is bound, or it has no files for the language.
    """
    folder = bound_folder("wmt_data.directory", wmt_data(), "line-aligned translations")
    other = LANGUAGES[language][1]
    if split == "flores":
        found = _pairs(folder, "flores101/devtest.", other, ".devtest")
    else:
        news = _pairs(folder, f"newstest*.en-{language}.", other)
        if len(news) >= 3:
            parts = {"train": news[:-2], "validation": news[-2:-1], "test": news[-1:]}
            return parts[split], False
        found = news + _pairs(folder, f"extra_en_{language}/*.", other)
    if not found:
        names = "flores101/devtest" if split == "flores" else f"newstest or extra_en_{language}"
        raise UserError(
            f"wmt_data.directory: {folder} has no {names} files of English and {other} for the "
            f"split {split!r}"
        )
    return found, split != "flores"


def _pairs(folder: pathlib.Path, start: str, other: str, end: str = "") -> list[Pair]:
    """Pairs of files `START eng END` and `START other END`, in the order of their names."""
    found: dict[str, Pair] = {}
    for packed in ("", ".gz"):
        for english in sorted(folder.glob(f"{start}eng{end}{packed}")):
            stem = english.name.removesuffix(f"eng{end}{packed}")
            there = [english.parent / f"{stem}{other}{end}{p}" for p in ("", ".gz")]
            there = [path for path in there if path.is_file()]
            if not there:
                raise UserError(f"{english}: there is no {stem}{other}{end} beside it")
            found.setdefault(stem, (stem.rstrip("."), english, there[0]))
    return [found[stem] for stem in sorted(found)]


def examples(language: str, split: str) -> list[dict[str, str]]:
    """The examples of a split; lines that are blank on one side are left out.

    Raises:
      UserError: see `pairs`; two files that differ in their number of lines; text that is no UTF-8.
    """
    found = []
    chosen, by_hash = pairs(language, split)
    for name, english_path, other_path in chosen:
        english, other = _lines(english_path), _lines(other_path)
        if max(english, default=0) != max(other, default=0):
            raise UserError(
                f"{english_path} ends in line {max(english, default=0)}, {other_path.name} in line "
                f"{max(other, default=0)}: they are not line-aligned"
            )
        blank = english.keys() ^ other.keys()
        if blank:
            logging.warning("%s: %d lines are blank on one side: left out", name, len(blank))
        for number in sorted(english.keys() & other.keys()):
            sentence = english[number]
            if by_hash and TENTHS.get(tenth(sentence), "train") != split:
                continue
            found.append(
                {
                    "inputs": f"{prefix(language)} {sentence}",
                    "targets": other[number],
                    "id": f"{name}:{number}",
                    "source_id": sentence,
                }
            )
    return found


def _lines(path: pathlib.Path) -> dict[int, str]:
    """Line number (from 1) -> its text, of the lines that are not blank."""
    lines = {}
    for number, line in read_lines(path):
        try:
            lines[number] = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not valid UTF-8: {error.reason}") from error
    return lines


def _decided_by(language: str, split: str) -> Any:
    chosen, by_hash = pairs(language, split)
    return [[file_fingerprint(str(path)) for _, *both in chosen for path in both], by_hash]


def _postprocess(output: str, *, language: str, **unused: Any) -> str:
    return clean_output(output, prefix(language))


for _language in LANGUAGES:
    register_text_task(
        f"wmt_en_{_language}",
        functools.partial(examples, _language),
        decided_by=functools.partial(_decided_by, _language),
        splits=SPLITS,
        postprocess_fn=functools.partial(_postprocess, language=_language),
        metric_fns=[bleu],
    )
    register_format(f"wmt_en_{_language}", written_in(_language))
