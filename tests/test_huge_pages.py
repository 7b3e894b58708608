"""The command's process gets its memory in large pages where the system gives them on request."""

import os
import pathlib
import subprocess
import sys

import pytest

from kaft_promot.huge_pages import environment_with_huge_pages

MODE = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
ON_REQUEST = "always [madvise] never"
SCRIPT = """
import os
import sys
from kaft_promot.huge_pages import use_huge_pages
use_huge_pages()
memory = b"1" * (64 << 20)
with open("/proc/self/smaps_rollup") as lines:
    large = next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
print(os.getpid(), sys.argv[1:], large)
"""


def asked(tunables=None, mode=ON_REQUEST, is_glibc=True):
    environment = {} if tunables is None else {"GLIBC_TUNABLES": tunables}
    return environment_with_huge_pages({"HOME": "/h", **environment}, mode, is_glibc)


def test_large_pages_are_asked_for_beside_what_the_environment_has():
    assert asked() == {"HOME": "/h", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert asked("glibc.malloc.arena_max=2") == {
        "HOME": "/h",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1",
    }


@pytest.mark.parametrize(
    "case",
    [
        {"tunables": "glibc.malloc.hugetlb=1"},  # so that a process starts anew only once
        {"tunables": "glibc.malloc.hugetlb=0"},  # declined
        {"mode": "[always] madvise never"},
        {"mode": "always madvise [never]"},
        {"mode": ""},
        {"is_glibc": False},
    ],
)
def test_nothing_is_changed_where_it_would_not_help(case):
    assert asked(**case) is None


@pytest.mark.skipif(
    not MODE.exists() or "[madvise]" not in MODE.read_text(),
    reason="needs a Linux that gives large pages on request",
)
def test_a_process_starts_anew_once_and_gets_large_pages():
    def run(environment):
        command = [sys.executable, "-c", SCRIPT, "a b", "é"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            number, rest = child.stdout.read().split(" ", 1)
        assert child.returncode == 0
        assert int(number) == child.pid  # the one that was started, so that signals reach it
        arguments, large = rest.rsplit(" ", 1)
        assert arguments == "['a b', 'é']"
        return int(large)

    plain = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    assert run(plain) > 0
    assert run(plain | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}) == 0
