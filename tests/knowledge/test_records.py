"""Records are checked at the door, and every violation has a name."""

import dataclasses
import json
import pathlib

import pytest

from kaft_promot.errors import UserError
from kaft_promot.knowledge import (
    KaftRecord,
    RecordError,
    Rejects,
    Substitution,
    read_records,
    write_records,
)

RELEVANT = KaftRecord(
    id="q1/relevant",
    source="test",
    source_id="q1",
    question="Where was Ada born?",
    context="Ada was born in London.",
    context_kind="relevant",
    target="London (from context)",
    answer="London",
    answer_aliases=("London", "London, England"),
    parametric_answer="Bath",
    gold_answers=("London", "London, England"),
    substitution=None,
    irrelevant_kind=None,
    base_checkpoint="mini",
    seed=0,
)
COUNTERFACTUAL = dataclasses.replace(
    RELEVANT,
    id="q1/counterfactual",
    context="Ada was born in Rome.",
    context_kind="counterfactual",
    target="Rome (from context)",
    answer="Rome",
    answer_aliases=("Rome",),
    substitution=Substitution(
        proposer="relation", old="London", new="Rome", type="P19", spans=((16, 20),)
    ),
)
IRRELEVANT = dataclasses.replace(
    RELEVANT,
    id="q1/irrelevant",
    context="The Nile is a river.",
    context_kind="irrelevant",
    target="Bath (irrelevant context)",
    answer="Bath",
    answer_aliases=("Bath",),
    irrelevant_kind="random",
)
EMPTY = dataclasses.replace(
    RELEVANT,
    id="q1/empty",
    context="",
    context_kind="empty",
    target="Bath (empty context)",
    answer="Bath",
    answer_aliases=("Bath",),
)
ALL = (RELEVANT, COUNTERFACTUAL, IRRELEVANT, EMPTY)
CHANGE = COUNTERFACTUAL.substitution


@pytest.mark.parametrize("record", ALL, ids=lambda record: record.context_kind)
def test_sound_records_survive_the_way_through_json(record: KaftRecord) -> None:
    assert record.violations() == []
    assert KaftRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_fields_are_those_of_the_specification() -> None:
    assert (
        list(RELEVANT.to_json())
        == (
            "id source source_id question context context_kind target answer answer_aliases"
            " parametric_answer gold_answers substitution irrelevant_kind base_checkpoint seed"
            " generator_version"
        ).split()
    )
    assert list(COUNTERFACTUAL.to_json()["substitution"]) == ("proposer old new type spans".split())


@pytest.mark.parametrize(
    ("record", "change", "name"),
    [
        (RELEVANT, {"question": " "}, "empty_field"),
        (RELEVANT, {"context_kind": "helpful"}, "context_kind"),
        (RELEVANT, {"target": "London (empty context)"}, "target"),
        (RELEVANT, {"answer": "Rome", "answer_aliases": ("Rome",), "target": "Rome"},
         "relevant_answer"),
        (RELEVANT, {"context": "Ada was born in Londonderry."}, "answer_not_in_context"),
        (RELEVANT, {"context": "Lon. Don is not it.", "answer": "Lon Don",
                    "answer_aliases": ("Lon Don",), "gold_answers": ("Lon Don",)},
         "answer_not_in_context"),
        (RELEVANT, {"answer_aliases": ("Londres",)}, "answer_aliases"),
        (RELEVANT, {"irrelevant_kind": "random"}, "irrelevant_kind"),
        (RELEVANT, {"substitution": CHANGE}, "substitution"),
        (COUNTERFACTUAL, {"substitution": None}, "substitution"),
        (COUNTERFACTUAL, {"context": "Ada was born in Rome, not in London."},
         "old_answer_in_context"),
        (COUNTERFACTUAL, {"context": "So Ada was born in Rome."}, "spans"),
        (COUNTERFACTUAL, {"parametric_answer": "ancient Rome"}, "proposal"),
        (COUNTERFACTUAL, {"parametric_answer": "ROME!"}, "proposal"),
        (COUNTERFACTUAL, {"gold_answers": ()}, "gold_answers"),
        (IRRELEVANT, {"context": "She is from London, England."}, "gold_in_irrelevant"),
        (IRRELEVANT, {"parametric_answer": "Leeds"}, "parametric_answer"),
        (IRRELEVANT, {"parametric_answer": None}, "no_parametric_answer"),
        (IRRELEVANT, {"irrelevant_kind": None}, "irrelevant_kind"),
        (IRRELEVANT, {"irrelevant_kind": "vague"}, "irrelevant_kind"),
        (IRRELEVANT, {"context": ""}, "empty_field"),
        (EMPTY, {"context": "x"}, "empty_context"),
        (EMPTY, {"answer": "Bath (from context)", "answer_aliases": ("Bath (from context)",),
                 "parametric_answer": "Bath (from context)",
                 "target": "Bath (from context) (empty context)"}, "answer_suffix"),
        (EMPTY, {"answer": "the", "answer_aliases": ("the",), "parametric_answer": "the",
                 "target": "the"}, "empty_answer"),
    ],
)  # fmt: skip
def test_every_violation_is_named(record: KaftRecord, change: dict[str, object], name: str) -> None:
    broken = dataclasses.replace(record, **change)  # type: ignore[arg-type]
    assert name in [violation.split(":")[0] for violation in broken.violations()]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": "0"}, "field_type: seed"),
        ({"seed": True}, "field_type: seed"),
        ({"answer_aliases": "London"}, "field_type: answer_aliases"),
        ({"context": None}, "field_type: context"),
        ({"colour": "red"}, "unknown_field: colour"),
        ({"substitution": []}, "field_type: substitution"),
        ({"substitution": {"new": "Rome"}}, "missing_field: proposer"),
    ],
)
def test_wrong_json_is_named(change: dict[str, object], name: str) -> None:
    with pytest.raises(RecordError, match=name):
        KaftRecord.from_json(RELEVANT.to_json() | change)
    fields = RELEVANT.to_json()
    del fields["target"]
    with pytest.raises(RecordError, match="missing_field: target"):
        KaftRecord.from_json(fields)


def test_files_round_trip(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    assert write_records(path, ALL) == 4
    assert tuple(read_records(path)) == ALL


def test_a_broken_record_is_not_written_and_the_old_file_stays(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [RELEVANT])
    with pytest.raises(RecordError, match="record q1/empty; empty_context"):
        write_records(path, [RELEVANT, dataclasses.replace(EMPTY, context="x")])
    assert tuple(read_records(path)) == (RELEVANT,)
    assert [file.name for file in tmp_path.iterdir()] == ["records.jsonl"]


def test_a_record_that_comes_twice_is_named_with_both_lines(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, ALL)
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[1])
    rejects = Rejects()
    assert len(list(read_records(path, rejects))) == 4
    assert rejects.counts == {"duplicate_id": 1}
    with pytest.raises(UserError, match=r"records.jsonl:5: duplicate_id: .* was seen in line 2"):
        list(read_records(path))


def test_read_equals_sound_plus_rejected(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, ALL)
    lines = path.read_bytes().splitlines(keepends=True)
    broken = json.dumps(RELEVANT.to_json() | {"context": "Nothing."}).encode() + b"\n"
    path.write_bytes(b"".join([*lines, b"\n", broken, b"\xff{}\n", lines[0][:50]]))
    rejects = Rejects()
    assert len(list(read_records(path, rejects))) == 4
    assert rejects.counts == {"answer_not_in_context": 1, "invalid_utf8": 1, "malformed_json": 1}
    assert [row["line"] for row in rejects.rows] == [6, 7, 8]
    with pytest.raises(UserError, match=r"records.jsonl:6: answer_not_in_context"):
        list(read_records(path))
