"""From examples to KAFT records of the four context kinds (Li et al. 2023; METHODS section 1).

| context kind | context | target |
| --- | --- | --- |
| relevant | the data set's own | gold answer |
| counterfactual | the same, every mention of the answer replaced by a proposal | the proposal |
| irrelevant | one that does not hold the answer | the base model's closed-book answer |
| empty | none | the base model's closed-book answer |

Two passes over the input: one builds the index of the corpus, one writes. What an example becomes
depends on (seed, example id), the example and the index only, so neither the order of the input
nor the number of workers changes a record. Nothing is lost in silence: every example times every
wanted kind ends as one record written, one row of `rejected.jsonl`, or one count of "not
applicable" (an unanswerable question has no relevant context).
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from kaft_promot.errors import UserError
from kaft_promot.knowledge import files, irrelevant
from kaft_promot.knowledge.augmenter import (
    DEFAULT_PROPOSERS,
    Augmenter,
    NotApplicable,
    Settings,
    check_answers,
    parse_choices,
)
from kaft_promot.knowledge.corpus import CorpusIndex
from kaft_promot.knowledge.probe import Probed, read_probed
from kaft_promot.knowledge.proposers import parse_proposers
from kaft_promot.knowledge.readers import read_placed
from kaft_promot.knowledge.readers.base import Placed
from kaft_promot.knowledge.records import GENERATOR_VERSION, KaftRecord, QAExample
from kaft_promot.knowledge.summary import Summary
from kaft_promot.knowledge.targets import KINDS


def augment(
    examples: Iterable[QAExample],
    parametric_answers: Mapping[str, str] | None,
    *,
    index: CorpusIndex | None = None,
    settings: Settings | None = None,
    rejects: files.Rejects | None = None,
    not_applicable: collections.Counter[str] | None = None,
) -> Iterator[KaftRecord]:
    """Makes KAFT records from examples in memory or from a stream.

    Args:
      examples: the examples; kept in memory if there is no index yet.
      parametric_answers: example id -> closed-book answer; None if not probed.
      index: of the corpus that proposals and random contexts are drawn from; by default of
        `examples`. Chunks of one corpus that share its index give the records of the whole.
      settings: see `Settings`.
      rejects: takes every record that cannot be made, with its reason.
      not_applicable: takes the counts of `{kind}/{reason}` that do not apply.

    Returns:
      An iterator over sound records, in the order of the examples.
    """
    settings = settings or Settings()
    if index is None:
        examples = list(examples)
        index = CorpusIndex(examples)
    augmenter = Augmenter(index, settings, parametric_answers)
    rejects = files.Rejects(keep=False) if rejects is None else rejects
    counts = collections.Counter() if not_applicable is None else not_applicable
    nowhere = itertools.repeat(files.Place("(memory)"))
    return _run(zip(nowhere, examples, strict=False), augmenter, rejects, counts)


def _run(
    placed: Iterable[Placed],
    augmenter: Augmenter,
    rejects: files.Rejects,
    not_applicable: collections.Counter[str],
) -> Iterator[KaftRecord]:
    for place, example in placed:
        for kind, outcome in augmenter.outcomes(example):
            if isinstance(outcome, KaftRecord):
                yield outcome
            elif isinstance(outcome, NotApplicable):
                not_applicable[f"{kind}/{outcome.reason}"] += 1
            else:
                rejects.add(
                    place,
                    f"{kind}/{outcome.reason}",
                    outcome.detail,
                    source_id=example.id,
                    context_kind=kind,
                )


def augment_file(
    inputs: files.PathLike | Sequence[files.PathLike],
    output_dir: files.PathLike,
    *,
    format: str = "auto",
    proposer: str | Sequence[str] = DEFAULT_PROPOSERS,
    irrelevant_kinds: str | Sequence[str] = irrelevant.IRRELEVANT_CHOICES,
    parametric_answers: files.PathLike | Mapping[str, str] | None = None,
    kinds: str | Sequence[str] = KINDS,
    seed: int = 0,
    suffixes: bool = True,
    base_checkpoint: str | None = None,
    split: str | None = None,
    progress: bool = False,
) -> Summary:
    """Reads question files and writes KAFT records: the work of `kaft-promot augment`.

    Writes into `output_dir`, all together once all is done: `records.jsonl`, `rejected.jsonl` (one
    row for every input row and every record refused, with file, line and reason) and
    `summary.json`; with a `split` they are called `{split}.jsonl`, `{split}.rejected.jsonl` and
    `{split}.summary.json`, which is where the SeqIO tasks look for them.

    Args:
      inputs: a question file or several; gzip or plain.
      output_dir: made if needed.
      format: one of `readers.FORMATS`.
      proposer: names of proposers, a list or with commas; tried in order.
      irrelevant_kinds: of `annotated` and `random`.
      parametric_answers: the file that `kaft-promot probe` wrote, or example id -> answer.
      kinds: of `relevant`, `counterfactual`, `irrelevant`, `empty`.
      seed: of all draws.
      suffixes: whether targets announce their source.
      base_checkpoint: the checkpoint that was probed; by default what the file of answers says.
      split: e.g. "train".
      progress: whether to show a progress bar.

    Returns:
      The counts.

    Raises:
      UserError: an input cannot be read at all, a name is unknown, parametric answers are needed
        and not given, none, to other questions or of another checkpoint, or the output cannot be
        written.
    """
    paths = [inputs] if isinstance(inputs, files.PathLike) else list(inputs)
    for path in paths:
        files.check_input(path)
    settings = Settings(
        kinds=parse_choices(kinds, KINDS, "context kind"),
        proposers=parse_proposers(proposer),
        irrelevant=parse_choices(
            irrelevant_kinds, irrelevant.IRRELEVANT_CHOICES, "kind of irrelevant context"
        ),
        seed=seed,
        suffixes=suffixes,
        base_checkpoint=base_checkpoint,
    )
    names = ("records.jsonl", "rejected.jsonl", "summary.json")
    if split is not None:
        if not re.fullmatch(r"\w[\w.-]*", split):
            raise UserError(f"split {split!r}: a name of letters, digits, _ . and - is needed")
        names = (f"{split}.jsonl", f"{split}.rejected.jsonl", f"{split}.summary.json")
    read = [*paths, parametric_answers]
    _check_not_overwritten(
        (path for path in read if isinstance(path, files.PathLike)),
        [pathlib.Path(output_dir) / name for name in names],
    )
    with files.AtomicFolder(output_dir) as folder:
        out, rejected, counts = (folder.open(name) for name in names)
        bad_answers = files.Rejects(rejected)
        answers, probed = parametric_answers, None
        if isinstance(answers, files.PathLike):
            probed = read_probed(answers, bad_answers)
            if not probed.answers:
                raise UserError(
                    f"{answers}: no row with an id and an answer; "
                    "`kaft-promot probe` writes such a file"
                )
            settings = _with_checkpoint(settings, probed.checkpoint, answers)
            answers = probed.answers
        check_answers(settings, answers)
        index = _index(paths, format, progress)
        tally = _Tally(files.Rejects(rejected), files.Rejects(rejected))
        placed = tally.read(read_placed(paths, format, tally.rows))
        if probed is not None:
            placed = _same_questions(placed, probed, parametric_answers)
        bar = tqdm(placed, "augment", index.examples, unit="example", disable=not progress)
        not_applicable = tally.counts["not_applicable"]
        for record in _run(bar, Augmenter(index, settings, answers), tally.records, not_applicable):
            out.write(json.dumps(record.to_json(), ensure_ascii=False) + "\n")
            tally.written(record)
        summary = tally.summary(_described(settings, paths, format), bad_answers)
        json.dump(dataclasses.asdict(summary), counts, indent=2)
    return summary


def _check_not_overwritten(read: Iterable[files.PathLike], written: Iterable[pathlib.Path]) -> None:
    """Refuses an output that is one of the inputs, under whatever path."""
    goals = {path.resolve(): path for path in written}
    for path in read:
        if pathlib.Path(path).resolve() in goals:
            raise UserError(
                f"{path} would be overwritten by the records; choose another --output or --split"
            )


def _index(paths: Sequence[files.PathLike], format: str, progress: bool) -> CorpusIndex:
    """The index of all inputs; bad rows are told in the second pass."""
    placed = read_placed(paths, format, files.Rejects(keep=False))
    bar = tqdm(placed, "augment: indexing", unit="example", disable=not progress)
    return CorpusIndex(example for _, example in bar)


class _Tally:
    """Counts what one run reads, refuses and writes."""

    def __init__(self, rows: files.Rejects, records: files.Rejects) -> None:
        self.rows = rows
        self.records = records
        self.examples = 0
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )

    def read(self, placed: Iterable[Placed]) -> Iterator[Placed]:
        for item in placed:
            self.examples += 1
            yield item

    def written(self, record: KaftRecord) -> None:
        self.counts["written"][record.context_kind] += 1
        if record.irrelevant_kind is not None:
            self.counts["irrelevant_kinds"][record.irrelevant_kind] += 1
        if record.substitution is not None:
            self.counts["proposers"][record.substitution.proposer] += 1

    def summary(self, settings: dict[str, Any], bad_answers: files.Rejects) -> Summary:
        return Summary(
            settings=settings,
            rows_read=self.examples + len(self.rows),
            examples=self.examples,
            rejected_rows=dict(self.rows.counts),
            rejected_answers=dict(bad_answers.counts),
            rejected_records=dict(self.records.counts),
            **{
                name: dict(self.counts[name])
                for name in ("written", "irrelevant_kinds", "proposers", "not_applicable")
            },
        )


def _with_checkpoint(settings: Settings, probed: str | None, path: files.PathLike) -> Settings:
    named = settings.base_checkpoint
    if named is not None and probed is not None and named != probed:
        raise UserError(
            f"{path} was probed from {probed!r}, not from --base_checkpoint={named!r}; "
            "records belong to one base model"
        )
    return dataclasses.replace(settings, base_checkpoint=named or probed)


def _same_questions(placed: Iterable[Placed], probed: Probed, path: object) -> Iterator[Placed]:
    """The examples, as long as the answers under their ids are to their questions.

    Raises:
      UserError: an answer is to another question, or there is none to any of them.
    """
    examples = answered = 0
    for place, example in placed:
        examples += 1
        answered += example.id in probed.answers
        asked = probed.questions.get(example.id, example.question)
        if asked != example.question:
            raise UserError(
                f"{place}: {example.id!r} asks {example.question!r}, but {path} answers {asked!r} "
                "under this id; give the answers to these questions"
            )
        yield place, example
    if examples and not answered:
        raise UserError(
            f"{path} answers none of the {examples} questions; give the file that `kaft-promot "
            "probe` has written for them"
        )


def _described(settings: Settings, paths: Sequence[files.PathLike], format: str) -> dict[str, Any]:
    described = {"inputs": [str(path) for path in paths], "format": format}
    return described | dataclasses.asdict(settings) | {"generator_version": GENERATOR_VERSION}
