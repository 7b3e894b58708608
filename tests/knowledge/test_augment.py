"""Augmentation: the defects of other generators, nothing lost, nothing left to chance."""

from __future__ import annotations

import random
from typing import Any

import pytest
from augment_rows import OTHERS

from kaft_promot.knowledge import (
    CorpusIndex,
    KaftRecord,
    QAExample,
    Rejects,
    Settings,
    augment,
)


def example(**fields: Any) -> QAExample:
    values: dict[str, Any] = {
        "id": "q",
        "source": "test",
        "question": "Who was it?",
        "context": "It was Obama.",
        "answers": ("Obama",),
        "answer_type": "place",
        "title": "It",
    }
    return QAExample(**(values | fields))


def corpus() -> list[QAExample]:
    return [
        QAExample(source="test", **(row | {"answers": tuple(row["answers"])}))  # type: ignore[arg-type]
        for row in OTHERS
    ]


def records_of(
    one: QAExample, parametric: str | None = "Peru", **settings: Any
) -> tuple[dict[str, KaftRecord], dict[str, int]]:
    """Records by kind and the counts of reasons, in the company of seven other examples."""
    rejects = Rejects()
    answers = {} if parametric is None else {one.id: parametric}
    made = augment(
        [one],
        answers,
        index=CorpusIndex([one, *corpus()]),
        settings=Settings(**settings),
        rejects=rejects,
    )
    return {record.context_kind: record for record in made}, dict(rejects.counts)


def test_the_four_kinds() -> None:
    made, reasons = records_of(example(), parametric="Mr Peru", base_checkpoint="mini", seed=5)
    assert list(made) == ["relevant", "counterfactual", "irrelevant", "empty"] and not reasons
    assert made["relevant"].target == "Obama (from context)"
    new = made["counterfactual"].answer
    assert made["counterfactual"].context == f"It was {new}."
    assert made["counterfactual"].target == f"{new} (from context)"
    assert made["irrelevant"].target == "Mr Peru (irrelevant context)"
    assert made["irrelevant"].context in [row["context"] for row in OTHERS]
    assert made["empty"].target == "Mr Peru (empty context)" and made["empty"].context == ""
    for record in made.values():
        assert record.violations() == []
        assert (record.base_checkpoint, record.seed) == ("mini", 5)
        assert (record.parametric_answer, record.gold_answers) == ("Mr Peru", ("Obama",))


def test_defect_word_inside_a_word() -> None:
    made, _ = records_of(example(context="Obamacare is not by Obama alone. Obama's it is."))
    record = made["counterfactual"]
    assert record.context == f"Obamacare is not by {record.answer} alone. {record.answer}'s it is."


def test_defect_nested_aliases() -> None:
    context = "New York City, New York and York, NYC"
    aliases = ["New York City", "New York", "York", "NYC"]
    seen = set()
    for seed in range(6):
        random.Random(seed).shuffle(aliases)
        made, _ = records_of(example(context=context, answers=("New York City", *aliases)))
        seen.add(made["counterfactual"].context)
        new = made["counterfactual"].answer
    assert seen == {f"{new}, {new} and {new}, {new}"}


def test_defect_offsets_of_lower_cased_text() -> None:
    context = "İİİ İzmir ﬁrst Straße: It was Obama, İ Obama."
    made, _ = records_of(example(context=context))
    record = made["counterfactual"]
    assert record.context == context.replace("Obama", record.answer)
    assert record.substitution is not None and len(record.substitution.spans) == 2
    for start, end in record.substitution.spans:
        assert record.context[start:end] == record.answer


def test_defect_alias_of_the_old_answer_proposed() -> None:
    one = example(answers=("United States",), context="It was the United States.")
    usa = example(id="usa", answers=("USA", "United States"), context="In the USA.")
    rejects = Rejects()
    made = augment([one, usa], {}, settings=Settings(kinds=("counterfactual",)), rejects=rejects)
    assert list(made) == [] and rejects.counts == {"counterfactual/no_parametric_answer": 2}
    made = augment([one, usa], None, settings=Settings(kinds=("counterfactual",)), rejects=rejects)
    assert list(made) == []
    assert rejects.counts["counterfactual/no_proposal"] == 2


def test_defect_old_answer_left_in_the_counterfactual() -> None:
    # "us" is no mention to be replaced, but "US" may stand there: better no record
    made, reasons = records_of(example(answers=("US",), context="It gave us the US army."))
    assert "counterfactual" not in made
    assert reasons == {"counterfactual/old_answer_in_context": 1}


def test_defect_gold_answer_in_the_irrelevant_context() -> None:
    one = example(answers=("Norway", "Oslo", "Kristiania"))
    for seed in range(30):
        made, _ = records_of(one, seed=seed)
        assert "Oslo" not in made["irrelevant"].context


def test_defect_type_with_one_member() -> None:
    made, reasons = records_of(example(answer_type="lonely"))
    assert "counterfactual" not in made
    assert reasons == {"counterfactual/no_proposal": 1}


def test_defect_unseeded_randomness() -> None:
    answers = {records_of(example())[0]["counterfactual"].answer for _ in range(5)}
    assert len(answers) == 1
    seeds = {records_of(example(), seed=seed)[0]["counterfactual"].answer for seed in range(150)}
    assert len(seeds) == len(OTHERS)


def test_defect_target_of_a_dropped_passage() -> None:
    """Irrelevant and empty targets are the base model's answer whatever the passage says."""
    for context in ("It was Obama.", "It was Peru.", "Nothing."):
        made, _ = records_of(example(context=context))
        assert made["irrelevant"].answer == made["empty"].answer == "Peru"


def test_the_parametric_answer_is_not_proposed() -> None:
    for seed in range(40):
        made, _ = records_of(example(), parametric="Oslo!", seed=seed)
        assert made["counterfactual"].answer != "Oslo"


def test_the_relevant_answer_is_the_alias_that_stands_there() -> None:
    made, _ = records_of(example(answers=("Barack Obama", "Obama")))
    assert made["relevant"].answer == "Obama"
    assert made["relevant"].answer_aliases == ("Barack Obama", "Obama")


@pytest.mark.parametrize(
    ("answer", "context"),
    [
        ("US", "They told us that the war was lost."),
        ("1.5", "There were 15 people in it."),
        ("The Who", "Who sang it? Nobody."),
        ("New York", "He was in New. York came next."),
        ("U.S.", "He left the U.S.S.R."),
    ],
)
def test_defect_a_relevant_context_without_the_answer(answer: str, context: str) -> None:
    """What only the widest reading sees is a reason to refuse, never one to accept."""
    one = example(question="Which one?", answers=(answer,), context=context)
    made, reasons = records_of(one)
    assert not made.keys() & {"relevant", "counterfactual"}
    kinds = ("relevant", "counterfactual")
    assert reasons == {f"{kind}/answer_not_in_context": 1 for kind in kinds}


def test_what_was_replaced_is_a_mention() -> None:
    made, _ = records_of(example(answers=("the Obama", "Obama")))
    change = made["counterfactual"].substitution
    assert change is not None and change.old == made["relevant"].answer == "Obama"


@pytest.mark.parametrize(
    ("fields", "parametric", "reasons"),
    [
        ({"context": "It was Obamacare."}, "Peru",
         {"relevant/answer_not_in_context": 1, "counterfactual/answer_not_in_context": 1}),
        ({"question": "Was Obama it?"}, "Peru", {"counterfactual/answer_in_question": 1}),
        ({}, None, {"counterfactual/no_parametric_answer": 1, "empty/no_parametric_answer": 1,
                    "irrelevant/no_parametric_answer": 1}),
        ({}, " the ", {"irrelevant/empty_parametric_answer": 1,
                       "empty/empty_parametric_answer": 1}),
    ],
)  # fmt: skip
def test_every_refusal_has_its_reason(
    fields: dict[str, Any], parametric: str | None, reasons: dict[str, int]
) -> None:
    assert records_of(example(**fields), parametric)[1] == reasons


@pytest.mark.parametrize(
    ("question", "answer", "context", "refused"),
    [
        ("Who wrote it?", "Will",
         "Will wrote the hymn. It will be sung on Sunday, and people will listen.", True),
        ("Where is it?", "Reading", "Reading is a town. People like reading.", True),
        ("When was it?", "May", "May was warm. It may be so again.", True),
        ("Who wrote it?", "Will", "Will wrote the hymn.", False),
        ("What is played?", "Football", "Football is fun. They play football.", False),
    ],
)  # fmt: skip
def test_defect_a_word_replaced_as_if_it_were_the_name(
    question: str, answer: str, context: str, refused: bool
) -> None:
    """Where a name has a capital only at the beginning of a sentence, "will" may be a word."""
    one = example(question=question, answers=(answer,), context=context, answer_type=None)
    new = "July" if answer == "May" else "Zed"
    asked = f"{question} And then?"
    proposed = example(id="p", question=asked, answers=(new,), context="", answer_type=None)
    rejects = Rejects()
    index = CorpusIndex([one, proposed])
    made = {
        record.context_kind: record
        for record in augment(
            [one],
            None,
            index=index,
            settings=Settings(kinds=("relevant", "counterfactual")),
            rejects=rejects,
        )
    }
    assert made["relevant"].answer == answer
    assert ("counterfactual" in made) == (not refused)
    assert dict(rejects.counts) == ({"counterfactual/ambiguous_mention": 1} if refused else {})


def test_order_and_chunks_change_nothing(people: list[QAExample]) -> None:
    answers = {one.id: "Bath" for one in people}
    whole = list(augment(people, answers))
    by_id = {record.id: record for record in whole}
    shuffled = list(people)
    random.Random(1).shuffle(shuffled)
    assert {record.id: record for record in augment(shuffled, answers)} == by_id
    index = CorpusIndex(shuffled)
    chunks = [people[i : i + 7] for i in range(0, len(people), 7)]
    pieces = [list(augment(chunk, answers, index=index)) for chunk in chunks]
    assert [record for piece in pieces for record in piece] == whole


def test_a_kind_does_not_depend_on_the_other_kinds(people: list[QAExample]) -> None:
    answers = {one.id: "Bath" for one in people}
    whole = list(augment(people, answers))
    only = augment(people, answers, settings=Settings(kinds=("irrelevant",)))
    assert list(only) == [record for record in whole if record.context_kind == "irrelevant"]
