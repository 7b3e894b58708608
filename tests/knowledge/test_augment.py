"""Augmentation: the defects of other generators, nothing lost, nothing left to chance."""

from __future__ import annotations

import collections
import gzip
import json
import pathlib
import random
from typing import Any

import pytest

from kaft_promot.errors import UserError
from kaft_promot.knowledge import (
    CorpusIndex,
    KaftRecord,
    QAExample,
    Rejects,
    Settings,
    augment,
    augment_file,
    read_examples,
    read_records,
)
from kaft_promot.knowledge.spans import first_held

OTHERS = [
    {"id": f"o{i}", "question": f"Where is Thing{i}?", "answers": [city], "answer_type": "place",
     "context": f"Thing{i} is in {city}.", "title": f"Thing{i}"}
    for i, city in enumerate(["Oslo", "Lima", "Cairo", "Quito", "Accra", "Minsk", "Delhi"])
]  # fmt: skip


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


def write_inputs(tmp_path: pathlib.Path) -> tuple[pathlib.Path, int]:
    """A file of 8 sound rows, 4 bad ones and a blank line; how many lines are not blank."""
    impossible = {"id": "i1", "question": "Why?", "answers": [], "is_impossible": True,
                  "context": "No reason is given."}  # fmt: skip
    lines = [json.dumps(row).encode() for row in [*OTHERS, impossible]]
    lines += [lines[0], b"{", b"", b'{"question": "\xff"}', b'{"question": "?", "answers": [""]}']
    path = tmp_path / "input.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    return path, sum(1 for line in lines if line)


def test_nothing_is_lost(tmp_path: pathlib.Path) -> None:
    path, lines = write_inputs(tmp_path)
    answers = {f"o{i}": "Bath" for i in range(6)} | {"i1": "unknown"}
    out = tmp_path / "out"
    summary = augment_file(path, out, parametric_answers=answers, base_checkpoint="mini")
    assert summary.rows_read == lines == summary.examples + sum(summary.rejected_rows.values())
    assert summary.rejected_rows == {
        "duplicate_id": 1, "malformed_json": 1, "invalid_utf8": 1, "empty_answer": 1,
    }  # fmt: skip
    asked = 4 * summary.examples
    refused = sum(summary.rejected_records.values())
    assert asked == summary.records + refused + sum(summary.not_applicable.values())
    assert summary.not_applicable == {"relevant/unanswerable": 1, "counterfactual/unanswerable": 1}
    assert summary.rejected_records == {
        f"{kind}/no_parametric_answer": 1 for kind in ("counterfactual", "irrelevant", "empty")
    }
    # the files say the same as the summary
    records = list(read_records(out / "records.jsonl"))
    assert collections.Counter(record.context_kind for record in records) == summary.written
    assert len(records) == summary.records
    rows = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    assert len(rows) == sum(summary.rejected_rows.values()) + refused
    assert all(row["file"] == str(path) and row["line"] and row["reason"] for row in rows)
    saved = json.loads((out / "summary.json").read_text())
    assert saved["written"] == summary.written and saved["settings"]["base_checkpoint"] == "mini"
    table = summary.table()
    assert f"rows read {lines} = examples 8 + rejected 4" in table
    assert f"= written {summary.records} + rejected {refused} + not applicable 2" in table


def test_runs_are_equal_byte_by_byte(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    answers = {f"o{i}": "Bath" for i in range(7)} | {"i1": "unknown"}
    contents = []
    for name in ("a", "b"):
        augment_file(path, tmp_path / name, parametric_answers=answers)
        contents.append([f.read_bytes() for f in sorted((tmp_path / name).iterdir())])
    assert contents[0] == contents[1] and len(contents[0]) == 3


def test_kinds_and_choices(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    answers = {f"o{i}": "Bath" for i in range(7)} | {"i1": "unknown"}
    summary = augment_file(
        path, tmp_path / "out", parametric_answers=answers, kinds="empty,irrelevant",
        irrelevant_kinds="annotated", suffixes=False, split="train",
    )  # fmt: skip
    assert summary.written == {"irrelevant": 1, "empty": 8}
    assert summary.not_applicable == {"irrelevant/not_annotated": 7}
    records = list(read_records(tmp_path / "out" / "train.jsonl"))
    assert {record.target for record in records} == {"Bath", "unknown"}
    summary = augment_file(path, tmp_path / "two", kinds=["relevant", "counterfactual"])
    assert summary.written == {"relevant": 7, "counterfactual": 7}
    records = list(read_records(tmp_path / "two" / "records.jsonl"))
    assert {record.parametric_answer for record in records} == {None}
    summary = augment_file(
        path, tmp_path / "three", parametric_answers=answers, irrelevant_kinds="random",
        kinds="irrelevant",
    )  # fmt: skip
    assert summary.irrelevant_kinds == {"random": 8}


def test_answers_from_a_file_name_their_checkpoint(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    rows = [{"id": f"o{i}", "answer": "Bath", "checkpoint": "mini"} for i in range(7)]
    lines = [json.dumps(row) for row in [*rows, rows[0], {"id": "i1"}]]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("\n".join([*lines, '{"id": "o']))
    summary = augment_file(path, tmp_path / "out", parametric_answers=answers)
    assert summary.settings["base_checkpoint"] == "mini"
    assert summary.rejected_answers == {
        "duplicate_answer": 1, "malformed_answer": 1, "malformed_json": 1,
    }  # fmt: skip
    records = list(read_records(tmp_path / "out" / "records.jsonl"))
    assert {record.base_checkpoint for record in records} == {"mini"}
    with pytest.raises(UserError, match="probed from 'mini', not from --base_checkpoint='xl'"):
        augment_file(path, tmp_path / "out", parametric_answers=answers, base_checkpoint="xl")
    answers.write_text("\n".join([lines[0], json.dumps(rows[1] | {"checkpoint": "xl"})]))
    with pytest.raises(UserError, match=r"answers.jsonl:2: answers of two checkpoints"):
        augment_file(path, tmp_path / "out", parametric_answers=answers)


def test_answers_to_other_questions_are_refused(tmp_path: pathlib.Path) -> None:
    """Ids such as "1" come again in every file: the questions must be the same, too."""
    path, _ = write_inputs(tmp_path)
    answers = tmp_path / "answers.jsonl"
    row = {"id": "o1", "answer": "Bath", "question": " Where is Thing1? "}
    answers.write_text(json.dumps(row) + "\n")
    assert augment_file(path, tmp_path / "out", parametric_answers=answers).records > 0
    answers.write_text(json.dumps(row | {"question": "Who wrote Emma?"}) + "\n")
    with pytest.raises(UserError, match=r"input.jsonl.gz:2: 'o1' asks 'Where .*answers 'Who wrote"):
        augment_file(path, tmp_path / "out", parametric_answers=answers)


def test_answers_to_none_of_the_questions_are_refused(tmp_path: pathlib.Path) -> None:
    path, _ = write_inputs(tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "elsewhere", "question": "?", "answer": "x"}\n')
    with pytest.raises(UserError, match="answers.jsonl answers none of the 8 questions"):
        augment_file(path, tmp_path / "out", parametric_answers=answers)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parametric_answers": None}, "irrelevant, empty need the base model's closed-book"),
        ({"kinds": "relevant,odd"}, "unknown context kind 'odd'; choose from relevant"),
        ({"kinds": ""}, "unknown context kind"),
        ({"irrelevant_kinds": "hard"}, "unknown kind of irrelevant context 'hard'"),
        ({"proposer": "model"}, "unknown proposer model"),
        ({"format": "xml"}, "unknown format 'xml'"),
        ({"parametric_answers": "/nowhere/answers.jsonl"}, "there is no such file"),
        ({"parametric_answers": __file__}, "test_augment.py: no row with an id and an answer"),
        ({"split": "a/b"}, "split 'a/b': a name of letters"),
        ({"split": ""}, "split '': a name of letters"),
        ({"inputs": ["/nowhere/x.jsonl"]}, "/nowhere/x.jsonl: there is no such file"),
        ({"output_dir": "/dev/null/out"}, "cannot make the folder"),
    ],
)
def test_mistakes_are_one_line_and_keep_what_was_finished(
    tmp_path: pathlib.Path, arguments: dict[str, Any], message: str
) -> None:
    path, _ = write_inputs(tmp_path)
    out = tmp_path / "out"
    augment_file(path, out, kinds="relevant")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    defaults: dict[str, Any] = {"inputs": path, "output_dir": out, "parametric_answers": {}}
    with pytest.raises(UserError, match=message) as error:
        augment_file(**(defaults | arguments))
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize("of_answers", [False, True])
def test_an_input_is_not_overwritten(tmp_path: pathlib.Path, of_answers: bool) -> None:
    path, _ = write_inputs(tmp_path)
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": "o1", "question": "?", "answer": "x"}\n')
    kept = tmp_path / "data" / "train.jsonl"
    kept.parent.mkdir()
    kept.write_bytes((answers if of_answers else path).read_bytes())
    link = tmp_path / "link.jsonl"  # the same file by another path
    link.symlink_to(kept)
    before = kept.read_bytes()
    with pytest.raises(UserError, match="link.jsonl would be overwritten by the records"):
        augment_file(
            path if of_answers else link,
            kept.parent,
            parametric_answers=link if of_answers else answers,
            split="train",
        )
    assert kept.read_bytes() == before and [*kept.parent.iterdir()] == [kept]


def test_real_squad_and_trex(shared_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A slice of the real data: the laws hold, and the guarantees hold by an own check."""
    for name in ("squad2/dev_half_a", "trex/trex.dev"):
        with gzip.open(shared_dir / "data" / f"{name}.jsonl.gz", "rb") as lines:
            part = [line for i, line in enumerate(lines) if i % 12 == 0]
        path = tmp_path / "part.jsonl"
        path.write_bytes(b"".join(part))
        examples = {one.id: one for one in read_examples(path)}
        answers = {one: "Zanzibar" for one in examples}
        summary = augment_file(path, tmp_path / "out", parametric_answers=answers)
        assert summary.rows_read == len(part) == summary.examples
        asked = 4 * summary.examples
        assert asked == summary.records + sum(
            [*summary.rejected_records.values(), *summary.not_applicable.values()]
        )
        kinds = summary.written
        assert kinds["empty"] == summary.examples
        assert kinds["counterfactual"] > 0.8 * kinds["relevant"] > 0
        for record in read_records(tmp_path / "out" / "records.jsonl"):
            own = examples[record.source_id]
            if record.context_kind in ("counterfactual", "irrelevant"):
                assert first_held(record.context, own.answers) is None
            if record.context_kind == "relevant":
                assert record.context == own.context
