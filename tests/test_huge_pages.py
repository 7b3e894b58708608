"""The command's process gets its memory in huge pages where the system gives them on request."""

import os
import subprocess
import sys

import pytest

from kaft_promot import cli, huge_pages
from kaft_promot.huge_pages import are_given_on_request, environment_with_huge_pages

on_request = pytest.mark.skipif(
    not are_given_on_request(), reason="needs a Linux that gives huge pages on request"
)
PLAIN = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
SCRIPT = """
import os
import sys
print(os.getpid(), flush=True)
from kaft_promot.huge_pages import use_huge_pages
use_huge_pages()
memory = b"1" * (64 << 20)
with open("/proc/self/smaps_rollup") as lines:
    huge = next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
print(huge, [name for name in os.environ if "ANEW" in name], sys.argv[1:])
"""


def run(environment, script=SCRIPT):
    """How many processes started, kilobytes of huge pages, and what else was printed."""
    command = [sys.executable, "-c", script, "a b", "é"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        *started, last = child.stdout.read().splitlines()
    assert child.returncode == 0
    assert set(map(int, started)) == {child.pid}  # so that signals reach it
    huge, rest = last.split(" ", 1)
    return len(started), int(huge), rest


def test_huge_pages_are_asked_for_beside_what_the_environment_has(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    asked = environment_with_huge_pages
    assert asked({"HOME": "/h"}) == {
        "HOME": "/h",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=6",
    }
    assert asked({"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}) == {
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=3:glibc.malloc.hugetlb=1",
    }
    for said in ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=1"):
        assert asked({"GLIBC_TUNABLES": said}) is None


@pytest.mark.parametrize("mode", ["[always] madvise never", "always madvise [never]", None])
def test_they_are_not_asked_for_where_that_changes_nothing(tmp_path, monkeypatch, mode):
    file = tmp_path / "enabled"
    if mode is not None:
        file.write_text(mode)
    monkeypatch.setattr(huge_pages, "_MODE", file)
    assert not are_given_on_request()


@pytest.mark.parametrize("version", ["glibc 2.34", "", None, OSError(22, "Invalid argument")])
def test_other_c_libraries_are_left_alone(tmp_path, monkeypatch, version):
    def confstr(name):
        if isinstance(version, OSError):
            raise version
        return version

    file = tmp_path / "enabled"
    file.write_text("always [madvise] never")
    monkeypatch.setattr(huge_pages, "_MODE", file)
    monkeypatch.setattr(os, "confstr", confstr)
    assert not are_given_on_request()
    version = "glibc 2.35"
    assert are_given_on_request() is (sys.platform == "linux")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not are_given_on_request()


def test_the_command_starts_anew_before_it_does_anything(monkeypatch):
    class Started(Exception):
        pass

    def execve(path, arguments, environment):
        assert path == sys.executable and arguments == sys.orig_argv
        assert "glibc.malloc.hugetlb=1" in environment["GLIBC_TUNABLES"]
        raise Started

    monkeypatch.setattr(huge_pages, "are_given_on_request", lambda: True)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with pytest.raises(Started):
        cli.console()


@on_request
def test_a_process_starts_anew_once_and_gets_huge_pages():
    processes, huge, rest = run(PLAIN)
    assert processes == 2 and huge > 0
    assert rest == "[] ['a b', 'é']"  # children do not inherit the mark
    assert run(PLAIN | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})[:2] == (1, 0)


@on_request
def test_an_interpreter_that_drops_the_variable_is_started_anew_once_all_the_same():
    dropping = "import os; os.environ.pop('GLIBC_TUNABLES', None)\n" + SCRIPT
    assert run(PLAIN, dropping)[0] == 2
