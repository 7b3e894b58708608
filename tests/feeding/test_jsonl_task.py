"""Registering tasks on JSONL files; what they read is tested in test_seqio_door.py."""

import functools
import json

import pytest

from kaft_promot.errors import UserError
from kaft_promot.feeding import DatasetConfig

seqio = pytest.importorskip("seqio")
pytest.importorskip("tensorflow")

from kaft_promot.feeding.jsonl_task import register_jsonl_task  # noqa: E402
from kaft_promot.feeding.seqio_door import output_features, token_sources  # noqa: E402


def test_fields_have_known_types() -> None:
    with pytest.raises(ValueError, match="field 'inputs' cannot be of <class 'bytes'>"):
        register_jsonl_task("jsonl_bad", lambda split: "x", fields={"inputs": bytes})


def test_a_task_gives_way_only_when_asked() -> None:
    register = functools.partial(
        register_jsonl_task, "jsonl_twice", lambda split: "x", fields={"inputs": str}
    )
    first = register()
    with pytest.raises(ValueError, match="jsonl_twice"):
        register()
    assert seqio.TaskRegistry.get("jsonl_twice") is first
    second = register(replace=True)
    assert seqio.TaskRegistry.get("jsonl_twice") is second
    seqio.TaskRegistry.remove("jsonl_twice")


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (
            lambda row: {"inputs": row["a"], "target": "x"},
            ":1: there is no 'targets' among 'inputs'",
        ),
        (
            lambda row: {"inputs": 1 + row["a"], "targets": "x"},
            ":1: the task's `select` fails: Type",
        ),
        (lambda row: row["a"], ":1: the task's `select` gives 'b'; it must give a dict, or None"),
        (lambda row: {"inputs": row["c"], "targets": "x"}, ":1: the line has no field 'c'"),
        (None, ":1: there is no 'inputs' among 'a'"),
    ],
)
def test_mistakes_in_select_name_file_and_line(tmp_path, select, message) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "b"}\n')
    fields = {"inputs": str, "targets": str}
    task = register_jsonl_task("jsonl_wrong", lambda split: path, fields=fields, select=select)
    try:
        with pytest.raises(UserError) as raised:
            task.source.get_dataset("train")
        assert str(raised.value).startswith(f"{path}{message}")
    finally:
        seqio.TaskRegistry.remove("jsonl_wrong")


def test_examples_that_are_cut_are_counted(tmp_path, caplog) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"inputs": "a" * n, "targets": "b"}) + "\n" for n in (3, 8, 9))
    )
    register_jsonl_task(
        "jsonl_long",
        lambda split: path,
        fields={"inputs": str, "targets": str},
        features=output_features("bytes"),
    )
    config = DatasetConfig(
        mixture_or_task_name="jsonl_long",
        task_feature_lengths={"inputs": 8, "targets": 4},
        split="train",
        batch_size=1,
    )
    try:
        (source,) = token_sources(config)
    finally:
        seqio.TaskRegistry.remove("jsonl_long")
    assert source.store.lengths("inputs").tolist() == [4, 8, 8]
    said = "the ends of 2 of 3 inputs are cut, the longest has 10 tokens and TASK_FEATURE_LENGTHS"
    assert said in caplog.text and "targets are cut" not in caplog.text
