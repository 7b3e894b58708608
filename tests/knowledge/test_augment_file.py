"""Augmentation of files: nothing lost, the same bytes again, mistakes told before any work."""

from __future__ import annotations

import collections
import gzip
import json
import pathlib
from typing import Any

import pytest
from augment_rows import OTHERS

from kaft_promot.errors import UserError
from kaft_promot.knowledge import augment_file, read_examples, read_records
from kaft_promot.knowledge.spans import first_held


def write_inputs(tmp_path: pathlib.Path) -> tuple[pathlib.Path, int]:
    """A file of 8 sound rows, 4 bad ones and a blank line; how many lines are not blank."""
    impossible = {"id": "i1", "question": "Why?", "answers": [], "is_impossible": True,
                  "context": "No reason is given."}  # fmt: skip
    lines = [json.dumps(row).encode() for row in [*OTHERS, impossible]]
    lines += [lines[0], b"{", b"", b'{"question": "\xff"}', b'{"question": "?", "answers": [""]}']
    path = tmp_path / "input.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    return path, sum(1 for line in lines if line)


def test_nothing_is_lost(tmp_path: pathlib.Path) -> None:
    path, lines = write_inputs(tmp_path)
    answers = {f"o{i}": "Bath" for i in range(6)} | {"i1": "unknown"}
    out = tmp_path / "out"
    summary = augment_file(path, out, parametric_answers=answers, base_checkpoint="mini")
    assert summary.rows_read == lines == summary.examples + sum(summary.rejected_rows.values())
    assert summary.rejected_rows == {
        "duplicate_id": 1, "malformed_json": 1, "invalid_utf8": 1, "empty_answer": 1,
    }  # fmt: skip
    asked = 4 * summary.examples
    refused = sum(summary.rejected_records.values())
    assert asked == summary.records + refused + sum(summary.not_applicable.values())
    assert summary.not_applicable == {"relevant/unanswerable": 1, "counterfactual/unanswerable": 1}
    assert summary.rejected_records == {
        f"{kind}/no_parametric_answer": 1 for kind in ("counterfactual", "irrelevant", "empty")
    }
    # the files say the same as the summary
    records = list(read_records(out / "records.jsonl"))
    assert collections.Counter(record.context_kind for record in records) == summary.written
    assert len(records) == summary.records
    rows = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert len(rows) == sum(summary.rejected_rows.values()) + refused
    assert all(row["file"] == str(path) and row["line"] and row["reason"] for row in rows)
    saved = json.loads((out / "summary.json").read_text())
    assert saved["written"] == summary.written and saved["settings"]["base_checkpoint"] == "mini"
    table = summary.table()
    assert f"rows read {lines} = examples 8 + rejected 4" in table
    assert f"= written {summary.records} + rejected {refused} + not applicable 2" in table


def test_runs_are_equal_byte_by_byte(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    answers = {f"o{i}": "Bath" for i in range(7)} | {"i1": "unknown"}
    contents = []
    for name in ("a", "b"):
        augment_file(path, tmp_path / name, parametric_answers=answers)
        contents.append([f.read_bytes() for f in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1] and len(contents[0]) == 3


def test_kinds_and_choices(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    answers = {f"o{i}": "Bath" for i in range(7)} | {"i1": "unknown"}
    summary = augment_file(
        path, tmp_path / "out", parametric_answers=answers, kinds="empty,irrelevant",
        irrelevant_kinds="annotated", suffixes=False, split="train",
    )  # fmt: skip
    assert summary.written == {"irrelevant": 1, "empty": 8}
    assert summary.not_applicable == {"irrelevant/not_annotated": 7}
    records = list(read_records(tmp_path / "out" / "train.jsonl"))
    assert {record.target for record in records} == {"Bath", "unknown"}
    summary = augment_file(path, tmp_path / "two", kinds=["relevant", "counterfactual"])
    assert summary.written == {"relevant": 7, "counterfactual": 7}
    records = list(read_records(tmp_path / "two" / "records.jsonl"))
    assert {record.parametric_answer for record in records} == {None}
    summary = augment_file(
        path, tmp_path / "three", parametric_answers=answers, irrelevant_kinds="random",
        kinds="irrelevant",
    )  # fmt: skip
    assert summary.irrelevant_kinds == {"random": 8}


def test_answers_from_a_file_name_their_checkpoint(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    rows = [{"id": f"o{i}", "answer": "Bath", "checkpoint": "mini"} for i in range(7)]
    lines = [json.dumps(row) for row in [*rows, rows[0], {"id": "i1"}]]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("\n".join([*lines, '{"id": "o']))
    summary = augment_file(path, tmp_path / "out", parametric_answers=answers)
    assert summary.settings["base_checkpoint"] == "mini"
    assert summary.rejected_answers == {
        "duplicate_answer": 1, "malformed_answer": 1, "malformed_json": 1,
    }  # fmt: skip
    records = list(read_records(tmp_path / "out" / "records.jsonl"))
    assert {record.base_checkpoint for record in records} == {"mini"}
    with pytest.raises(UserError, match="probed from 'mini', not from --base_checkpoint='xl'"):
        augment_file(path, tmp_path / "out", parametric_answers=answers, base_checkpoint="xl")
    answers.write_text("\n".join([lines[0], json.dumps(rows[1] | {"checkpoint": "xl"})]))
    with pytest.raises(UserError, match=r"answers.jsonl:2: answers of two checkpoints"):
        augment_file(path, tmp_path / "out", parametric_answers=answers)


def test_answers_to_other_questions_are_refused(tmp_path: pathlib.Path) -> None:
    """Ids such as "1" come again in every file: the questions must be the same, too."""
    path, _ = write_inputs(tmp_path)
    answers = tmp_path / "answers.jsonl"
    row = {"id": "o1", "answer": "Bath", "question": " Where is Thing1? "}
    answers.write_text(json.dumps(row) + "\n")
    assert augment_file(path, tmp_path / "out", parametric_answers=answers).records > 0
    answers.write_text(json.dumps(row | {"question": "Who wrote Emma?"}) + "\n")
    with pytest.raises(UserError, match=r"input.jsonl.gz:2: 'o1' asks 'Where .*answers 'Who wrote"):
        augment_file(path, tmp_path / "out", parametric_answers=answers)


def test_answers_to_none_of_the_questions_are_refused(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "elsewhere", "question": "?", "answer": "x"}\n')
    with pytest.raises(UserError, match="answers.jsonl answers none of the 8 questions"):
        augment_file(path, tmp_path / "out", parametric_answers=answers)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parametric_answers": None}, "irrelevant, empty need the base model's closed-book"),
        ({"kinds": "relevant,odd"}, "unknown context kind 'odd'; choose from relevant"),
        ({"kinds": ""}, "unknown context kind"),
        ({"irrelevant_kinds": "hard"}, "unknown kind of irrelevant context 'hard'"),
        ({"proposer": "model"}, "unknown proposer model"),
        ({"format": "xml"}, "unknown format 'xml'"),
        ({"parametric_answers": "/nowhere/answers.jsonl"}, "there is no such file"),
        ({"parametric_answers": __file__}, "test_augment_file.py: no row with an id and an answer"),
        ({"split": "a/b"}, "split 'a/b': a name of letters"),
        ({"split": ""}, "split '': a name of letters"),
        ({"inputs": ["/nowhere/x.jsonl"]}, "/nowhere/x.jsonl: there is no such file"),
        ({"output_dir": "/dev/null/out"}, "cannot make the folder"),
    ],
)
def test_mistakes_are_one_line_and_keep_what_was_finished(
    tmp_path: pathlib.Path, arguments: dict[str, Any], message: str
) -> None:
    path, _ = write_inputs(tmp_path)
    out = tmp_path / "out"
    augment_file(path, out, kinds="relevant")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    defaults: dict[str, Any] = {"inputs": path, "output_dir": out, "parametric_answers": {}}
    with pytest.raises(UserError, match=message) as error:
        augment_file(**(defaults | arguments))
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize("of_answers", [False, True])
def test_an_input_is_not_overwritten(tmp_path: pathlib.Path, of_answers: bool) -> None:
    path, _ = write_inputs(tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "o1", "question": "?", "answer": "x"}\n')
    kept = tmp_path / "data" / "train.jsonl"
    kept.parent.mkdir()
    kept.write_bytes((answers if of_answers else path).read_bytes())
    link = tmp_path / "link.jsonl"  # the same file by another path
    link.symlink_to(kept)
    before = kept.read_bytes()
    with pytest.raises(UserError, match="link.jsonl would be overwritten by the records"):
        augment_file(
            path if of_answers else link,
            kept.parent,
            parametric_answers=link if of_answers else answers,
            split="train",
        )
    assert kept.read_bytes() == before and [*kept.parent.iterdir()] == [kept]


def test_real_squad_and_trex(shared_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A slice of the real data: the laws hold, and the guarantees hold by an own check."""
    for name in ("squad2/dev_half_a", "trex/trex.dev"):
        with gzip.open(shared_dir / "data" / f"{name}.jsonl.gz", "rb") as lines:
            part = [line for i, line in enumerate(lines) if i % 12 == 0]
        path = tmp_path / "part.jsonl"
        path.write_bytes(b"".join(part))
        examples = {one.id: one for one in read_examples(path)}
        answers = {one: "Zanzibar" for one in examples}
        summary = augment_file(path, tmp_path / "out", parametric_answers=answers)
        assert summary.rows_read == len(part) == summary.examples
        asked = 4 * summary.examples
        assert asked == summary.records + sum(
            [*summary.rejected_records.values(), *summary.not_applicable.values()]
        )
        kinds = summary.written
        assert kinds["empty"] == summary.examples
        assert kinds["counterfactual"] > 0.8 * kinds["relevant"] > 0
        for record in read_records(tmp_path / "out" / "records.jsonl"):
            own = examples[record.source_id]
            if record.context_kind in ("counterfactual", "irrelevant"):
                assert first_held(record.context, own.answers) is None
            if record.context_kind == "relevant":
                assert record.context == own.context
