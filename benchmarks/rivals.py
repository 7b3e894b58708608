"""Times two programs in turn, each in a process of its own, and prints their ratio.

A worker is a script that, started with a name, prepares itself, prints `ready`, does one piece of
work for each line it reads, answers with the seconds it took and the page faults (how often the
system had to hand out memory), and at the end with its peak memory.
Taking turns lets both see the same noise of the machine; processes of their own give each its own
threads and memory.
"""

from __future__ import annotations

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

from kaft_promot.malloc import VARIABLE, is_tunable, tuned

THEIRS = "Hugging Face"
PLAIN, TUNED = ", plain malloc", ", tuned malloc"
CORES = os.cpu_count() or 1
DEVICES = f", {CORES} devices"  # one a core
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def torch_python() -> str | None:
    """The Python that has PyTorch and transformers: BENCH_TORCH_PYTHON, or this one; else None."""
    python = os.environ.get("BENCH_TORCH_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True)
    return python if found.returncode == 0 else None


def pythons(workers: Iterable[str]) -> dict[str, str]:
    """Worker name -> the Python that runs it. Hugging Face's are left out where no PyTorch is."""
    theirs = torch_python()
    if theirs is None:
        print("no PyTorch here: set BENCH_TORCH_PYTHON to a Python with torch and transformers")
    if not is_tunable():
        print("malloc is not glibc's here, or an old one: all workers have it as it is")
        workers = [name for name in workers if not name.endswith((PLAIN, TUNED))]
    found = {name: theirs if name.startswith(THEIRS) else sys.executable for name in workers}
    return {name: python for name, python in found.items() if python is not None}


def _environment(name: str) -> dict[str, str]:
    """A worker's: how its malloc is set, and how many devices JAX makes of the CPU.

    Ours have it tuned, as the command `kaft-promot` has; others, and those whose name ends in PLAIN
    or TUNED, what that says. There is one device unless the name ends in DEVICES.
    """
    plain = {k: v for k, v in os.environ.items() if k != VARIABLE}
    plain["JAX_NUM_CPU_DEVICES"] = str(CORES if name.endswith(DEVICES) else 1)
    tune = name.endswith(TUNED) or not (name.endswith(PLAIN) or name.startswith(THEIRS))
    return (tuned(plain) if tune and is_tunable() else None) or plain


class Worker:
    """A running worker process."""

    def __init__(self, python: str, script: str, name: str):
        environment = _environment(name) | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            [python, script, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._read("ready")

    def _read(self, what: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(f"{what} "):
                return line.removeprefix(f"{what} ").strip()
        raise SystemExit(f"a benchmark worker ended early: {self._process.args}")

    def work(self) -> tuple[float, int]:
        """Seconds and page faults of one piece of work."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        seconds, faults = self._read("took").split()
        return float(seconds), int(faults)

    def close(self) -> float:
        """Ends the worker; returns its peak memory in GB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = float(self._read("peak"))
        self._process.wait()
        return peak


def serve(work: Callable[[], None], warm_up: int = 2) -> None:
    """The worker's side: warms up, then works whenever a line arrives.

    Each time it works once before it is timed: after a pause the first piece takes longer, which
    says nothing of a program that goes on working.
    """
    for _ in range(warm_up):
        work()
    print("ready .", flush=True)
    for _ in sys.stdin:
        work()
        start, before = time.perf_counter(), _usage().ru_minflt
        work()
        seconds = time.perf_counter() - start
        print(f"took {seconds} {_usage().ru_minflt - before}", flush=True)
    print(f"peak {_usage().ru_maxrss * 1024 / 1e9}", flush=True)  # Linux counts in KiB


def _usage() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_SELF)


def compare(what: str, script: str, names: dict[str, str], rounds: int, unit: str) -> None:
    """Prints seconds (median, range), page faults (median), peak memory, and ratios of seconds.

    Args:
      what: the heading.
      script: path of the worker script.
      names: worker name -> the Python that runs it; the first one is ours.
      rounds: turns that each gets.
      unit: what one piece of work is.
    """
    workers = {name: Worker(python, script, name) for name, python in names.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    faults: dict[str, list[int]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, worker in workers.items():
            took, faulted = worker.work()
            seconds[name].append(took)
            faults[name].append(faulted)
    print(f"\n{what} ({rounds} interleaved rounds)")
    print(
        f"{'':32}{'s/' + unit + ' median':>16}{'min':>8}{'max':>8}{'faults':>9}{'peak GB':>9}"
        "  ratio to the first"
    )
    ours = seconds[next(iter(names))]
    for name, values in seconds.items():
        pairs = sorted(theirs / mine for theirs, mine in zip(values, ours, strict=True))
        ratio = f"{statistics.median(pairs):.2f} [{pairs[0]:.2f}, {pairs[-1]:.2f}]"
        print(
            f"{name:32}{statistics.median(values):16.3f}{min(values):8.3f}{max(values):8.3f}"
            f"{statistics.median(faults[name]):9.0f}{workers[name].close():9.2f}  {ratio}"
        )
