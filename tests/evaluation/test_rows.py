import errno
import json
import logging
import pathlib
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


def test_full_disk_is_a_user_error():
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    writer = RowWriter.__new__(RowWriter)
    writer.path, writer.done, writer.notes = pathlib.Path("/dev/full"), {}, {}
    writer._file = open("/dev/full", "ab", buffering=0)
    with pytest.raises(UserError, match="No space left"):
        writer.append([row(0)])
    writer._file.close()


def test_a_note_is_written_once_and_updated(tmp_path):
    path = tmp_path / "rows.jsonl"
    for note in ({"seed": 0, "steps": 5}, {"seed": 0}, {"steps": 6}):
        with RowWriter(path) as writer:
            writer.note("kaft", note)
    assert read_rows(path).notes == {"kaft": {"seed": 0, "steps": 6}}
    assert path.read_bytes().count(b"\n") == 2
