"""The command line as a process of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(*arguments, **options):
    """The finished process of a command line, with its output and errors."""
    return subprocess.run(
        [sys.executable, "-m", "kaft_promot.cli", *arguments],
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.parametrize("devices", ["2", "-1"])
def test_numbers_of_devices_that_jax_takes_are_taken(devices):
    done = command(
        "probe",
        f"--input={__file__}",
        "--checkpoint=gone",
        "--output=o",
        env=os.environ | {"JAX_NUM_CPU_DEVICES": devices},
    )
    assert done.returncode == 2
    assert "gone" in done.stderr and "Traceback" not in done.stderr


def test_a_real_process_complains_in_one_line():
    ran = command("augment", "--input=gone.jsonl", "--output=o", "--kinds=odd")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1


@pytest.fixture
def question_files(tmp_path):
    """Flags of `augment` for three questions and a line that was cut in half."""
    places = [("A", "Rome"), ("B", "Oslo"), ("C", "Bonn")]
    rows = [
        {
            "id": f"q{i}",
            "question": f"Where is {name}?",
            "context": f"{name} is in {place}.",
            "answers": [place],
            "relation": "P131",
        }
        for i, (name, place) in enumerate(places)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "q.jsonl").write_text(text + '{"id": "q9", "quest')
    answers = "".join(json.dumps({"id": f"q{i}", "answer": "Rome"}) + "\n" for i in range(3))
    (tmp_path / "answers.jsonl").write_text(answers)
    return ["--input=q.jsonl", "--parametric=answers.jsonl", "--output=out"]


def test_a_real_process_augments(question_files):
    ran = command("augment", *question_files)
    assert ran.returncode == 0, ran.stderr
    kinds = [json.loads(line)["context_kind"] for line in open("out/records.jsonl")]
    assert kinds.count("relevant") == 3 and kinds.count("empty") == 3
    assert '"line": 4' in pathlib.Path("out/rejected.jsonl").read_text()


def test_a_reader_that_goes_away_is_no_error(question_files):
    """As in `kaft-promot augment ... | true`."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        [sys.executable, "-m", "kaft_promot.cli", "augment", *question_files],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141
    assert "Traceback" not in err and "Exception ignored" not in err
