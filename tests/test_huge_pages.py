"""A program restarts itself once, as the same process, and only where that can help."""

import subprocess
import sys

import pytest

from kaft_promot import huge_pages

PROGRAM = """
import os, sys
print(os.getpid(), sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), flush=True)
from kaft_promot import huge_pages
huge_pages.restart()
print("goes on", sys.argv[1:])
"""


def run(tmp_path, **environment):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(script), "a b", "--c"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(not huge_pages.wanted(), reason="this system gives no huge pages")
def test_one_restart_as_the_same_process_with_the_same_arguments(tmp_path):
    lines = run(tmp_path)
    assert len(lines) == 3
    (pid, first), (again, second) = (line.split(" ", 1) for line in lines[:2])
    assert pid == again
    assert first == "['a b', '--c'] None"
    assert second == f"['a b', '--c'] {huge_pages.VALUE}"
    assert lines[2] == "goes on ['a b', '--c']"


def test_tunables_of_the_user_stay(tmp_path):
    lines = run(tmp_path, GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert lines == [f"{lines[0].split()[0]} ['a b', '--c'] glibc.malloc.arena_max=2"] + [
        "goes on ['a b', '--c']"
    ]


@pytest.mark.parametrize("setting, wanted", [("always [madvise] never", True), ("[never]", False)])
def test_the_kernel_has_the_last_word(tmp_path, monkeypatch, setting, wanted):
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(huge_pages, "_KERNEL_SETTING", tmp_path / "enabled")
    assert not huge_pages.wanted()  # a kernel without them
    (tmp_path / "enabled").write_text(setting)
    assert huge_pages.wanted() is wanted
