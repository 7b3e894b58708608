"""The suite of in-context tasks: from SeqIO tasks to sample rows and figures."""

from __future__ import annotations

import json

import gin
import pytest

from kaft_promot import evaluate as evaluate_lib
from kaft_promot.errors import UserError
from kaft_promot.evaluation import suites
from kaft_promot.evaluation.rows import read_rows
from kaft_promot.evaluation.runner import run_suite
from kaft_promot.mini.fewshot import TASKS

pytest.importorskip("seqio")


class Copier:
    """Answers with the last word of the query, which is right for some tasks."""

    params: dict = {}

    def generate(self, prompts):
        return [f" {prompt.removesuffix(' =').split()[-1]} " for prompt in prompts]


def test_rows_have_what_retention_is_measured_on(tmp_path):
    data = {"shots": (1, 2), "queries": 6}
    rows = run_suite(
        "mini_in_context", Copier(), data, arm="a", rows_path=tmp_path / "r.jsonl", progress=False
    )
    assert len(rows) == 2 * 6 * len(TASKS)
    for row in rows:
        task = TASKS[row["in_context_task"]]
        assert row["suite"] == "mini_in_context"
        assert row["task"] == f"mini_{task.name}_{row['shots']}shot"
        assert row["output_format"] == task.output
        assert row["prompt"].count(" = ") == row["shots"]
        assert row["answer"] == row["prediction"].strip()
        assert row["scores"] == {"exact_match": float(row["answer"] == row["target"])}
    hits = {row["in_context_task"]: [] for row in rows}
    for row in rows:
        hits[row["in_context_task"]].append(row["scores"]["exact_match"])
    assert set(hits["last"]) == {1.0} and set(hits["upper"]) == {0.0}
    of = {(row["task"], row["example_id"].split(":")[1]): row["question_id"] for row in rows}
    for (task, number), question in of.items():
        assert of[task.replace("_1shot", "_2shot"), number] == question
    assert all(row["question_id"].endswith(row["prompt"].split(" ; ")[-1][:-2]) for row in rows)


def test_settings_are_bound_by_gin_and_checked():
    suite = suites.get("mini_in_context")
    with gin.unlock_config():
        gin.clear_config()
        gin.bind_parameter("in_context_suite.shots", (0,))
        gin.bind_parameter("in_context_suite.queries", 3)
    try:
        loaded = suite.load(None)
        assert set(loaded) == {f"mini_{name}_0shot" for name in TASKS}
        assert {len(examples) for examples in loaded.values()} == {3}
    finally:
        with gin.unlock_config():
            gin.clear_config()
    with pytest.raises(UserError, match=r"in_context_suite.shots = \(2, 3\): .* 0, 1, 2, 4 shots"):
        suite.load({"shots": (2, 3)})
    with pytest.raises(UserError, match="in_context_suite.queries = 0: at least 1"):
        suite.load({"queries": 0})
    with pytest.raises(UserError, match="in_context_suite.queries = 9999: .* have 400 each"):
        suite.load({"queries": 9999})
    with pytest.raises(
        UserError, match="in_context_suite.split = 'dev': choose validation or test"
    ):
        suite.load({"split": "dev"})


def test_the_two_splits_ask_different_examples():
    suite = suites.get("mini_in_context")
    asked = [
        {example.example_id for found in suite.load({"split": split}).values() for example in found}
        for split in ("validation", "test")
    ]
    assert len(asked[0]) == len(asked[1]) == 100 * len(TASKS) and asked[0].isdisjoint(asked[1])
    assert suite.load({}) == suite.load({"split": "validation"})


@pytest.fixture
def copier(monkeypatch):
    monkeypatch.setattr(evaluate_lib, "load_predictor", lambda *a, **k: Copier())
    monkeypatch.setattr(evaluate_lib, "checkpoint_name", lambda *a, **k: "copier")


def test_eval_needs_no_data_for_it(tmp_path, copier):
    with gin.unlock_config():
        gin.clear_config()
        gin.bind_parameter("in_context_suite.queries", 5)
    try:
        call = dict(checkpoint_path="copier", output_dir=str(tmp_path))
        table = evaluate_lib.evaluate(**call, suite="mini_in_context", arm="copier").splitlines()
    finally:
        with gin.unlock_config():
            gin.clear_config()
    assert [line.split()[0] for line in table[1:]] == [f"mini_{name}_2shot" for name in TASKS]
    (last,) = [line for line in table if line.startswith("mini_last_2shot ")]
    assert last.split()[1:3] == ["exact_match", "100.0"] and last.split()[-1] == "5"
    figures = json.loads((tmp_path / "results.json").read_text())["tasks"]["copier"]
    assert figures["mini_last_2shot"]["exact_match"]["value"] == 1.0
    assert figures["mini_last_2shot"]["exact_match"]["n"] == 5
    rows = read_rows(tmp_path / "rows.jsonl").samples
    assert len(rows) == 5 * len(TASKS)


def test_eval_says_what_a_suite_needs(tmp_path, copier):
    call = dict(checkpoint_path="copier", output_dir=str(tmp_path))
    with pytest.raises(UserError, match="needs --gin.EVAL_DATA for the suite 'grounding'"):
        evaluate_lib.evaluate(**call)
    with pytest.raises(UserError, match="the suite 'mini_in_context' takes no data"):
        evaluate_lib.evaluate(**call, suite="mini_in_context", data=str(tmp_path))


def test_labels_are_not_normalised_away():
    task = next(t for t in suites.get("mini_in_context").tasks if t.name == "mini_choice_2shot")
    for output, score in ((" A", 1.0), ("a", 0.0), ("", 0.0), ("the", 0.0)):
        row = {"target": "A", **task.read(output)}
        assert task.score(row) == {"exact_match": score}
