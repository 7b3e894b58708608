"""mini's score card: `python -m kaft_promot.mini.score --checkpoint mini`.

Closed book over all remembered facts, reading over facts that no training held (their sentence
alone and among two others), and every few-shot task on held-out inputs at 0, 1, 2 and 4 shots. The
figures are exact match, for facts after SQuAD's normalisation, with n and a 95 % interval.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from kaft_promot.decoding import Predictor
from kaft_promot.errors import UserError
from kaft_promot.evaluation.statistics import Estimate, bootstrap
from kaft_promot.knowledge.targets import format_input
from kaft_promot.knowledge.text import normalize_answer
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.fewshot import SHOTS, TASKS, draw_example
from kaft_promot.mini.reading import held_out_examples
from kaft_promot.mistakes import Parser, at_least_one, exit_status


def score_rows(facts: Sequence[facts_lib.Fact], per_task: int, seed: int) -> list[dict[str, str]]:
    """Everything to ask: rows of `inputs`, `targets` and the `name` of their figure."""
    rows = []
    for split in facts_lib.REMEMBERED:
        for fact in facts:
            if fact.split == split:
                prompt = format_input(fact.question())
                rows.append(
                    {"inputs": prompt, "targets": fact.answer, "name": f"closed_book {split}"}
                )
    for distractors, name in ((0, "own sentence"), (2, "among three")):
        for row in held_out_examples(facts, facts_lib.READING_TEST, distractors, seed):
            rows.append(row | {"name": f"reading {name}"})
    for task in TASKS.values():
        for shots in SHOTS:
            rng = random.Random(f"{seed} score {task.name}")  # the same queries at every shot count
            for _ in range(per_task):
                row = draw_example(task, "validation", shots, random.Random(rng.random()))
                name = f"{task.output} {task.name} {shots}-shot"
                rows.append(row | {"name": name, "task": task.name})
    return rows


def score(predictor: Predictor, rows: Sequence[dict[str, str]]) -> dict[str, Estimate]:
    """Exact match of every figure in `rows`, in the order of their first row."""
    predictions = predictor.generate([row["inputs"] for row in rows], progress=True)
    hits: dict[str, list[float]] = {}
    for row, prediction in zip(rows, predictions, strict=True):
        if "task" in row:  # exactly: normalisation would delete the label "A" as an article
            right = prediction.strip() == row["targets"]
        else:
            right = normalize_answer(prediction) == normalize_answer(row["targets"])
        hits.setdefault(row["name"], []).append(float(right))
    return {name: bootstrap(values) for name, values in hits.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m kaft_promot.mini.score", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="'mini' or a checkpoint's path")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder that kaft_promot.mini.build wrote (default: shipped facts)",
    )
    parser.add_argument("--vocabulary", help="where the checkpoint does not name its own")
    parser.add_argument("--per_task", type=at_least_one, default=100, help="inputs a few-shot task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file to write as well")
    args = parser.parse_args(arguments)
    from kaft_promot.infer import load_predictor  # only here: tests score without a checkpoint

    if args.output and args.output.is_dir():
        raise UserError(f"--output={args.output}: is a folder; name a file")
    facts = facts_lib.load_facts(args.data and args.data / "facts.jsonl.gz")
    predictor = load_predictor(
        args.checkpoint, vocabulary=args.vocabulary, max_input_length=128, max_decode_length=16
    )
    if args.output:  # before minutes of scoring
        args.output.parent.mkdir(parents=True, exist_ok=True)
    estimates = score(predictor, score_rows(facts, args.per_task, args.seed))
    for name, e in estimates.items():
        print(f"{name:40s} {e.value:6.1%}  [{e.low:.1%}, {e.high:.1%}]  n={e.n}")
    if args.output:
        args.output.write_text(json.dumps({k: e.to_json() for k, e in estimates.items()}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
