"""The score card, with a stand-in for the model that knows some answers."""

import json

import pytest

from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.fewshot import TASKS
from kaft_promot.mini.score import SHOTS, main, score, score_rows


class Knower:
    """Answers every prompt that it was told the answer of, in other letters."""

    def __init__(self, answers: dict[str, str]):
        self.answers = answers

    def generate(self, prompts, progress=False):
        return [self.answers.get(prompt, "").upper() + "." for prompt in prompts]


def test_every_figure_is_asked(split_part):
    rows = score_rows(split_part, 5, 0)
    names = {row["name"] for row in rows}
    assert len(names) == 3 + 2 + len(TASKS) * len(SHOTS)
    tests = [row for row in rows if row["name"] == f"closed_book {facts_lib.REMEMBERED_TEST}"]
    assert len(tests) == 60
    for name in TASKS:
        queries = {
            shots: [
                row["inputs"].split(" ; ")[-1]
                for row in rows
                if row["name"].endswith(f" {name} {shots}-shot")
            ]
            for shots in SHOTS
        }
        assert queries[0] == queries[1] == queries[2] == queries[4]
        assert len(queries[0]) == 5
    assert score_rows(split_part, 5, 0) == rows


def test_right_answers_count(split_part):
    rows = score_rows(split_part, 4, 0)
    known = {row["inputs"]: row["targets"] for row in rows if row["name"].startswith("closed")}
    estimates = score(Knower(known), rows)
    for name, estimate in estimates.items():
        assert estimate.value == (1.0 if name.startswith("closed") else 0.0), name
        assert estimate.low <= estimate.value <= estimate.high
    assert estimates["closed_book remembered_test"].n == 60


@pytest.fixture
def knower(split_part, tmp_path, monkeypatch):
    """A checkpoint that knows nothing, and the folder of its facts; tells what it was asked."""
    facts_lib.write_facts(split_part, tmp_path / "facts.jsonl.gz")
    asked = []

    class Asked(Knower):
        def generate(self, prompts, progress=False):
            asked.extend(prompts)
            return super().generate(prompts, progress)

    monkeypatch.setattr("kaft_promot.infer.load_predictor", lambda *_, **__: Asked({}))
    return [f"--data={tmp_path}", "--checkpoint=c", "--per_task=1"], asked


def test_the_outputs_folder_is_made(knower, tmp_path):
    arguments, _ = knower
    assert main([*arguments, f"--output={tmp_path / 'new' / 'x.json'}"]) == 0
    assert "closed_book remembered_test" in json.loads((tmp_path / "new" / "x.json").read_text())


def test_mistakes_are_one_line_before_anything_is_asked(knower, tmp_path, capsys):
    arguments, asked = knower
    for flag, message in (
        (f"--output={tmp_path}", f"--output={tmp_path}: is a folder; name a file"),
        (f"--output={tmp_path}/facts.jsonl.gz/x.json", "facts.jsonl.gz: "),
        ("--per_task=0", "argument --per_task: 0: must be 1 or more"),
        ("--data=gone", "facts.jsonl.gz: no such facts file"),
        ("--colour=blue", "unrecognized arguments: --colour=blue"),
    ):
        assert main([*arguments, flag]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not asked
