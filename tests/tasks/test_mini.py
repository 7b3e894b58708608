"""mini's SeqIO tasks: what they read, and what they say if something is missing."""

from __future__ import annotations

import importlib
import json
import pathlib
from collections.abc import Iterator

import gin
import pytest

from kaft_promot.errors import UserError

seqio = pytest.importorskip("seqio")
mini = importlib.import_module("kaft_promot.tasks.mini")


@pytest.fixture
def bound(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder of a few examples of each kind, bound in gin; the vocabulary is bytes."""
    for split in ("train", "validation"):
        for name in mini.TASKS:
            rows = [{"inputs": f"{name} {split} {i}", "targets": str(i)} for i in range(3)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{split}.{name}.jsonl").write_text(text)
    gin.clear_config()
    with gin.unlock_config():
        gin.parse_config(f"mini_data.directory = '{tmp_path}'\ntask_vocabulary.path = 'bytes'")
    yield tmp_path
    gin.clear_config()


def read(name: str, split: str) -> list[dict]:
    task = seqio.get_mixture_or_task(name)
    dataset = task.get_dataset({"inputs": 64, "targets": 16}, split=split, shuffle=False)
    return list(dataset.as_numpy_iterator())


def test_each_task_reads_its_file(bound):
    for name in mini.TASKS:
        for split in ("train", "validation"):
            texts = [row["inputs_pretokenized"].decode() for row in read(f"mini_{name}", split)]
            assert texts == [f"{name} {split} {i}" for i in range(3)]


def test_tokens_end_with_the_end_token(bound):
    for row in read("mini_reading", "train"):
        assert row["inputs"][-1] == row["targets"][-1] == 1
        assert row["inputs"].dtype == "int32"


def test_the_mixtures_have_the_rates_of_the_table():
    lines = [line.strip("| ").split(" | ") for line in mini.__doc__.splitlines()]
    head = next(line for line in lines if line[0] == "mixture")
    for name in mini.RATES:
        mixture = seqio.get_mixture_or_task(name)
        rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
        assert sum(rates.values()) == pytest.approx(1.0)
        line = next(line for line in mini.__doc__.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        told = dict(zip(head[1:], cells[1:], strict=True))
        assert {f"mini_{task}": float(rate) for task, rate in told.items() if rate} == rates


def test_a_missing_folder_or_file_is_named(bound):
    (bound / "train.reading.jsonl").unlink()
    with pytest.raises(UserError, match="train.reading.jsonl"):
        read("mini_reading", "train")
    gin.clear_config()
    with pytest.raises(UserError, match="bind mini_data.directory"):
        mini.data_file("reading")("train")
