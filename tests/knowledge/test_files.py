"""Files of one run appear together or not at all."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from kaft_promot.errors import UserError
from kaft_promot.knowledge import augment_file

Write = Callable[[str, Iterable[Any]], pathlib.Path]

ROWS = [
    {"id": city, "question": f"Where is it, {i}?", "context": f"In {city}.", "answers": [city]}
    for i, city in enumerate(["Oslo", "Lima"])
]


def test_a_full_disk_keeps_what_was_finished(
    write_rows: Write, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows("input.jsonl", ROWS)
    out = tmp_path / "out"
    augment_file(path, out, kinds="relevant")
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*unchanged"):
        augment_file(path, out, kinds="counterfactual")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize("name", ["records.jsonl", "rejected.jsonl", "summary.json"])
def test_a_folder_in_the_place_of_a_file_is_told_before_any_work(
    write_rows: Write, tmp_path: pathlib.Path, name: str
) -> None:
    path = write_rows("input.jsonl", ROWS)
    out = tmp_path / "out"
    augment_file(path, out, kinds="relevant")
    (out / name).unlink()
    (out / name).mkdir()
    before = {file.name: file.is_file() and file.read_bytes() for file in out.iterdir()}
    with pytest.raises(UserError, match=f"{name} is a folder"):
        augment_file(path, out, kinds="counterfactual")
    assert {file.name: file.is_file() and file.read_bytes() for file in out.iterdir()} == before


def test_what_is_in_place_already_is_named(
    write_rows: Write, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows("input.jsonl", ROWS)
    out = tmp_path / "out"
    augment_file(path, out, kinds="relevant")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    replace = pathlib.Path.replace

    def fail_late(self: pathlib.Path, goal: pathlib.Path) -> pathlib.Path:
        if goal.name == "summary.json":
            raise OSError(5, "Input/output error")
        return replace(self, goal)

    monkeypatch.setattr(pathlib.Path, "replace", fail_late)
    told = "new are records.jsonl, rejected.jsonl; else what was there before is unchanged"
    with pytest.raises(UserError, match=told):
        augment_file(path, out, kinds="counterfactual")
    after = {file.name: file.read_bytes() for file in out.iterdir()}
    assert after.keys() == before.keys() and after["records.jsonl"] != before["records.jsonl"]
    assert after["summary.json"] == before["summary.json"]
