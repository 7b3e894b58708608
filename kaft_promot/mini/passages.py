"""Questions of SQuAD 2.0 and Natural Questions with the sentence around their answer, as further
practice in copying.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kaft_promot.mini.facts import find_words, json_rows

MAX_CHARS, MAX_ANSWER_WORDS = 220, 5


def untokenized(text: str) -> str:
    """Natural Questions' spaced tokens as ordinary text."""
    text = re.sub(r" ([.,;:?!)%]|'s\b)", r"\1", text.replace("`` ", '"').replace(" ''", '"'))
    return text.replace("( ", "(").replace(" -- ", " - ")


def read_passages(path: str | Path) -> Iterator[dict[str, str]]:
    """`question`, `context` (the answer's sentence) and `answer` of every short answer of a JSONL
    file.
    """
    for row in json_rows(path, ("question", "context")):
        if row.get("is_impossible") or not row.get("answers"):
            continue
        answer, context = (
            untokenized(row["answers"][0]),
            untokenized(" ".join(row["context"].split())),
        )
        starts = find_words(answer, context) if 0 < len(answer.split()) <= MAX_ANSWER_WORDS else []
        if not starts:
            continue
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z\"])", context):
            if find_words(answer, sentence):
                if len(sentence) + len(row["question"]) <= MAX_CHARS:
                    yield {
                        "question": row["question"].strip(),
                        "context": sentence,
                        "answer": answer,
                    }
                break


def read_wiki(path: str | Path, limit: int = 600) -> Iterator[str]:
    """First paragraphs of the articles of a JSONL file with `text`."""
    for number, row in enumerate(json_rows(path, ("text",))):
        if number >= limit:
            return
        yield from (p for p in row["text"].split("\n")[:12] if len(p) > 60)
