"""Runs a suite on one model and appends sample rows as it goes.

A second call with the same rows file evaluates only what is missing, so an evaluation that was
stopped continues where it was. Rows of another checkpoint or of other prompts under the same arm
are refused rather than mixed.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tqdm import tqdm

import kaft_promot
from kaft_promot.errors import UserError
from kaft_promot.evaluation import suites
from kaft_promot.evaluation.rows import Row, RowWriter


class Generator(Protocol):
    """Text in, text out; `kaft_promot.decoding.Predictor` is one.

    It may have a text `decoding`, which says how it decodes. Rows keep it, and rows that were
    decoded otherwise are refused.
    """

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """One output for every prompt, in order."""

    def score(self, prompts: Sequence[str], targets: Sequence[str]) -> Iterable[float]:
        """The log-likelihood of each target given its prompt, for examples that have `scored`."""


def run_suite(
    suite: str | suites.Suite,
    predictor: Generator,
    data: Any,
    *,
    arm: str,
    rows_path: str | os.PathLike[str] | RowWriter,
    checkpoint: str = "",
    note: Mapping[str, Any] | None = None,
    module: str | None = None,
    batch_size: int = 256,
    progress: bool = True,
) -> list[Row]:
    """Evaluates one arm on a suite.

    Args:
      suite: a suite or its name.
      predictor: the arm's model.
      data: what the suite loads (for `grounding`: KAFT records or the path of a records file).
      arm: name of what is compared; with the example's id it makes a row unique.
      rows_path: JSONL file to append to; several arms may share one file. Or a writer that is open
        on it, which saves reading the file again for each of many calls.
      checkpoint: name of the weights; kept in the rows, and rows of another name are refused.
      note: how the arm was trained and run (seed, steps, ...), for the report. Versions are added.
      module: a module of the user's own that registers the suite.
      batch_size: prompts a call of the predictor; rows are written after every batch.
      progress: show a progress bar.

    Returns:
      The rows of this arm and suite, old and new, in the order of the suite's examples.

    Raises:
      UserError: unknown suite, no examples, the same id twice, or rows of something else under this
        arm's name.
    """
    if isinstance(suite, str):
        suite = suites.get(suite, module)
    loaded = suite.load(data)
    work = [(task, example) for task in suite.tasks for example in task.examples(loaded)]
    decoding = getattr(predictor, "decoding", None)
    origin = {"checkpoint": checkpoint} | ({} if decoding is None else {"decoding": decoding})
    if not work:
        raise UserError(f"suite {suite.name!r}: the data has no example for any of its tasks")
    check_unique(work, suite.name)
    with contextlib.ExitStack() as stack:
        if isinstance(rows_path, RowWriter):
            writer = rows_path
        else:
            writer = stack.enter_context(RowWriter(rows_path))
        missing = []
        for task, example in work:
            old = writer.done.get((arm, example.example_id))
            if old is None:
                missing.append((task, example))
            else:
                _check_same(old, arm, example, origin, writer.path)
        if missing or arm not in writer.notes:
            today = datetime.date.today().isoformat()
            own = {"checkpoint": checkpoint, "evaluated": today, "versions": versions()}
            writer.note(arm, {**(note or {}), **own})
        # Longest first: batches of like lengths waste little padding, and the bar never slows down.
        missing.sort(key=lambda pair: -len(pair[1].prompt))
        bar = tqdm(
            total=len(work),
            initial=len(work) - len(missing),
            desc=f"evaluate {arm}",
            unit="ex",
            disable=not progress,
        )
        with bar:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                outputs = predictor.generate([example.prompt for _, example in batch])
                if len(outputs) != len(batch):
                    raise ValueError(f"{len(outputs)} outputs for {len(batch)} prompts")
                likelihoods = _likelihoods(predictor, [example for _, example in batch])
                writer.append(
                    make_row(suite, task, example, output, arm, origin) | likelihood
                    for (task, example), output, likelihood in zip(
                        batch, outputs, likelihoods, strict=True
                    )
                )
                bar.update(len(batch))
        return [writer.done[(arm, example.example_id)] for _, example in work]


def versions() -> dict[str, str]:
    """Versions that a figure may depend on."""
    found = {"kaft-promot": kaft_promot.__version__, "python": platform.python_version()}
    for package in ("jax", "flax", "numpy"):
        found[package] = importlib.metadata.version(package)
    return found


def _likelihoods(
    predictor: Generator, examples: Sequence[suites.EvalExample]
) -> list[dict[str, float]]:
    """`log_likelihood` for each example that wants it, nothing for others."""
    pairs = [(e.prompt, e.scored) for e in examples if e.scored is not None]
    if not pairs:
        return [{} for _ in examples]
    prompts, targets = zip(*pairs, strict=True)
    scores = iter(predictor.score(prompts, targets))
    return [{} if e.scored is None else {"log_likelihood": float(next(scores))} for e in examples]


def make_row(
    suite: suites.Suite,
    task: suites.EvalTask,
    example: suites.EvalExample,
    output: str,
    arm: str,
    origin: Mapping[str, str],
) -> Row:
    """The sample row of an example and a model's output; `origin` says where that came from."""
    row: Row = {
        "arm": arm,
        "example_id": example.example_id,
        "question_id": example.question_id,
        "suite": suite.name,
        "task": task.name,
        **origin,
        **({"main_score": task.main} if task.main != suites.MAIN_SCORE else {}),
        "prompt": example.prompt,
        "prediction": output,
        **task.read(output),
        **(example.read(output) if example.read else {}),
        **example.fields,
    }
    row["scores"] = dict(task.score(row))
    return row


def check_unique(
    work: Iterable[tuple[suites.EvalTask, suites.EvalExample]], suite_name: str
) -> None:
    """Refuses a suite that gives two examples the same id.

    Raises:
      UserError: it does; the message names the suite and the id.
    """
    seen: set[str] = set()
    for _, example in work:
        if example.example_id in seen:
            raise UserError(
                f"suite {suite_name!r}: two examples have the id {example.example_id!r}; "
                "ids must be unique"
            )
        seen.add(example.example_id)


def _check_same(
    old: Row,
    arm: str,
    example: suites.EvalExample,
    origin: Mapping[str, str],
    path: str | os.PathLike[str],
) -> None:
    """Refuses an old row that answers another question, or comes from another model or decoding."""
    now = {**example.fields, "prompt": example.prompt, **origin}
    if "decoding" not in old:  # as rows of before it was kept
        now.pop("decoding", None)
    for name, value in json.loads(json.dumps(now)).items():
        if old.get(name) != value:
            raise UserError(
                f"{path}: arm {arm!r} has a row for example {example.example_id!r} with another "
                f"{name} ({_short(old.get(name))}, now {_short(value)}); "
                "give the arm another name or delete the file"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
