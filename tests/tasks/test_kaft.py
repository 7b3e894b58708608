"""KAFT's SeqIO tasks: what they read, what they give, and what they say if something is missing."""

from __future__ import annotations

import importlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import gin
import pytest

from kaft_promot.errors import UserError
from kaft_promot.knowledge import QAExample, augment, write_records

seqio = pytest.importorskip("seqio")
kaft = importlib.import_module("kaft_promot.tasks.kaft")


@pytest.fixture
def bound(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder of records of twelve questions, bound in gin; the vocabulary is bytes."""
    cities = ["Rome", "Oslo", "Lima", "Cairo"]
    examples = [
        QAExample(
            id=f"q{i}",
            source="test",
            question=f"Where was Person{i} born?",
            context=f"Person{i} was born in {cities[i % 4]}.",
            answers=(cities[i % 4], f"the city of {cities[i % 4]}"),
            relation="P19",
            subject=f"Person{i}",
        )
        for i in range(11)
    ]
    examples.append(
        QAExample(id="i", source="test", question="Why?", context="No reason.", answers=(),
                  is_impossible=True)
    )  # fmt: skip
    records = list(augment(examples, {one.id: "Bath" for one in examples}))
    write_records(tmp_path / "train.jsonl", records)
    with gin.unlock_config():
        gin.clear_config()
        gin.bind_parameter("kaft_records.directory", str(tmp_path))
        gin.bind_parameter("task_vocabulary.path", "bytes")
    yield tmp_path
    with gin.unlock_config():
        gin.clear_config()


def examples_of(task: str, split: str = "train") -> list[dict[str, Any]]:
    dataset = seqio.get_mixture_or_task(task).get_dataset(
        {"inputs": 256, "targets": 64}, split, shuffle=False, num_epochs=1
    )
    return list(dataset.as_numpy_iterator())


TASKS = {
    "kaft_relevant": (11, {" (from context)"}),
    "kaft_counterfactual": (11, {" (from context)"}),
    "kaft_irrelevant": (12, {"Bath (irrelevant context)"}),
    "kaft_empty": (12, {"Bath (empty context)"}),
    "kaft_irrelevant_gold": (11, {" (irrelevant context)"}),
    "kaft_irrelevant_abstain": (12, {"unanswerable (irrelevant context)"}),
}


@pytest.mark.parametrize("task", TASKS)
def test_tasks(bound: pathlib.Path, task: str) -> None:
    count, endings = TASKS[task]
    found = examples_of(task)
    assert len(found) == count
    for example in found:
        inputs = example["inputs_pretokenized"].decode()
        targets = example["targets_pretokenized"].decode()
        question, context = example["question"].decode(), example["context"].decode()
        assert inputs == f"question: {question}" + (f" context: {context}" if context else "")
        assert any(targets.endswith(ending) for ending in endings)
        # bytes: id 3 + byte, end of sequence 1
        assert example["targets"].tolist() == [byte + 3 for byte in targets.encode()] + [1]
        assert example["parametric_answer"] == b"Bath"


def test_gold_and_counterfactual_targets(bound: pathlib.Path) -> None:
    gold = {e["source_id"]: e["gold_answers"][0] for e in examples_of("kaft_relevant")}
    for example in examples_of("kaft_irrelevant_gold"):
        assert example["targets_pretokenized"] == gold[example["source_id"]] + (
            b" (irrelevant context)"
        )
        assert gold[example["source_id"]] not in example["context"]
    for example in examples_of("kaft_counterfactual"):
        new = example["targets_pretokenized"].removesuffix(b" (from context)")
        assert new in example["context"] and new != gold[example["source_id"]]


def test_suffixes_are_bound_by_gin(bound: pathlib.Path) -> None:
    fingerprint = seqio.TaskRegistry.get("kaft_empty").source.fingerprint("train")
    with gin.unlock_config():
        gin.bind_parameter("kaft_records.suffixes", False)
    assert {e["targets_pretokenized"] for e in examples_of("kaft_empty")} == {b"Bath"}
    assert seqio.TaskRegistry.get("kaft_empty").source.fingerprint("train") != fingerprint


def test_suffixes_follow_the_records_unless_bound(bound: pathlib.Path) -> None:
    path = bound / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"target": row["answer"]}) + "\n" for row in rows))
    assert {e["targets_pretokenized"] for e in examples_of("kaft_empty")} == {b"Bath"}
    with gin.unlock_config():
        gin.bind_parameter("kaft_records.suffixes", True)
    assert {e["targets_pretokenized"] for e in examples_of("kaft_empty")} == {
        b"Bath (empty context)"
    }


@pytest.mark.parametrize(
    ("mixture", "kinds"),
    [
        ("kaft", {"relevant", "counterfactual", "irrelevant", "empty"}),
        ("relevant_only", {"relevant"}),
        ("noisy", {"relevant", "irrelevant"}),
        ("no_counterfactual", {"relevant", "irrelevant", "empty"}),
        ("abstain", {"relevant", "counterfactual", "irrelevant", "empty"}),
    ],
)
def test_mixtures_have_equal_rates(bound: pathlib.Path, mixture: str, kinds: set[str]) -> None:
    found = seqio.get_mixture_or_task(mixture)
    assert {found.get_rate(task) for task in found.tasks} == {1.0}
    seen = {e["context_kind"].decode() for task in found.tasks for e in examples_of(task.name)}
    assert seen == kinds


def test_records_jsonl_serves_as_train(bound: pathlib.Path) -> None:
    (bound / "train.jsonl").rename(bound / "records.jsonl")
    assert len(examples_of("kaft_empty")) == 12
    with pytest.raises(UserError, match="has no validation.jsonl for the split 'validation'"):
        kaft.records_file("validation")


def test_missing_directories_name_the_binding(bound: pathlib.Path) -> None:
    with gin.unlock_config():
        gin.bind_parameter("kaft_records.directory", str(bound / "nowhere"))
    with pytest.raises(UserError, match="kaft_records.directory: there is no folder .*nowhere"):
        examples_of("kaft_empty")
    with gin.unlock_config():
        gin.clear_config()
        gin.bind_parameter("task_vocabulary.path", "bytes")
    with pytest.raises(UserError, match="bind kaft_records.directory"):
        examples_of("kaft_empty")


def test_a_broken_record_is_named(bound: pathlib.Path) -> None:
    path = bound / "train.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["context"] = "It stands here."
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match=f"train.jsonl:4: the record {rows[3]['id']} is broken: empty_"
    ):
        examples_of("kaft_relevant")


def test_every_task_shows_an_example() -> None:
    for choose in kaft.TASKS:
        assert "Input: `question: " in choose.__doc__ and "Target: `" in choose.__doc__
