"""Registering tasks on JSONL files; what they read is tested in test_seqio_door.py."""

import functools

import pytest

seqio = pytest.importorskip("seqio")
pytest.importorskip("tensorflow")

from kaft_promot.feeding.jsonl_task import register_jsonl_task  # noqa: E402


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
