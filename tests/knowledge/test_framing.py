"""Prepositions before answers: none doubled, none lost."""

import pytest

from kaft_promot.knowledge import CorpusIndex, QAExample, Rejects, Settings, augment
from kaft_promot.knowledge.corpus import Entity
from kaft_promot.knowledge.framing import fitting, is_framed


def asked(name: str, answers: tuple[str, ...], context: str) -> QAExample:
    return QAExample(
        id=name,
        source="test",
        question=f"What of {name}?",
        context=context,
        answers=answers,
        answer_type="time",
    )


@pytest.mark.parametrize(
    ("answers", "context", "other", "new"),
    [
        (("in 1041", "1041"), "She was born in 1041 there.", ("in 1900",), None),
        (("in 1041", "1041"), "She was born in 1041 there.", ("in 1900", "1900"),
         "She was born in 1900 there."),
        (("in 1041",), "It fell in 1041.", ("1900",), None),
        (("in 1041",), "It fell in 1041.", ("in 1900", "1900"), "It fell in 1900."),
        (("in 1041",), "In 1041 it fell.", ("1900", "in 1900"), "In 1900 it fell."),
        (("in 1041",), "In 1041 it rose; it fell in 1041.", ("in 1900",),
         "In 1900 it rose; it fell in 1900."),
        (("In 1041",), "Built: in 1041.", ("in 1900",), "Built: in 1900."),
        (("in 1041",), "It fell in 1041.", ("In Bruges",), None),
        (("In Bruges",), "He saw In Bruges.", ("Emma",), "He saw Emma."),
        (("In Bruges", "Bruges"), "He saw In Bruges.", ("Of Mice",), None),
        (("in 1041", "year one"), "It fell in 1041, year one.", ("in 1900", "1900"), None),
    ],
)  # fmt: skip
def test_defect_prepositions_doubled_or_lost(
    answers: tuple[str, ...], context: str, other: tuple[str, ...], new: str | None
) -> None:
    one = asked("one", answers, context)
    two = asked("two", other, "x")
    rejects = Rejects()
    only = Settings(kinds=("counterfactual",))
    made = augment([one], None, index=CorpusIndex([one, two]), rejects=rejects, settings=only)
    assert [record.context for record in made] == ([] if new is None else [new])
    assert rejects.counts == ({"counterfactual/no_proposal": 1} if new is None else {})


@pytest.mark.parametrize(
    ("context", "mention", "framed"),
    [
        ("She left in May.", "in May", True),
        ("In May she left.", "In May", True),
        ("It ended. In May she left.", "In May", True),
        ("He saw In Bruges.", "In Bruges", False),
        ("She left May.", "May", False),
        ("Inside it is.", "Inside", False),
    ],
)
def test_a_title_is_not_framed(context: str, mention: str, framed: bool) -> None:
    start = context.index(mention)
    assert is_framed(context, (start, start + len(mention))) == framed


def test_the_first_way_to_write_it_that_fits() -> None:
    may = Entity(("May", "month of May", "In May", "in May"), ())
    assert (fitting(may, False), fitting(may, True)) == ("May", "in May")
    assert fitting(Entity(("in May,",), ()), True) is None
    assert fitting(Entity(("in May",), ()), False) is None
