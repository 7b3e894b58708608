"""How many KAFT records a second `augment` makes, and that its work is linear in the input.

    python benchmarks/augment_speed.py --input questions.jsonl.gz

Makes all four context kinds at 1, 2 and 4 times the input (copies with new ids and titles, and one
word added to every context, so that nothing is cached from another copy), in one process on one
core, and prints a table. CPU seconds are the process's own, so other work on the machine does not
count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import tempfile
import time

from kaft_promot.knowledge import QAExample, augment_file, read_examples


def write_copies(examples: list[QAExample], copies: int, path: pathlib.Path) -> None:
    """Writes the examples `copies` times as plain JSON lines, each copy its own corpus."""
    with path.open("w", encoding="utf-8") as out:
        for copy in range(copies):
            for example in examples:
                row = dataclasses.asdict(example)
                row |= {"id": f"{example.id}-{copy}", "title": f"{example.title} {copy}"}
                if example.context is not None:
                    row["context"] = f"{example.context} (copy{copy})"
                out.write(json.dumps(row) + "\n")


def measure(path: pathlib.Path, answers: dict[str, str]) -> tuple[int, float, float]:
    """Returns (records written, wall seconds, CPU seconds) of one run."""
    with tempfile.TemporaryDirectory() as output:
        wall, cpu = time.perf_counter(), time.process_time()
        summary = augment_file(
            path, output, format="jsonl", parametric_answers=answers, base_checkpoint="none"
        )
        return summary.records, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True, help="a question file, e.g. of SQuAD 2.0")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    examples = list(read_examples(options.input))
    titles = ("input", "examples", "records", "wall s", "CPU s", "records/CPU s")
    print("{:>6} {:>9} {:>9} {:>8} {:>8} {:>14}".format(*titles))
    with tempfile.TemporaryDirectory() as folder:
        for copies in options.copies:
            path = pathlib.Path(folder, "input.jsonl")
            write_copies(examples, copies, path)
            answers = {f"{e.id}-{c}": "an answer" for e in examples for c in range(copies)}
            records, wall, cpu = measure(path, answers)
            print(
                f"{copies:>5}x {len(answers):>9,} {records:>9,} {wall:>8.2f} {cpu:>8.2f}"
                f" {records / cpu:>14,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
