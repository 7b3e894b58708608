"""Small corpora for the knowledge tests."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings

from kaft_promot.knowledge import QAExample

# A busy machine is no failure; examples are the same in every run.
settings.register_profile("knowledge", deadline=None, derandomize=True)
settings.load_profile("knowledge")

Write = Callable[[str, Iterable[Any]], pathlib.Path]

CITIES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Quito", "Tokyo", "Delhi", "Accra", "Minsk")


def qa(number: int, answer: str = "Paris", **fields: Any) -> QAExample:
    """An example about person `number`, born in a city."""
    values: dict[str, Any] = {
        "id": f"q{number}",
        "source": "test",
        "question": f"Where was Person{number} born?",
        "context": f"Person{number} was born in {answer} in spring.",
        "answers": (answer,),
        "relation": "P19",
        "subject": f"Person{number}",
    }
    return QAExample(**(values | fields))


@pytest.fixture
def people() -> list[QAExample]:
    """Thirty people born in ten cities."""
    return [qa(i, CITIES[i % len(CITIES)]) for i in range(30)]


@pytest.fixture
def write_rows(tmp_path: pathlib.Path) -> Write:
    """Writes JSON lines: objects as JSON, bytes as they are."""

    def write(name: str, rows: Iterable[Any]) -> pathlib.Path:
        path = tmp_path / name
        with path.open("wb") as out:
            for row in rows:
                line = row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n"
                out.write(line)
        return path

    return write
