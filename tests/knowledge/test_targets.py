"""Target texts: what is announced can be stripped again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaft_promot.knowledge import KINDS, format_input, format_target, split_source
from kaft_promot.knowledge.targets import source_of


@given(st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1))
def test_suffixes_strip(answer: str) -> None:
    for kind in KINDS:
        assert split_source(format_target(answer, kind)) == (answer.strip(), source_of(kind))
        assert format_target(answer, kind, suffixes=False) == answer


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("Rome (from context)", ("Rome", "context")),
        (" Rome (irrelevant context) ", ("Rome", "irrelevant context")),
        ("Rome(empty context)", ("Rome", "empty context")),
        ("(from context)", ("", "context")),
        ("Rome (Italy)", ("Rome (Italy)", None)),
        ("", ("", None)),
    ],
)
def test_split_source(text: str, split: tuple[str, str | None]) -> None:
    assert split_source(text) == split


def test_inputs_are_one_line() -> None:
    assert (
        format_input(" Who\n is it? ", "It is\n Ada. ")
        == "question: Who is it? context: It is Ada."
    )
    assert format_input("Who?", "") == format_input("Who?") == "question: Who?"
