"""RTE, CB and WiC: templates, labels, and splits that share no example."""

from __future__ import annotations

import importlib
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gin
import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation.output_share import in_format

seqio = pytest.importorskip("seqio")
superglue = importlib.import_module("kaft_promot.tasks.superglue")
importlib.import_module("kaft_promot.tasks.rte_and_wmt")  # registers the mixture
RTE = {"premise": "It rains.", "hypothesis": "It is dry.", "label": "not_entailment"}


@pytest.fixture
def bind() -> Iterator[Callable[[pathlib.Path], None]]:
    def directory(path: pathlib.Path) -> None:
        with gin.unlock_config():
            gin.clear_config()
            gin.bind_parameter("task_vocabulary.path", "bytes")
            gin.bind_parameter("superglue_data.directory", str(path))

    yield directory
    with gin.unlock_config():
        gin.clear_config()


def write(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(task: str, split: str) -> list[tuple[str, str, str]]:
    dataset = seqio.get_mixture_or_task(task).get_dataset(
        {"inputs": 1024, "targets": 16}, split, shuffle=False
    )
    fields = ("inputs_pretokenized", "targets_pretokenized", "id")
    return [tuple(row[name].decode() for name in fields) for row in dataset.as_numpy_iterator()]


def test_the_templates(tmp_path, bind):
    bind(tmp_path)
    write(tmp_path / "RTE" / "val.jsonl", [RTE | {"idx": 3}])
    cb = {"premise": "It rains.", "hypothesis": "it snows", "label": "neutral", "idx": 0}
    write(tmp_path / "CB" / "val.jsonl", [cb])
    wic = {"word": "bed", "sentence1": "A bed.", "sentence2": "To bed.", "label": True, "idx": 1}
    write(tmp_path / "WiC" / "val.jsonl", [wic])
    assert read("rte", "validation") == [
        ("It rains. question: It is dry. Is it true or false? answer:", "False", "rte/3")
    ]
    assert read("cb", "validation") == [
        ("It rains. question: it snows Is it true or false or neither? answer:", "Neither", "cb/0")
    ]
    assert read("wic", "validation") == [
        (
            "A bed. To bed. question: The word bed is used in the same way in the two sentences. "
            "Is it true or False? answer:",
            "True",
            "wic/1",
        )
    ]


def test_a_split_without_a_file_is_cut_off_train(tmp_path, bind):
    bind(tmp_path)
    train = [RTE | {"idx": i, "premise": f"It rains {i // 2} drops."} for i in range(400)]
    write(tmp_path / "RTE" / "train.jsonl", train)
    ids = {s: {i for *_, i in read("rte", s)} for s in ("train", "validation", "test")}
    assert set.union(*ids.values()) == {f"rte/{number}" for number in range(400)}
    assert sum(map(len, ids.values())) == 400
    assert all(20 <= len(ids[split]) <= 60 for split in ("validation", "test"))
    # Examples of one premise stay together, so that none is both learned from and tested on.
    assert {s: {f"rte/{int(i[4:]) ^ 1}" for i in ids[s]} for s in ids} == ids
    # The order of the lines decides nothing.
    write(tmp_path / "RTE" / "train.jsonl", train[::-1])
    assert {i for *_, i in read("rte", "test")} == ids["test"]
    # With a file of its own, validation is that file, and its tenth stays in train.
    write(tmp_path / "RTE" / "val.jsonl", [RTE | {"idx": 0}])
    assert [i for *_, i in read("rte", "validation")] == ["rte/0"]
    assert {i for *_, i in read("rte", "train")} == ids["train"] | ids["validation"]
    assert {i for *_, i in read("rte", "test")} == ids["test"]


def test_bad_input_is_named(tmp_path, bind):
    bind(tmp_path)
    with pytest.raises(UserError, match="superglue_data.directory: there is no folder .*RTE"):
        read("rte", "train")
    path = tmp_path / "RTE" / "val.jsonl"
    write(path, [RTE | {"idx": 0}])
    with pytest.raises(UserError, match="RTE has no train.jsonl"):
        read("rte", "test")
    write(path, [RTE | {"idx": 0}, RTE | {"idx": 1, "label": "maybe"}])
    with pytest.raises(UserError, match="val.jsonl:2: label 'maybe' of task 'rte' is none of enta"):
        read("rte", "validation")
    write(path, [{"premise": "It rains.", "hypothesis": "It is dry.", "idx": 0}])
    with pytest.raises(UserError, match="val.jsonl:1: the line has no label"):
        read("rte", "validation")
    write(path, [{"label": "entailment", "idx": 0}])
    with pytest.raises(UserError, match="val.jsonl:1: the line has no field 'premise'"):
        read("rte", "validation")
    write(path, [RTE | {"premise": None, "idx": 0}])
    with pytest.raises(UserError, match="val.jsonl:1: field 'premise' is None, which is no text"):
        read("rte", "validation")
    with gin.unlock_config():
        gin.clear_config()
    with pytest.raises(UserError, match="bind superglue_data.directory"):
        superglue.examples("rte", "train")


def test_real_files(shared_dir, bind):
    bind(shared_dir / "data" / "superglue")
    for task, count in (("rte", 2490), ("cb", 250), ("wic", 5428)):
        splits = {s: superglue.examples(task, s) for s in ("train", "validation", "test")}
        assert sum(map(len, splits.values())) == count
        assert all(len(rows) > count / 20 for rows in splits.values())
        labels = Counter(row["targets"] for row in splits["train"])
        assert set(labels) == set(superglue.LABELS[task].values())
        assert in_format(labels, task) == [1.0] * len(labels)


def test_real_held_out_examples_share_nothing_with_train(shared_dir, bind):
    bind(shared_dir / "data" / "superglue")
    for task, field in (("rte", "premise"), ("wic", "word")):
        path, _ = superglue.read_from(task, "train")
        value = {f"{task}/{row['idx']}": row[field] for _, row in superglue.read_rows(path)}
        train, validation, test = (
            {value[row["id"]] for row in superglue.examples(task, split)}
            for split in ("train", "validation", "test")
        )
        assert not train & (validation | test) and not validation & test


def test_outputs_are_cleaned_and_scored():
    task = seqio.get_mixture_or_task("cb")
    outputs = ["<extra_id_0> True <extra_id_1> x", "neither", "False question: it"]
    clean = [task.postprocess_fn(output, example={}, is_target=False) for output in outputs]
    assert clean == ["True", "neither", "False"]
    (metric,) = task.metric_fns
    assert metric(["True", "Neither", "True"], clean)["accuracy"] == pytest.approx(200 / 3)
    assert in_format(["neither", "yes"], "cb") == [1.0, 0.0]
    assert in_format(["neither"], "rte") == [0.0]


def test_rte_is_mixed_with_translation_at_equal_rates():
    mixture = seqio.MixtureRegistry.get("rte_wmt_en_fr")
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {
        "rte": 1.0,
        "wmt_en_fr": 1.0,
    }
