import errno
import json
import logging
import signal
import subprocess
import sys

import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation.rows import RowWriter, read_rows


def row(n, arm="kaft", **fields):
    return {"arm": arm, "example_id": f"e{n}", "question_id": f"q{n}", **fields}


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    written = [row(0, prediction="Zürich \ud800", source=None), row(1, scores={"em": 1.0})]
    with RowWriter(path) as writer:
        writer.append(written[:1])
        writer.append(written[1:])
        writer.note("kaft", {"seed": 3})
    rows = read_rows(path)
    assert rows.samples == written
    assert rows.notes == {"kaft": {"seed": 3}} and rows.arms == ["kaft"]


def test_rows_reach_the_file_before_append_returns(tmp_path):
    with RowWriter(tmp_path / "rows.jsonl") as writer:
        writer.append([row(0)])
        assert len(read_rows(tmp_path / "rows.jsonl").samples) == 1


@pytest.mark.parametrize(
    "broken",
    [
        b'{"arm": "kaft", "exam',
        b'{"arm": "kaft", "example_id": "e2"}',  # whole, but its end of line never came
        b"\x00\x00\x00\x00\n",
        b'{"arm": "kaft", "example_id": "\xc3',
    ],
)
def test_unfinished_last_line_is_ignored_and_cut_off(tmp_path, broken, caplog):
    path = tmp_path / "rows.jsonl"
    with RowWriter(path) as writer:
        writer.append([row(0), row(1)])
    whole = path.read_bytes()
    path.write_bytes(whole + broken)
    assert [r["example_id"] for r in read_rows(path).samples] == ["e0", "e1"]
    assert path.read_bytes() == whole + broken  # reading changes nothing
    with caplog.at_level(logging.WARNING), RowWriter(path) as writer:
        assert set(writer.done) == {("kaft", "e0"), ("kaft", "e1")}
        writer.append([row(2)])
    assert "unfinished last line" in caplog.text
    assert path.read_bytes().startswith(whole)
    assert [r["example_id"] for r in read_rows(path).samples] == ["e0", "e1", "e2"]


def test_every_cut_of_a_file_can_be_continued(tmp_path):
    path = tmp_path / "rows.jsonl"
    with RowWriter(path) as writer:
        writer.append([row(0, prediction="ä"), row(1)])
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with RowWriter(path) as writer:
            writer.append(r for r in (row(0, prediction="ä"), row(1)) if _key(r) not in writer.done)
        assert path.read_bytes() == whole


def _key(r):
    return (r["arm"], r["example_id"])


def test_a_process_killed_in_the_middle_loses_only_the_row_it_was_writing(tmp_path):
    path = tmp_path / "rows.jsonl"
    program = f"""
import os, signal
from kaft_promot.evaluation.rows import RowWriter
writer = RowWriter({str(path)!r})
for n in range(3):
    writer.append([{{"arm": "kaft", "example_id": f"e{{n}}", "question_id": f"q{{n}}"}}])
writer._file.write(b'{{"arm": "kaft", "exam')
writer._file.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert run.returncode == -signal.SIGKILL
    with RowWriter(path) as writer:  # the dead process's lock is gone too
        assert len(writer.done) == 3
        writer.append([row(3)])
    assert [r["example_id"] for r in read_rows(path).samples] == ["e0", "e1", "e2", "e3"]


def test_malformed_line_in_the_middle_names_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row(0)) + "\n{broken\n" + json.dumps(row(1)) + "\n")
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not a sample row"):
        read_rows(path)
    with pytest.raises(UserError, match=r"rows\.jsonl:2"):
        RowWriter(path)


GROUNDED = {
    "suite": "grounding",
    "task": "kaft_relevant",
    "context_kind": "relevant",
    "question": "Where?",
    "context": "In Rome.",
    "target": "Rome (from context)",
    "prediction": "Rome (from context)",
    "answer": "Rome",
    "source": "from context",
    "contextual_answers": ["Rome"],
    "gold_answers": ["Rome"],
    "parametric_answer": None,
    "scores": {"reading_em": 1.0},
}
IN_CONTEXT = {
    "suite": "in_context",
    "task": "copy",
    "prediction": "a",
    "answer": "a",
    "target": "a",
    "scores": {"exact_match": 1.0},
}
SEQIO = IN_CONTEXT | {
    "suite": "rte",
    "seqio_task": "rte",
    "split": "test",
    "postprocessed": {"target": "a", "prediction": "a"},
    "log_likelihood": -1.0,
}
GONE = object()


@pytest.mark.parametrize(
    "sound, change, message",
    [
        (GROUNDED, {"gold_answers": GONE}, "has no gold_answers"),
        (GROUNDED, {"gold_answers": "Rome"}, "needs a list of texts as its gold_answers"),
        (GROUNDED, {"gold_answers": [1]}, "needs a list of texts as its gold_answers"),
        (GROUNDED, {"answer": None}, "needs a text as its answer"),
        (GROUNDED, {"source": 3}, "needs a text or null as its source"),
        (GROUNDED, {"source": GONE, "question": GONE}, "has no question, source"),
        (
            GROUNDED,
            {"parametric_answer": ["Rome"]},
            "needs a text or null as its parametric_answer",
        ),
        (
            GROUNDED,
            {"context_kind": "relevnat"},
            "has the context_kind 'relevnat', which is none of ",
        ),
        (GROUNDED, {"question_id": 3}, "needs a text as its question_id"),
        (IN_CONTEXT, {"target": GONE}, "has no target"),
        (IN_CONTEXT, {"scores": {}}, "has no scores.exact_match"),
        (IN_CONTEXT, {"scores": {"exact_match": "1"}}, "needs an object of numbers as its scores"),
        (
            IN_CONTEXT | {"suite": "mine"},
            {"scores": 1.0},
            "needs an object of numbers as its scores",
        ),
        (SEQIO, {"target": GONE}, "has no target"),
        (
            SEQIO,
            {"postprocessed": {"target": "a"}},
            "needs an object with target and prediction as its postprocessed",
        ),
        (SEQIO, {"log_likelihood": "-1"}, "needs a number as its log_likelihood"),
    ],
)
def test_a_changed_row_is_named_by_file_and_line(tmp_path, sound, change, message):
    path = tmp_path / "rows.jsonl"
    fields = {name: value for name, value in (sound | change).items() if value is not GONE}
    changed = {**row(1), **fields}
    lines = [row(0, **sound), changed]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for use in (read_rows, RowWriter):
        with pytest.raises(UserError) as error:
            use(path)
        said = str(error.value)
        assert said.startswith(f"{path}:2: the sample row of arm 'kaft', example 'e1' {message}")
        assert said.endswith("or remove it and evaluate that arm again") and "\n" not in said
    path.write_text(json.dumps(row(0, **sound)) + "\n")
    assert len(read_rows(path).samples) == 1


@pytest.mark.parametrize(
    "line",
    [b"[1]", b'{"arm": "kaft"}', b'{"arm": ["kaft"], "example_id": "e1"}', b'{"arm": "a", "x": 1}']
    + [b'{"arm": "kaft", "example_id": 3}', b'{"arm": "kaft", "run_note": 3}'],
)
def test_a_whole_last_line_that_is_no_row_is_an_error_too(tmp_path, line):
    """Only what a stopped process or a lost power leaves behind may be cut off."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(row(0)).encode() + b"\n" + line + b"\n")
    before = path.read_bytes()
    for use in (read_rows, RowWriter):
        with pytest.raises(UserError, match=r"rows\.jsonl:2: not a sample row"):
            use(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_rows_file_is_left_as_it_was(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("my notes\nand some more")
    with pytest.raises(UserError, match=r"rows\.jsonl:1: not a sample row"):
        RowWriter(path)
    assert path.read_text() == "my notes\nand some more"


def test_an_unfinished_last_line_is_told_when_read(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row(0)) + '\n{"arm": "kaft", "exam')
    with caplog.at_level(logging.WARNING):
        assert len(read_rows(path).samples) == 1
    assert f"{path}: left out an unfinished last line (21 bytes)" in caplog.text


def test_same_row_twice_is_refused(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps(row(0)) + "\n")
    with pytest.raises(UserError, match=r"b\.jsonl:1.*'e0'.*a\.jsonl:1"):
        read_rows(tmp_path)
    with RowWriter(tmp_path / "a.jsonl") as writer, pytest.raises(ValueError, match="already"):
        writer.append([row(0)])


def test_folder_of_files_is_read_as_one(tmp_path):
    for arm in ("kaft", "base"):
        with RowWriter(tmp_path / f"{arm}.jsonl") as writer:
            writer.append([row(0, arm=arm)])
            writer.note(arm, {"arm of": arm})
    rows = read_rows(tmp_path)
    assert rows.arms == ["base", "kaft"] and len(rows.notes) == 2
    assert read_rows([tmp_path / "kaft.jsonl"]).arms == ["kaft"]


def test_a_second_writer_is_refused(tmp_path):
    with RowWriter(tmp_path / "rows.jsonl"), pytest.raises(UserError, match="another evaluation"):
        RowWriter(tmp_path / "rows.jsonl")


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch, caplog):
    def no_lock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_lock)
    with caplog.at_level(logging.WARNING), RowWriter(tmp_path / "rows.jsonl") as writer:
        writer.append([row(0)])
    assert "cannot be locked (No locks available)" in caplog.text
    assert len(read_rows(tmp_path / "rows.jsonl").samples) == 1


def test_missing_and_unwritable_places_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no such rows file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="no rows files"):
        read_rows(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write rows here"):
        RowWriter(tmp_path / "file" / "rows.jsonl")


def test_a_full_disk_is_told_and_rows_written_before_are_kept(tmp_path, full_disk):
    path = tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match=r"rows\.jsonl: cannot write rows: .*rows written so far"):
        with RowWriter(path) as writer:
            writer.append([row(0)])
            with full_disk(path.stat().st_size + 10):
                writer.append([row(1)])
    assert [r["example_id"] for r in read_rows(path).samples] == ["e0"]
    with RowWriter(path) as writer:
        writer.append([row(1)])
    assert [r["example_id"] for r in read_rows(path).samples] == ["e0", "e1"]


def test_a_note_is_written_once_and_updated(tmp_path):
    path = tmp_path / "rows.jsonl"
    for note in ({"seed": 0, "steps": 5}, {"seed": 0}, {"steps": 6}):
        with RowWriter(path) as writer:
            writer.note("kaft", note)
    assert read_rows(path).notes == {"kaft": {"seed": 0, "steps": 6}}
    assert path.read_bytes().count(b"\n") == 2
