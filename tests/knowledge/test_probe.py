"""The probe: closed-book prompts, resumption, other checkpoints."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from kaft_promot.errors import UserError
from kaft_promot.knowledge import QAExample, Rejects, probe, probe_file, read_answers


class Model:
    """Answers with the question's last word and remembers what it was asked."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.stop_after = stop_after

    def generate(self, prompts: Sequence[str]) -> list[str]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += prompts
        return [prompt.split()[-2] + " (empty context)" for prompt in prompts]


def test_prompts_are_closed_book_and_answers_plain(people: list[QAExample]) -> None:
    model = Model()
    answers = probe(model, people[:2], checkpoint="mini")
    assert model.asked == ["question: Where was Person0 born?", "question: Where was Person1 born?"]
    assert answers == {"q0": "Person0", "q1": "Person1"}


def test_a_stopped_probe_goes_on(people: list[QAExample], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        probe(Model(stop_after=8), people, checkpoint="mini", output=path, chunk=4)
    with path.open("a") as out:
        out.write('{"id": "q9", "quest')  # killed while it wrote
    model = Model()
    answers = probe(model, people, checkpoint="mini", output=path, chunk=4)
    assert len(model.asked) == len(people) - 8
    assert answers == probe(Model(), people, checkpoint="mini")
    assert read_answers(path, Rejects(strict=True)) == (answers, "mini")
    again = Model()
    assert probe(again, people, checkpoint="mini", output=path) == answers
    assert again.asked == []


def test_a_full_disk_keeps_the_answers_before(
    people: list[QAExample], tmp_path: pathlib.Path, full_disk: Any
) -> None:
    path = tmp_path / "answers.jsonl"
    probe(Model(), people[:8], checkpoint="mini", output=path)
    with full_disk(path.stat().st_size + 10), pytest.raises(UserError) as error:
        probe(Model(), people, checkpoint="mini", output=path, chunk=4)
    assert f"writing {path} failed" in str(error.value) and "are kept" in str(error.value)
    model = Model()
    answers = probe(model, people, checkpoint="mini", output=path, chunk=4)
    assert len(model.asked) == len(people) - 8
    assert answers == probe(Model(), people, checkpoint="mini")
    assert read_answers(path, Rejects(strict=True)) == (answers, "mini")


def test_answers_of_another_probe_are_refused(
    people: list[QAExample], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "answers.jsonl"
    probe(Model(), people[:1], checkpoint="mini", output=path)
    with pytest.raises(UserError, match=r"answers.jsonl:1: .*checkpoint 'mini', not of 'xl'"):
        probe(Model(), people, checkpoint="xl", output=path)
    path.unlink()
    short, long = Model(), Model()
    short.decoding, long.decoding = "greedy, 1 token", "greedy, 32 tokens"  # type: ignore[attr-defined]
    probe(short, people[:1], checkpoint="mini", output=path)
    with pytest.raises(UserError, match="decoding 'greedy, 1 token', not of 'greedy, 32 tokens'"):
        probe(long, people, checkpoint="mini", output=path)
    assert len(probe(short, people, checkpoint="mini", output=path)) == len(people)
    path.write_text(json.dumps({"id": "q0", "question": "?", "answer": "x", "checkpoint": "mini"}))
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="holds 'q0' with another question"):
        probe(Model(), people, checkpoint="mini", output=path)
    path.write_text(json.dumps({"checkpoint": "mini", "id": 3}) + "\n")
    with pytest.raises(UserError, match="no row of a probe"):
        probe(Model(), people, checkpoint="mini", output=path)


@pytest.mark.parametrize(
    "content",
    [
        b"a line without an end",
        b'{"question": "a question file"}',
        b'{"id": "q0", "question": "?", "answers": ["x"]}\n{"id": "q1"',
        b"\xff\n",
    ],
)
def test_a_file_that_is_no_probes_is_left_as_it_was(
    people: list[QAExample], tmp_path: pathlib.Path, content: bytes
) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"mine.txt:1: .*give a new output file"):
        probe(Model(), people, checkpoint="mini", output=path)
    assert path.read_bytes() == content


def test_probing_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [{"id": str(i), "question": f"Who is {i} ?", "answers": ["x"]} for i in range(3)]
    path.write_text("\n".join([*map(json.dumps, rows), "{"]))
    out = tmp_path / "out" / "answers.jsonl"
    counts = probe_file(Model(), path, out, checkpoint="mini")
    assert counts == {"answered": 3, "rejected": 1}
    (rejected,) = (tmp_path / "out" / "answers.rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["line"] == 4
    assert probe_file(Model(), [path], out, checkpoint="mini") == counts
    assert len(out.read_text().splitlines()) == 3
