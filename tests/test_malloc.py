"""The command's process has malloc keep memory, and ask for huge pages, where it is glibc's."""

import os
import pathlib
import subprocess
import sys

import pytest

from kaft_promot import cli, malloc
from kaft_promot.malloc import is_tunable, tuned

glibc = pytest.mark.skipif(not is_tunable(), reason="needs a Linux with glibc 2.35 or newer")
MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
on_request = pytest.mark.skipif(
    not is_tunable() or not MODE.is_file() or "[madvise]" not in MODE.read_text(),
    reason="needs a Linux that gives huge pages on request",
)
PLAIN = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
SCRIPT = """
import os
import resource
import sys
print(os.getpid(), flush=True)
from kaft_promot.malloc import tune_malloc
tune_malloc()
memory = b"1" * (48 << 20)
with open("/proc/self/smaps_rollup") as lines:
    huge = next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
del memory
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    memory = b"1" * (48 << 20)
    del memory
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(huge, faults, [name for name in os.environ if "ANEW" in name], sys.argv[1:])
"""


def run(environment, script=SCRIPT):
    """How many processes started, kilobytes of huge pages, page faults of memory that is taken
    again, and what else was printed.
    """
    command = [sys.executable, "-c", script, "a b", "é"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        *started, last = child.stdout.read().splitlines()
    assert child.returncode == 0
    assert set(map(int, started)) == {child.pid}  # so that signals reach it
    huge, faults, rest = last.split(" ", 2)
    return len(started), int(huge), int(faults), rest


def test_it_is_set_beside_what_the_environment_has(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    keeps = "glibc.malloc.mmap_threshold=67108864:glibc.malloc.top_pad=67108864"
    assert tuned({"HOME": "/h"}) == {
        "HOME": "/h",
        "GLIBC_TUNABLES": f"glibc.malloc.hugetlb=1:{keeps}:glibc.malloc.arena_max=6",
    }
    assert tuned({"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}) == {
        "GLIBC_TUNABLES": f"glibc.malloc.arena_max=3:glibc.malloc.hugetlb=1:{keeps}",
    }
    for said in ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=1"):
        assert tuned({"GLIBC_TUNABLES": said}) is None


@pytest.mark.parametrize("version", ["glibc 2.34", "", None, OSError(22, "Invalid argument")])
def test_other_c_libraries_are_left_alone(monkeypatch, version):
    def confstr(name):
        if isinstance(version, OSError):
            raise version
        return version

    monkeypatch.setattr(os, "confstr", confstr)
    assert not is_tunable()
    version = "glibc 2.35"
    assert is_tunable() is (sys.platform == "linux")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not is_tunable()


def test_the_command_starts_anew_before_it_does_anything(monkeypatch):
    class Started(Exception):
        pass

    def execve(path, arguments, environment):
        assert path == sys.executable and arguments == sys.orig_argv
        assert "glibc.malloc.hugetlb=1" in environment["GLIBC_TUNABLES"]
        raise Started

    monkeypatch.setattr(malloc, "is_tunable", lambda: True)
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with pytest.raises(Started):
        cli.console()


@glibc
def test_a_process_starts_anew_once_and_keeps_its_memory():
    processes, _, faults, rest = run(PLAIN)
    assert processes == 2 and rest == "[] ['a b', 'é']"  # children do not inherit the mark
    assert faults < 10  # of 12,288 pages that are taken ten times
    processes, _, faults, _ = run(PLAIN | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    assert processes == 1 and faults > 100


@on_request
def test_its_memory_comes_in_huge_pages():
    assert run(PLAIN)[1] > 0
    assert run(PLAIN | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})[1] == 0


@glibc
def test_an_interpreter_that_drops_the_variable_is_started_anew_once_all_the_same():
    dropping = "import os; os.environ.pop('GLIBC_TUNABLES', None)\n" + SCRIPT
    assert run(PLAIN, dropping)[0] == 2
