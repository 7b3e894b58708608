"""Readers: the formats, their detection, and everything that can be wrong with a file."""

import gzip
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from kaft_promot.errors import UserError
from kaft_promot.knowledge import QAExample, Rejects, read_examples
from kaft_promot.knowledge.readers import READERS, detect_format

Write = Callable[[str, Iterable[Any]], pathlib.Path]

FLAT = {
    "id": "a1",
    "title": "Normans",
    "context": "Normandy is in France.",
    "question": "Where is Normandy?",
    "answers": ["France", "France", "in France"],
    "is_impossible": False,
}
TREX = {
    "id": "P19-0",
    "relation": "P19",
    "template": "[X] was born in [Y] .",
    "sub_label": "Ada Lovelace",
    "obj_label": "London",
    "evidence": [
        {"text": "She was born in London.", "obj_surface": "London", "start": 16},
        {"text": "Ada Lovelace left Londinium.", "obj_surface": "Londinium", "start": 18},
        {"text": "Ada Lovelace was born in London.", "obj_surface": "London", "start": 25},
    ],
}
PLAIN = {"question": "Who wrote Emma?", "answers": ["Jane Austen", "Austen"]}


def nested(version: str, **question: Any) -> dict[str, Any]:
    qa = {"id": "n1", "question": "Where is Normandy?", **question}
    paragraph = {"context": "Normandy is in France.", "qas": [qa]}
    return {"version": version, "data": [{"title": "Normans", "paragraphs": [paragraph]}]}


def test_flat_squad(write_rows: Write) -> None:
    impossible = FLAT | {"id": "a2", "answers": [], "is_impossible": True}
    as_published = FLAT | {"id": "a3", "answers": {"text": ["France"], "answer_start": [15]}}
    del as_published["is_impossible"]
    path = write_rows("squad.jsonl", [FLAT, impossible, as_published])
    assert detect_format(path) == "squad"
    first, second, third = read_examples(path)
    assert first == QAExample(
        id="a1",
        source="squad",
        question="Where is Normandy?",
        context="Normandy is in France.",
        answers=("France", "in France"),
        title="Normans",
    )
    assert (second.answers, second.is_impossible) == ((), True)
    assert (third.answers, third.is_impossible) == (("France",), False)


@pytest.mark.parametrize("field", ["source", "relation", "answer_type", "subject"])
def test_a_labelled_row_with_more_than_squads_fields_is_plain(
    write_rows: Write, field: str
) -> None:
    row = FLAT | {field: "P131"}
    impossible = row | {"id": "a2", "answers": [], "is_impossible": True}
    path = write_rows("rows.jsonl", [row, impossible])
    assert detect_format(path) == "jsonl"
    first, second = read_examples(path)
    assert getattr(first, field) == getattr(second, field) == "P131"
    assert (first.answers, first.title) == (("France", "in France"), "Normans")
    assert (second.answers, second.is_impossible) == ((), True)


def test_an_unlabelled_row_with_offsets_stays_squad(write_rows: Write) -> None:
    """Only SQuAD's reader knows that its empty answers mean unanswerable."""
    row = FLAT | {"answers": {"text": [], "answer_start": []}, "source": "adversarial"}
    del row["is_impossible"]
    path = write_rows("rows.jsonl", [row])
    assert detect_format(path) == "squad"
    (example,) = read_examples(path)
    assert example.is_impossible and example.source == "adversarial"


def test_rows_after_the_first_keep_their_own_fields(write_rows: Write) -> None:
    """The first row looks like SQuAD's; the others have more than that, or less."""
    more = {"source": "mine", "relation": "P131", "subject": "Caen", "answer_type": "country"}
    unlabelled = FLAT | {"id": "a3", "answers": {"text": [], "answer_start": []}}
    del unlabelled["is_impossible"]
    rows = [FLAT, FLAT | {"id": "a2"} | more, unlabelled, PLAIN, PLAIN | {"answer": "Austen"}]
    del rows[-1]["answers"]
    path = write_rows("rows.jsonl", rows)
    assert detect_format(path) == "squad"
    first, second, third, fourth, fifth = read_examples(path)
    assert (first.source, first.relation) == ("squad", None)
    assert {name: getattr(second, name) for name in more} == more
    assert third.is_impossible
    assert (fourth.context, fourth.answers) == (None, ("Jane Austen", "Austen"))
    assert fifth.answers == ("Austen",) and fifth.id != fourth.id


@pytest.mark.parametrize("indent", [None, 1])
def test_nested_squad(tmp_path: pathlib.Path, indent: int | None) -> None:
    answers = [{"text": "France", "answer_start": 15}]
    path = tmp_path / "train-v1.1.json"
    path.write_text(json.dumps(nested("1.1", answers=answers), indent=indent))
    assert detect_format(path) == "squad"
    (example,) = read_examples(path)
    assert (example.id, example.answers, example.title) == ("n1", ("France",), "Normans")
    document = nested("v2.0", answers=[], is_impossible=True, plausible_answers=answers)
    path.write_text(json.dumps(document, indent=indent))
    (example,) = read_examples(path)
    assert example.is_impossible and example.answers == ()


def test_nested_squad_rejects_carry_their_path(tmp_path: pathlib.Path) -> None:
    document = nested("1.1", answers=[{"text": " ", "answer_start": 0}])
    document["data"][0]["paragraphs"] += [{"context": "x"}, 3]
    document["data"][0]["paragraphs"][0]["qas"] += ["x", {"id": "n2", "question": "\ud800?"}]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    rejects = Rejects()
    assert list(read_examples(path, rejects=rejects)) == []
    assert [(row["path"], row["reason"]) for row in rejects.rows] == [
        ("data[0].paragraphs[0].qas[0]", "empty_answer"),
        ("data[0].paragraphs[0].qas[1]", "field_type"),
        ("data[0].paragraphs[0].qas[2]", "invalid_unicode"),
        ("data[0].paragraphs[1]", "missing_field"),
        ("data[0].paragraphs[2]", "missing_field"),
    ]


@pytest.mark.parametrize("holder", ["title", "context"])
def test_half_a_surrogate_pair_in_what_questions_share(tmp_path: pathlib.Path, holder: str) -> None:
    answers = [{"text": "France", "answer_start": 15}]
    document = nested("1.1", answers=answers)
    article = document["data"][0]
    (article if holder == "title" else article["paragraphs"][0])[holder] = "France \ud800"
    document["data"] += nested("1.1", answers=answers)["data"]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    rejects = Rejects()
    assert len(list(read_examples(path, rejects=rejects))) == 1
    assert [(row["path"], row["reason"]) for row in rejects.rows] == [
        ("data[0].paragraphs[0].qas[0]", "invalid_unicode")
    ]


def test_nested_squad_cut_off(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(nested("1.1", answers=[]), indent=1)[:-20])
    with pytest.raises(UserError, match=r"cut.json:\d+: malformed JSON.*cut off"):
        list(read_examples(path))


def test_nested_squad_too_deep(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"data": ' + "[" * 100_000)
    with pytest.raises(UserError, match="deep.json: malformed JSON"):
        list(read_examples(path))


def test_trex_takes_a_sentence_that_names_both_ends(write_rows: Write) -> None:
    path = write_rows("trex.jsonl", [TREX])
    assert detect_format(path) == "trex"
    (example,) = read_examples(path)
    assert example == QAExample(
        id="P19-0",
        source="trex",
        question="Where was Ada Lovelace born?",
        context="Ada Lovelace was born in London.",
        answers=("London", "Londinium"),
        relation="P19",
        answer_type="place",
        subject="Ada Lovelace",
    )


def test_trex_without_such_a_sentence_has_no_context(write_rows: Write) -> None:
    row = TREX | {"evidence": TREX["evidence"][:1]}  # type: ignore[index]
    (example,) = read_examples(write_rows("trex.jsonl", [row]))
    assert example.context is None
    row = TREX | {"evidence": TREX["evidence"][:2]}  # type: ignore[index]
    (example,) = read_examples(write_rows("trex.jsonl", [row]))
    assert example.context == "Ada Lovelace left Londinium."


def test_trex_takes_no_sentence_that_only_seems_to_hold_the_answer(write_rows: Write) -> None:
    seeming = {"text": "Ada Lovelace told us so.", "obj_surface": "us", "start": 18}
    telling = {"text": "Ada Lovelace was born in the US.", "obj_surface": "US", "start": 29}
    row = TREX | {"obj_label": "US", "evidence": [seeming, telling]}
    (example,) = read_examples(write_rows("trex.jsonl", [row]))
    assert example.context == telling["text"]


def test_trex_in_lamas_own_rows(write_rows: Write) -> None:
    row = {
        "uuid": "u1",
        "predicate_id": "P36",
        "sub_label": "Peru",
        "obj_label": "Lima",
        "evidences": [{"obj_surface": "Lima", "masked_sentence": "Peru's capital is [MASK]."}],
    }
    unknown = row | {"uuid": "u2", "predicate_id": "P999999", "template": "[X] shines on [Y] ."}
    path = write_rows("lama.jsonl", [row, unknown])
    first, second = read_examples(path)
    assert (first.id, first.context) == ("u1", "Peru's capital is Lima.")
    assert second.question == "Peru shines on what?"


def test_plain_jsonl(write_rows: Write) -> None:
    path = write_rows("mine.jsonl", [PLAIN, PLAIN | {"answers": "Austen", "id": 7}])
    assert detect_format(path) == "jsonl"
    first, second = read_examples(path)
    assert first.answers == ("Jane Austen", "Austen") and first.context is None
    assert (second.id, second.answers) == ("7", ("Austen",))
    # the derived id depends on the content only
    (moved, *_) = read_examples(write_rows("other.jsonl", [b"\n", PLAIN]))
    assert moved.id == first.id


def test_every_reader_has_its_name() -> None:
    assert set(READERS) == {"trex", "squad", "jsonl"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"question": "cut", "ans', "malformed_json"),
        (b"[1]\n", "malformed_json"),
        (b"[" * 5000 + b"\n", "malformed_json"),
        (b'{"question": "\xff", "answers": ["x"]}\n', "invalid_utf8"),
        (b'{"question": "\\ud800", "answers": ["x"]}\n', "invalid_unicode"),
        (b'{"question": "\\uD800", "answers": ["x"]}\n', "invalid_unicode"),
        ({"question": "?", "answers": []}, "empty_answer"),
        ({"question": "?", "answers": ["", " "]}, "empty_answer"),
        ({"question": "?", "answers": ["..."]}, "empty_answer"),
        ({"question": "?", "answers": 3}, "field_type"),
        ({"question": "?", "answers": [3]}, "field_type"),
        ({"question": 3, "answers": ["x"]}, "field_type"),
        ({"question": " ", "answers": ["x"]}, "empty_question"),
        ({"answers": ["x"]}, "missing_field"),
        ({"question": "?"}, "missing_field"),
        ({"question": "?", "answers": ["x"], "is_impossible": True, "context": "c"},
         "answer_to_impossible"),
        ({"question": "?", "answers": [], "is_impossible": True}, "missing_field"),
        ({"question": "?", "answers": ["x"], "is_impossible": "no"}, "field_type"),
        (PLAIN | {"id": "one"}, "duplicate_id"),
    ],
)  # fmt: skip
def test_bad_rows_are_rejected_with_file_line_and_reason(
    write_rows: Write, row: Any, reason: str
) -> None:
    path = write_rows("rows.jsonl", [PLAIN | {"id": "one"}, PLAIN | {"id": "two"}, row])
    rejects = Rejects()
    assert len(list(read_examples(path, rejects=rejects))) == 2
    (rejected,) = rejects.rows
    assert (rejected["file"], rejected["line"], rejected["reason"]) == (str(path), 3, reason)
    with pytest.raises(UserError, match=rf"rows.jsonl:3: {reason}: "):
        list(read_examples(path))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"evidence": [{"text": "Ada in Rome", "obj_surface": "London", "start": 7}]},
         "answer_not_in_context"),
        ({"evidence": [{"text": "Ada in Rome", "obj_surface": "", "start": 7}]}, "empty_answer"),
        ({"evidence": ["x"]}, "field_type"),
        ({"evidence": [{"text": "Ada in Rome", "obj_surface": "Rome", "start": "7"}]},
         "field_type"),
        ({"evidence": [{"text": "Ada in Rome", "obj_surface": "Rome", "start": 7.0}]},
         "field_type"),
        ({"evidence": [{"text": "Ada in Rome", "obj_surface": "Rome", "start": True}]},
         "field_type"),
        ({"evidence": None}, "missing_field"),
        ({"relation": "P999999", "template": "no gaps"}, "unknown_relation"),
        ({"sub_label": None}, "missing_field"),
    ],
)  # fmt: skip
def test_bad_trex_rows(write_rows: Write, change: dict[str, Any], reason: str) -> None:
    path = write_rows("trex.jsonl", [TREX, TREX | {"id": "P19-1"} | change])
    rejects = Rejects()
    assert len(list(read_examples(path, "trex", rejects))) == 1
    assert rejects.counts == {reason: 1}


def test_gzip_is_seen_by_its_content(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "no_suffix"
    path.write_bytes(gzip.compress(json.dumps(PLAIN).encode() + b"\n"))
    assert len(list(read_examples(path))) == 1


def test_a_byte_order_mark_and_crlf_do_no_harm(write_rows: Write) -> None:
    path = write_rows("dos.jsonl", [b"\xef\xbb\xbf" + json.dumps(PLAIN).encode() + b"\r\n"])
    assert len(list(read_examples(path))) == 1


def damaged(path: pathlib.Path) -> None:
    rows = b"".join(
        json.dumps(PLAIN | {"id": str(i), "note": str(hash((i, "x")))}).encode() + b"\n"
        for i in range(3000)
    )
    path.write_bytes(gzip.compress(rows)[:-2000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"\n \n"), "is empty"),
        (lambda path: path.write_bytes(gzip.compress(b"")), "is empty"),
        (damaged, r"the gzip file is damaged after line \d+"),
        (lambda path: path.write_bytes(b"\x1f\x8bnonsense"), "damaged"),
        (lambda path: path.write_bytes(b'{"colour": "red"}\n'), "no shape known"),
        (lambda path: path.write_bytes(b"\x00\x01\x02"), "no shape known"),
    ],
)
def test_bad_files_are_one_clear_line(
    tmp_path: pathlib.Path, make: Callable[[pathlib.Path], object], message: str
) -> None:
    path = tmp_path / "input.jsonl"
    make(path)
    with pytest.raises(UserError, match=message) as error:
        list(read_examples(path, rejects=Rejects()))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_wrong_format_name_is_told(write_rows: Write) -> None:
    path = write_rows("rows.jsonl", [PLAIN])
    with pytest.raises(UserError, match="unknown format 'csv'; choose one of auto, trex"):
        list(read_examples(path, "csv"))


def test_rows_of_another_shape_are_rejected_not_lost(write_rows: Write) -> None:
    path = write_rows("rows.jsonl", [PLAIN])
    rejects = Rejects()
    assert list(read_examples(path, "trex", rejects)) == []
    assert rejects.counts == {"missing_field": 1}
