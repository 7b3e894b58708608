"""mini's SentencePiece vocabulary: unigram, T5's special ids, bytes for what it has no piece for,
single digits.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sentencepiece

from kaft_promot.knowledge.relations import RELATIONS
from kaft_promot.mini.fewshot import LETTERS, SEPARATOR, TARGETS_PREFIX, TASKS
from kaft_promot.mini.words import KINDS, WORDS

PIECES = 3996  # with the 100 extra ids that feeding adds: 4096
TASK_WORDS = (
    *WORDS,
    *KINDS,
    *TASKS,
    *LETTERS,
    *LETTERS.upper(),
    "yes",
    "no",
    "True",
    "False",
    "has",
    "is",
    "find",
    "question",
    "context",
    "unanswerable",
    "from",
    "irrelevant",
    "empty",
    "true",
    "false",
)


def training_text(sentences: Sequence[str], wiki: Iterable[str], seed: int) -> Iterator[str]:
    """Sentences of facts, of Wikipedia, questions, and the few-shot tasks' words often enough to
    get pieces of their own.
    """
    rng = random.Random(f"{seed} vocabulary")
    yield from sentences
    yield from wiki
    for relation in RELATIONS.values():
        for question in relation.questions:
            yield from ["question: " + question.replace("{subject}", "") + " context:"] * 200
    words = list(TASK_WORDS)
    for _ in range(800):
        rng.shuffle(words)
        yield " ".join(words)
        yield (
            " ".join(f"{name}:{TARGETS_PREFIX}{SEPARATOR}" for name in TASKS)
            + " , (from context) (irrelevant context)"
        )


def wiki_sentences(paragraphs: Iterable[str], count: int, seed: int) -> list[str]:
    """About `count` sentences drawn from paragraphs."""
    found = [
        s for p in paragraphs for s in re.split(r"(?<=[.!?]) (?=[A-Z])", p) if 30 <= len(s) <= 250
    ]
    random.Random(f"{seed} wiki").shuffle(found)
    return found[:count]


def train_vocabulary(text: Iterable[str], path: str | Path, pieces: int = PIECES) -> None:
    """Writes a SentencePiece model of `pieces` pieces (pad 0, eos 1, unk 2, no bos) to `path`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        vocab_size=pieces,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        byte_fallback=True,
        split_digits=True,
        character_coverage=0.9995,
        normalization_rule_name="nmt_nfkc",
        num_threads=2,
        minloglevel=2,
        max_sentence_length=8192,
        shuffle_input_sentence=False,
        remove_extra_whitespaces=True,
        user_defined_symbols=["▁=", "▁;", "▁,"],
    )
    Path(path).write_bytes(model.getvalue())
