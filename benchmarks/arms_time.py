"""How long the command in each arm's recipe takes on mini, on this machine.

    kaft-promot quickstart --half=kaft
    python benchmarks/arms_time.py runs/quickstart/records

Gives the commands at the head of `gin/recipes/*.gin` on these KAFT records, each for a few steps,
and prints the time of a step, how that stands to plain fine-tuning's, and what the recipe's steps
would take. Compilation, evaluation and checkpoints are not in it.
"""

from __future__ import annotations

import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

STEPS, WINDOW = 21, 3  # the first window, with the compilation in it, is left out
# Recipe, and the steps that it makes by itself. The first ones give what later ones start from.
ARMS = {
    "finetune": 1000,
    "promot_stage1": 5000,
    "promot_stage2": 1000,
    "promot_1shot": 1000,
    "promot_joint": 1000,
    "promot_random_prompt": 1000,
    "lora": 1000,
    "lora_then_model": 1000,
}
RECIPES = pathlib.Path(__file__).resolve().parent.parent / "gin" / "recipes"


def command_of(recipe: str) -> list[str]:
    """The first command at the head of a recipe, as arguments."""
    head = [
        line[1:].strip().removesuffix("\\")
        for line in (RECIPES / f"{recipe}.gin").read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    ]
    start = next(i for i, line in enumerate(head) if line.startswith("kaft-promot train"))
    end = next(i for i, line in enumerate(head[start:], start) if not line)
    return re.findall(r'(?:[^\s"]|"[^"]*")+', " ".join(head[start:end]))


def seconds_a_step(recipe: str, records: str, folder: pathlib.Path) -> float:
    """Gives the command, for a few steps, and reads the time of a step from its metrics."""
    # Nothing is evaluated here, so that no checkpoint is the best: the run's last one does as well.
    arguments = [a.replace('"', "").replace("/checkpoints/best", "") for a in command_of(recipe)]
    model_dir = next(a for a in arguments if "MODEL_DIR=" in a).partition("=")[2]
    few = {
        "kaft_records.directory": f"'{records}'",
        "TRAIN_STEPS": STEPS,
        "SAVING_PERIOD": STEPS,
        "CheckpointConfig.metric_name_to_monitor": None,
        "train.train_eval_dataset_cfg": None,
        "train.stats_period": WINDOW,
    }
    arguments = [a for a in arguments if a.partition("=")[0][6:] not in few]
    arguments += [f"--gin.{name}={value}" for name, value in few.items()]
    done = subprocess.run(
        # The command itself, which sets malloc before it starts.
        [pathlib.Path(sys.executable).with_name("kaft-promot"), *arguments[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{recipe}: {done.stderr.strip().splitlines()[-1]}")
    rows = map(json.loads, (folder / model_dir / "metrics.jsonl").read_text().splitlines())
    rates = [row["timing/steps_per_second"] for row in rows if "timing/steps_per_second" in row]
    return 1 / statistics.median(rates[1:])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} RECORDS, the folder of train.jsonl")
    records = str(pathlib.Path(sys.argv[1]).resolve())
    print(f"{'recipe':22}{'s a step':>10}{'finetune = 1':>14}{'steps':>8}{'minutes':>9}")
    with tempfile.TemporaryDirectory() as folder:
        first = None
        for recipe, steps in ARMS.items():
            time = seconds_a_step(recipe, records, pathlib.Path(folder))
            first = first or time
            print(
                f"{recipe:22}{time:10.2f}{time / first:14.2f}{steps:8}{time * steps / 60:9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
