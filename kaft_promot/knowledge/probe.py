"""The closed-book probe: what the base model answers with no context.

Answers are appended to `answers.jsonl` as they come, one JSON object a line (`id`, `question`,
`answer`, `checkpoint`, `decoding`). A probe that was stopped goes on where it was: answers that are
there are not asked again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from tqdm import tqdm

from kaft_promot.errors import UserError
from kaft_promot.knowledge import files
from kaft_promot.knowledge.readers import read_placed
from kaft_promot.knowledge.records import QAExample
from kaft_promot.knowledge.targets import format_input, split_source

CHUNK = 512
"""Questions between two writes: at most so many answers are asked again after a stop."""

_ROW_START = b'{"id": "'


class Generator(Protocol):
    """The part of `decoding.Predictor` that a probe uses.

    It may have a text `decoding`, which says how it decodes: rows keep it, and a file of answers
    that were decoded otherwise is refused.
    """

    def generate(self, prompts: Sequence[str]) -> list[str]:
        """One text for each prompt."""
        ...


@dataclasses.dataclass(frozen=True)
class Probed:
    """What a file of answers holds.

    Attributes:
      answers: example id -> answer.
      questions: example id -> the question that was asked, where the row says so.
      checkpoint: the checkpoint's name; None if the rows name none.
    """

    answers: dict[str, str]
    questions: dict[str, str]
    checkpoint: str | None


def read_probed(path: files.PathLike, rejects: files.Rejects) -> Probed:
    """Reads what a probe wrote.

    Args:
      path: the file.
      rejects: takes the rows that are no answers.

    Raises:
      UserError: the file cannot be read, or its answers are of more than one checkpoint.
    """
    answers: dict[str, str] = {}
    questions: dict[str, str] = {}
    checkpoints: dict[str, int | None] = {}
    for place, row in files.read_jsonl(path, rejects):
        example_id, answer = row.get("id"), row.get("answer")
        if not isinstance(example_id, str) or not isinstance(answer, str):
            rejects.add(place, "malformed_answer", "an answer is an object with id and answer")
            continue
        if example_id in answers:
            rejects.add(place, "duplicate_answer", f"{example_id!r} was answered before")
            continue
        answers[example_id] = answer
        if isinstance(row.get("question"), str):
            questions[example_id] = row["question"].strip()
        if row.get("checkpoint") is not None:
            checkpoints.setdefault(str(row["checkpoint"]), place.line)
    if len(checkpoints) > 1:
        (one, _), (other, line) = list(checkpoints.items())[:2]
        raise UserError(
            f"{path}:{line}: answers of two checkpoints ({one}, {other}) in one file; "
            "probe each base model into a file of its own"
        )
    return Probed(answers, questions, next(iter(checkpoints), None))


def read_answers(path: files.PathLike, rejects: files.Rejects) -> tuple[dict[str, str], str | None]:
    """As `read_probed`: (example id -> answer, the checkpoint's name or None)."""
    probed = read_probed(path, rejects)
    return probed.answers, probed.checkpoint


def probe(
    predictor: Generator,
    examples: Iterable[QAExample],
    *,
    checkpoint: str,
    output: files.PathLike | None = None,
    chunk: int = CHUNK,
    progress: bool = False,
) -> dict[str, str]:
    """Asks a model every question closed book.

    Args:
      predictor: answers prompts of the form `question: ...` (`targets.format_input`).
      examples: the questions; answerable or not.
      checkpoint: the model's name, written beside each answer.
      output: the file to append to and to resume from; without it nothing is written.
      chunk: questions a write.
      progress: whether to show a progress bar.

    Returns:
      Example id -> answer, for the given examples. A source that the model announces ("(empty
      context)") is stripped.

    Raises:
      UserError: `output` holds answers of another checkpoint, of another decoding, or to other
        questions.
    """
    origin: dict[str, str] = {"checkpoint": checkpoint}
    if (decoding := getattr(predictor, "decoding", None)) is not None:
        origin["decoding"] = decoding
    done = {} if output is None else _resume(pathlib.Path(output), origin)
    answers: dict[str, str] = {}
    bar = tqdm(examples, desc="probe", unit="question", disable=not progress)
    for batch in _chunks(bar, chunk):
        missing = []
        for example in batch:
            held = done.get(example.id)
            if held is None:
                missing.append(example)
            elif held[0] != example.question:
                raise UserError(
                    f"{output} holds {example.id!r} with another question ({held[0]!r}); "
                    "give a new output file"
                )
            else:
                answers[example.id] = held[1]
        if not missing:
            continue
        texts = predictor.generate([format_input(example.question) for example in missing])
        rows = []
        for example, text in zip(missing, texts, strict=True):
            answer = split_source(text)[0]
            answers[example.id] = answer
            row = {"id": example.id, "question": example.question, "answer": answer}
            rows.append(json.dumps(row | origin, ensure_ascii=False) + "\n")
        if output is not None:
            _append(pathlib.Path(output), "".join(rows))
    return answers


def probe_file(
    predictor: Generator,
    inputs: files.PathLike | Sequence[files.PathLike],
    output: files.PathLike,
    *,
    checkpoint: str,
    format: str = "auto",
    progress: bool = False,
) -> dict[str, int]:
    """Probes the questions of files: the work of `kaft-promot probe`.

    Args:
      predictor: see `probe`.
      inputs: a question file or several.
      output: the file of answers, resumed if it is there. Rows of the inputs that give no
        question are written beside it, to `{stem}.rejected.jsonl`.
      checkpoint: the model's name.
      format: one of `readers.FORMATS`.
      progress: whether to show a progress bar.

    Returns:
      Counts: `answered` and `rejected`, which add up to the rows read.

    Raises:
      UserError: an input cannot be read, or `output` is another probe's.
    """
    paths = [inputs] if isinstance(inputs, files.PathLike) else list(inputs)
    output = pathlib.Path(output)
    with files.AtomicFolder(output.parent) as folder:
        rejects = files.Rejects(folder.open(f"{output.stem}.rejected.jsonl"))
        examples = (example for _, example in read_placed(paths, format, rejects))
        answers = probe(
            predictor, examples, checkpoint=checkpoint, output=output, progress=progress
        )
    return {"answered": len(answers), "rejected": len(rejects)}


def _chunks(examples: Iterable[QAExample], size: int) -> Iterator[list[QAExample]]:
    stream = iter(examples)
    while batch := list(itertools.islice(stream, size)):
        yield batch


def _resume(path: pathlib.Path, origin: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The answers in a file: id -> (question, answer); a last line that was cut is removed.

    Nothing is removed from a file that is not a probe's.
    """
    if not path.exists():
        return {}
    whole, cut = _split_cut_line(path)
    done: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        if not line.strip():
            continue
        place = files.Place(str(path), number)
        row, reason, detail = files.parse_line(line)
        if row is None:
            raise UserError(f"{place}: {reason}: {detail}; give a new output file")
        for name, now in origin.items():
            # Rows of before the decoding was kept do not say it.
            if row.get(name) != now and not (name == "decoding" and name not in row):
                raise UserError(
                    f"{place}: answers of the {name} {row.get(name)!r}, not of {now!r}; "
                    "give a new output file"
                )
        fields = [row.get(name) for name in ("id", "question", "answer")]
        if not all(isinstance(field, str) for field in fields):
            raise UserError(f"{place}: no row of a probe; give a new output file")
        done[str(fields[0])] = (str(fields[1]), str(fields[2]))
    if cut:
        os.truncate(path, len(whole))
    return done


def _split_cut_line(path: pathlib.Path) -> tuple[bytes, bytes]:
    """A file's whole lines, and what stands after the last line's end.

    Raises:
      UserError: the file cannot be read, or the end is not how a row of a probe begins.
    """
    content = files.check_input(path).read_bytes()
    end = content.rfind(b"\n") + 1
    whole, cut = content[:end], content[end:]
    if not cut.startswith(_ROW_START[: len(cut)]):
        raise UserError(f"{path}:{whole.count(10) + 1}: no row of a probe; give a new output file")
    return whole, cut


def _append(path: pathlib.Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="\n") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise UserError(
            f"writing {path} failed ({error.strerror}); the answers before are kept, run again"
        ) from error
