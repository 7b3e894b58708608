"""Builds mini's training data: `python -m kaft_promot.mini.build --trex DIR --wiki FILE --squad
FILE --output DIR`.

Writes `facts.jsonl.gz`, `quickstart.facts.jsonl.gz` (what the package ships of them),
`vocab.model`, `train.*.jsonl` and `validation.*.jsonl` for every task of `tasks/mini.py`,
`test.reading.jsonl`, `fewshot/{task}.{train,validation}.jsonl` and `statistics.json`; the same
bytes for the same seed.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from kaft_promot.knowledge.relations import RELATIONS
from kaft_promot.knowledge.targets import format_input
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.fewshot import MAX_SHOTS, TASKS, draw_example, draw_item
from kaft_promot.mini.matching import draw_names
from kaft_promot.mini.options import draw_options
from kaft_promot.mini.passages import read_passages, read_wiki
from kaft_promot.mini.questions import draw_questions
from kaft_promot.mini.reading import Reader, held_out_examples
from kaft_promot.mini.vocabulary import PIECES, train_vocabulary, training_text, wiki_sentences
from kaft_promot.mistakes import Parser, at_least_one, exit_status

INPUT_LENGTH, TARGET_LENGTH = 128, 40  # tokens with the end token; longer examples are left out
# Training examples; FEWSHOT: of every task.
READING, QUOTE, COPY, FEWSHOT = 240_000, 80_000, 20_000, 12_000
NAMES, QUESTIONS, OPTIONS = 120_000, 160_000, 100_000


class Writer:
    """Writes examples that fit the lengths, and counts tokens."""

    def __init__(self, directory: Path, vocabulary: sentencepiece.SentencePieceProcessor):
        self.directory, self.vocabulary = directory, vocabulary
        self.statistics: dict[str, dict[str, object]] = {}

    def write(self, name: str, examples: Iterable[dict]) -> None:
        rows = list(examples)
        sizes = [
            [len(ids) + 1 for ids in self.vocabulary.encode([row[key] for row in rows])]
            for key in ("inputs", "targets")
        ]
        lengths: list[tuple[int, int]] = []
        path = self.directory / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8") as out:
            for row, size in zip(rows, zip(*sizes, strict=True), strict=True):
                if size[0] <= INPUT_LENGTH and size[1] <= TARGET_LENGTH:
                    lengths.append(size)
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
        counts: dict[str, object] = {
            "examples": len(lengths),
            "too_long": len(rows) - len(lengths),
        }
        self.statistics[name] = counts
        if not lengths:
            return
        inputs, targets = (sorted(column) for column in zip(*lengths, strict=True))
        self.statistics[name] = counts | {
            "inputs_mean": round(sum(inputs) / len(inputs), 1),
            "inputs_90": inputs[int(0.9 * len(inputs))],
            "inputs_max": inputs[-1],
            "share_above_96": round(sum(n > 96 for n in inputs) / len(inputs), 3),
            "targets_mean": round(sum(targets) / len(targets), 1),
            "targets_max": targets[-1],
        }


def closed_book_examples(
    facts: Sequence[facts_lib.Fact], splits: Sequence[str], wordings: int | None = None
):
    """Every fact of `splits` in all its wordings, or the first `wordings`."""
    for fact in facts:
        if fact.split in splits:
            for wording in range(wordings or len(RELATIONS[fact.relation].questions)):
                yield {
                    "inputs": format_input(fact.question(wording)),
                    "targets": fact.answer,
                    "fact": fact.id,
                    "split": fact.split,
                }


def fewshot_examples(count: int, split: str, seed: int, shots: Sequence[int]):
    """`count` prompts of every task at shot counts drawn from `shots`."""
    rng = random.Random(f"{seed} fewshot {split}")
    for _ in range(count):
        for task in TASKS.values():
            number = rng.choice(shots)
            yield {**draw_example(task, split, number, rng), "task": task.name, "shots": number}


def copying_examples(
    count: int, vocabulary: sentencepiece.SentencePieceProcessor, seed: int
) -> Iterator[dict[str, str]]:
    """Random pieces of the vocabulary, 4 to 24 of them, to be written again as they are.

    Nothing but copying can do it: language gives no hint what comes next. Every piece is learned
    both to read and to write.
    """
    rng = random.Random(f"{seed} copying")
    pieces = [i for i in range(vocabulary.get_piece_size()) if _is_text(vocabulary, i)]
    for _ in range(count):
        text = vocabulary.decode(rng.choices(pieces, k=rng.randint(4, 24))).strip()
        yield {"inputs": text, "targets": text}


def _is_text(vocabulary: sentencepiece.SentencePieceProcessor, i: int) -> bool:
    special = vocabulary.is_control(i) or vocabulary.is_unknown(i) or vocabulary.is_byte(i)
    return not special and bool(vocabulary.id_to_piece(i).strip("\u2581"))


def shuffled(examples: Iterable[dict], seed: int) -> list[dict]:
    found = list(examples)
    random.Random(f"{seed} order").shuffle(found)
    return found


def build(
    trex: Path,
    wiki: Path,
    passages: Sequence[Path],
    output: Path,
    seed: int = 0,
    *,
    reading: int = READING,
    quote: int = QUOTE,
    names: int = NAMES,
    questions: int = QUESTIONS,
    options: int = OPTIONS,
    copy: int = COPY,
    fewshot: int = FEWSHOT,
    sizes: facts_lib.SplitSizes = facts_lib.DEFAULT_SIZES,
    pieces: int = PIECES,
) -> dict[str, object]:
    """Makes the whole data set in `output`; returns its statistics.

    Args:
      trex: folder of T-REx files in LAMA's form.
      wiki: JSONL of Wikipedia articles, for the vocabulary only.
      passages: SQuAD or NQ files for practice in copying.
      reading: training examples of reading.
      copy: training examples of copying random pieces.
      quote: training examples of quoting.
      names: training examples of matching names.
      questions: training examples of several questions.
      options: training examples of proposed answers.
      fewshot: training examples of every few-shot task.
      sizes: numbers of facts of every split.
      pieces: of the vocabulary, without the extra ids.
    """
    output.mkdir(parents=True, exist_ok=True)
    facts = facts_lib.split_facts(facts_lib.read_facts(trex), seed, sizes)
    facts_lib.write_facts(facts, output / "facts.jsonl.gz")
    shipped = [f for f in facts if f.split in facts_lib.SHIPPED_SPLITS]
    facts_lib.write_facts(shipped, output / "quickstart.facts.jsonl.gz")
    seen = sorted({s for f in facts if f.split not in facts_lib.UNREAD for s in f.sentences})
    text = training_text(seen, wiki_sentences(read_wiki(wiki), 20_000, seed), seed)
    train_vocabulary(text, output / "vocab.model", pieces)
    writer = Writer(
        output, sentencepiece.SentencePieceProcessor(model_file=str(output / "vocab.model"))
    )

    remembered = facts_lib.REMEMBERED
    writer.write("train.closed_book", shuffled(closed_book_examples(facts, remembered), seed))
    writer.write(
        "validation.closed_book",
        closed_book_examples(
            facts, (facts_lib.REMEMBERED_VALIDATION, facts_lib.REMEMBERED_TEST), 1
        ),
    )
    reader = Reader(facts, seed)
    copying = [
        {"inputs": format_input(p["question"], p["context"]), "targets": p["answer"]}
        for path in passages
        for p in read_passages(path)
        if not reader.held_out.in_text(f"{p['question']} {p['context']}")
    ]
    drawn = [reader.draw() for _ in range(reading)]
    writer.write("train.reading", shuffled(drawn + copying * 2, seed))
    writer.write("train.copy", copying_examples(copy, writer.vocabulary, seed))
    writer.write("validation.copy", copying_examples(200, writer.vocabulary, seed + 1))
    quoter = Reader(facts, seed)
    quoter.rng = random.Random(f"{seed} quote")
    writer.write("train.quote", [quoter.draw_quote() for _ in range(quote)])
    quoter.rng = random.Random(f"{seed} quote validation")
    writer.write("validation.quote", [quoter.draw_quote() for _ in range(200)])
    quoter.rng = random.Random(f"{seed} match")
    writer.write("train.names", draw_names(quoter, names))
    quoter.rng = random.Random(f"{seed} match validation")
    writer.write("validation.names", draw_names(quoter, 400, "validation"))
    quoter.rng = random.Random(f"{seed} questions")
    writer.write("train.questions", draw_questions(facts, quoter, questions))
    quoter.rng = random.Random(f"{seed} questions validation")
    writer.write("validation.questions", draw_questions(facts, quoter, 200))
    quoter.rng = random.Random(f"{seed} options")
    writer.write("train.options", draw_options(facts, quoter, options))
    quoter.rng = random.Random(f"{seed} options validation")
    writer.write("validation.options", draw_options(facts, quoter, 300))
    for name, split in (
        ("validation", facts_lib.READING_VALIDATION),
        ("test", facts_lib.READING_TEST),
    ):
        writer.write(
            f"{name}.reading",
            [row for n in (0, 2) for row in held_out_examples(facts, split, n, seed)],
        )
    writer.write(
        "train.fewshot",
        shuffled(fewshot_examples(fewshot, "train", seed, range(MAX_SHOTS + 1)), seed),
    )
    writer.write("validation.fewshot", fewshot_examples(25, "validation", seed, (2,)))
    for task in TASKS.values():
        for split, count in (("train", 2000), ("validation", 200)):
            rng = random.Random(f"{seed} items {task.name} {split}")
            items = dict(draw_item(task, split, rng) for _ in range(count))
            writer.write(
                f"fewshot/{task.name}.{split}",
                [{"inputs": x, "targets": y} for x, y in items.items()],
            )
    statistics = {"splits": dict(Counter(f.split for f in facts)), "files": writer.statistics}
    (output / "statistics.json").write_text(json.dumps(statistics, indent=1) + "\n")
    return statistics


def main(arguments: Sequence[str] | None = None) -> int:
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> None:
    parser = Parser(prog="python -m kaft_promot.mini.build", description=__doc__)
    parser.add_argument("--trex", type=Path, required=True, help="folder of trex*.jsonl.gz")
    parser.add_argument(
        "--wiki", type=Path, required=True, help="JSONL of Wikipedia articles with `text`"
    )
    parser.add_argument("--squad", type=Path, help="SQuAD 2.0 as JSONL")
    parser.add_argument("--nq", type=Path, help="Natural Questions as JSONL")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    for kind, size, text in (
        ("reading", READING, "reading examples"),
        ("quote", QUOTE, "quoting examples"),
        ("names", NAMES, "examples of matching names"),
        ("questions", QUESTIONS, "examples of several questions"),
        ("options", OPTIONS, "examples of proposed answers"),
        ("copy", COPY, "copying examples"),
        ("fewshot", FEWSHOT, "examples of every few-shot task"),
    ):
        parser.add_argument(f"--{kind}", type=at_least_one, default=size, help=text)
    args = parser.parse_args(arguments)
    statistics = build(
        args.trex,
        args.wiki,
        [p for p in (args.squad, args.nq) if p],
        args.output,
        args.seed,
        reading=args.reading,
        quote=args.quote,
        names=args.names,
        questions=args.questions,
        options=args.options,
        copy=args.copy,
        fewshot=args.fewshot,
    )
    print(json.dumps(statistics, indent=1))


if __name__ == "__main__":
    sys.exit(main())
