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
ROLLUP = pathlib.Path("/proc/self/smaps_rollup")
on_request = pytest.mark.skipif(
    not (is_tunable() and ROLLUP.is_file() and MODE.is_file() and "[madvise]" in MODE.read_text()),
    reason="needs a Linux that gives huge pages on request, and says how many",
)
PLAIN = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
START = """
import os
import sys
print(os.getpid(), flush=True)
from kaft_promot.malloc import tune_malloc
tune_malloc()
"""
MARK = START + "print([name for name in os.environ if 'ANEW' in name], sys.argv[1:])"
FAULTS = (
    START
    + """
import resource
for _ in range(11):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [b"1" * (20 << 20) for _ in range(6)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)  # the last time
"""
)
HUGE = (
    START
    + """
memory = b"1" * (48 << 20)
with open("/proc/self/smaps_rollup") as lines:
    print(next(line.split()[1] for line in lines if line.startswith("AnonHugePages")))
"""
)
KEPT = (
    START
    + """
import threading
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
def work():
    global peak
    for megabytes, count in ((60, 10), (20, 30), (100, 6)):
        arrays = [b"1" * (megabytes << 20) for _ in range(count)]
        peak = resident()
        del arrays
before = resident()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(peak - before, resident() - before)
"""
)


def run(environment, script):
    """How many processes started, and the last line that was printed."""
    command = [sys.executable, "-c", script, "a b", "é"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        *started, last = child.stdout.read().splitlines()
    assert child.returncode == 0
    assert set(map(int, started)) == {child.pid}  # so that signals reach it
    return len(started), last


def test_it_is_set_beside_what_the_environment_has(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    keeps = {"mmap_threshold": 64 << 20, "trim_threshold": 256 << 20, "top_pad": 16 << 20}
    ours = ":".join(f"glibc.malloc.{name}={value}" for name, value in keeps.items())
    assert tuned({"HOME": "/h"}) == {
        "HOME": "/h",
        "GLIBC_TUNABLES": f"glibc.malloc.hugetlb=1:{ours}:glibc.malloc.arena_max=6",
    }
    for said in ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=1"):
        assert tuned({"GLIBC_TUNABLES": said}) is None
    assert tuned({"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}) == {
        "GLIBC_TUNABLES": f"glibc.malloc.arena_max=3:glibc.malloc.hugetlb=1:{ours}",
    }
    own = tuned({"MALLOC_ARENA_MAX": "1", "MALLOC_TOP_PAD_": "0"})["GLIBC_TUNABLES"]
    assert "arena_max" not in own and "top_pad" not in own and "mmap_threshold" in own


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
def test_a_process_starts_anew_once():
    assert run(PLAIN, MARK) == (2, "[] ['a b', 'é']")  # children do not inherit the mark
    assert run(PLAIN | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, MARK)[0] == 1


@glibc
def test_memory_that_is_taken_again_makes_no_page_faults():
    assert int(run(PLAIN, FAULTS)[1]) < 10  # 30,720 pages of 4 KiB


@glibc
def test_a_thread_does_not_keep_all_that_it_frees():
    peak, kept = map(int, run(PLAIN, KEPT)[1].split())
    assert 600 <= peak < 1200  # megabytes; 600 are held at a time
    assert kept < 500


@on_request
def test_memory_comes_in_huge_pages():
    assert int(run(PLAIN, HUGE)[1]) > 0
    assert int(run(PLAIN | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, HUGE)[1]) == 0


@glibc
def test_an_interpreter_that_drops_the_variable_is_started_anew_once_all_the_same():
    dropping = "import os; os.environ.pop('GLIBC_TUNABLES', None)\n" + MARK
    assert run(PLAIN, dropping)[0] == 2
