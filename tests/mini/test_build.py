"""The whole recipe on a small part of the data."""

import json
import pathlib

import pytest
import sentencepiece

from kaft_promot.errors import UserError
from kaft_promot.feeding.vocabulary import SentencePieceVocabulary
from kaft_promot.mini import build as build_lib
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.fewshot import TASKS
from kaft_promot.mini.passages import read_passages, untokenized
from kaft_promot.mini.vocabulary import TASK_WORDS


def write_rows(path: pathlib.Path, rows: list[dict]) -> pathlib.Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def passages(tmp_path_factory):
    context = "Kent is old . Ada , who wrote , was born in Kent ( England ) . Bo was not ."
    rows = [
        {"question": "Where was Ada born?", "context": context, "answers": ["Kent ( England )"]},
        {"question": "Why?", "context": context, "answers": [], "is_impossible": True},
        {"question": "How?", "context": context, "answers": ["one two three four five six"]},
        {"question": "Who?", "context": context, "answers": ["Zoe"]},
    ]
    return write_rows(tmp_path_factory.mktemp("passages") / "squad.jsonl", rows)


@pytest.fixture(scope="module")
def built(trex_part, sizes, passages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    text = "The old river runs through the valley to the sea, past fields and small towns. " * 4
    wiki = write_rows(folder / "wiki.jsonl", [{"text": text}])
    build_lib.build(
        trex_part,
        wiki,
        [passages],
        folder / "out",
        reading=400,
        quote=50,
        questions=60,
        names=50,
        options=40,
        copy=40,
        fewshot=10,
        sizes=sizes,
        pieces=1500,
    )
    return folder / "out"


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_file_is_there_and_within_the_lengths(built):
    vocabulary = SentencePieceVocabulary(built / "vocab.model")
    files = sorted(built.glob("*.jsonl")) + sorted(built.glob("fewshot/*.jsonl"))
    assert len(files) == 17 + 2 * len(TASKS)
    for file in files:
        rows = rows_of(file)
        assert rows, file
        for row in rows[:50]:
            assert 0 < len(vocabulary.encode(row["inputs"])) < build_lib.INPUT_LENGTH
            assert 0 < len(vocabulary.encode(row["targets"])) < build_lib.TARGET_LENGTH
    statistics = json.loads((built / "statistics.json").read_text())
    assert statistics["splits"]["remembered_test"] == 60
    assert statistics["files"]["train.fewshot"]["examples"] == 10 * len(TASKS)
    quotes = statistics["files"]["train.quote"]
    assert quotes["examples"] + quotes["too_long"] == 50
    questions = statistics["files"]["train.questions"]
    assert questions["examples"] + questions["too_long"] == 60


def test_the_vocabulary_is_t5s_and_knows_every_text(built):
    vocabulary = SentencePieceVocabulary(built / "vocab.model")
    assert vocabulary.vocab_size == 1600
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    for text in ("Ada was born in 1815.", "北京 Zürich ñ € ¿", "first: cat dog = cat ;"):
        ids = vocabulary.encode(text)
        assert 2 not in ids
        assert vocabulary.decode(ids) == text
    assert len(vocabulary.encode("1815")) == 5  # a space and four digits
    in_pieces = [word for word in TASK_WORDS if len(vocabulary.encode(word)) > 1]
    assert len(in_pieces) <= 12, in_pieces


def test_all_remembered_facts_are_asked_in_all_wordings(built):
    facts = facts_lib.load_facts(built / "facts.jsonl.gz")
    asked = {(row["inputs"], row["targets"]) for row in rows_of(built / "train.closed_book.jsonl")}
    remembered = [f for f in facts if f.split in facts_lib.REMEMBERED]
    assert {(f"question: {f.question(i)}", f.answer) for f in remembered for i in range(3)} == asked


def test_validation_and_training_share_nothing(built):
    for kind in ("reading", "fewshot"):
        trained = {row["inputs"] for row in rows_of(built / f"train.{kind}.jsonl")}
        asked = {row["inputs"] for row in rows_of(built / f"validation.{kind}.jsonl")}
        assert not trained & asked


def test_only_the_shipped_splits_are_in_the_quickstarts_facts(built):
    facts = facts_lib.load_facts(built / "facts.jsonl.gz")
    shipped = facts_lib.load_facts(built / "quickstart.facts.jsonl.gz")
    assert shipped == [f for f in facts if f.split != facts_lib.READING_TRAIN]


def test_passages_are_cut_to_the_answers_sentence(passages):
    assert list(read_passages(passages)) == [
        {
            "question": "Where was Ada born?",
            "context": "Ada, who wrote, was born in Kent (England).",
            "answer": "Kent (England)",
        }
    ]


def test_tokenized_text_is_joined():
    assert untokenized("He said `` no '' , twice ( it 's so )") == 'He said "no", twice (it\'s so)'


def test_every_size_has_its_flag(tmp_path, monkeypatch):
    told = {}
    monkeypatch.setattr(build_lib, "build", lambda *_, **sizes: told.update(sizes) or {})
    arguments = ["--trex", "t", "--wiki", "w", "--output", str(tmp_path)]
    sizes = [
        "--reading=1",
        "--quote=2",
        "--copy=4",
        "--fewshot=3",
        "--questions=5",
        "--names=6",
        "--options=7",
    ]
    assert build_lib.main([*arguments, *sizes]) == 0
    assert told == {
        "reading": 1,
        "quote": 2,
        "copy": 4,
        "fewshot": 3,
        "questions": 5,
        "names": 6,
        "options": 7,
    }
    build_lib.main(arguments)
    assert told == {
        "reading": 240_000,
        "quote": 80_000,
        "questions": 160_000,
        "names": 120_000,
        "options": 100_000,
        "copy": 20_000,
        "fewshot": 12_000,
    }


def test_bad_input_is_one_line(tmp_path, capsys):
    arguments = ["--trex", str(tmp_path), "--wiki", "w", "--output", str(tmp_path / "out")]
    assert build_lib.main(arguments) == 2
    assert "no trex*.jsonl.gz" in capsys.readouterr().err
    (tmp_path / "trex.jsonl").write_text('{"id": 1\n')
    assert build_lib.main(arguments) == 2
    assert "trex.jsonl:1: malformed_json: " in capsys.readouterr().err
    (tmp_path / "trex.jsonl").write_text('{"id": 1}\n')
    assert build_lib.main(arguments) == 2
    assert "trex.jsonl:1: the row has no 'relation'" in capsys.readouterr().err
    with pytest.raises(UserError, match="trex.jsonl:1: the row has no 'question'"):
        list(read_passages(tmp_path / "trex.jsonl"))
    with pytest.raises(UserError, match="none.jsonl: there is no such file"):
        list(read_passages(tmp_path / "none.jsonl"))


def test_copying_uses_the_whole_vocabulary_and_ends_as_it_begins(built):
    rows = rows_of(built / "train.copy.jsonl")
    assert len(rows) == 40 and all(row["inputs"] == row["targets"] for row in rows)
    vocabulary = SentencePieceVocabulary(built / "vocab.model")
    used = {i for row in rows for i in vocabulary.encode(row["inputs"])}
    assert len(used) > 200  # of 40 * 14 random draws among 1,500


KINDS = ("reading", "quote", "names", "questions", "options", "copy", "fewshot")


@pytest.mark.parametrize(
    "flag", [f"--{kind}={count}" for kind in KINDS for count in ("0", "-3", "x")]
)
def test_a_size_below_one_is_one_line(tmp_path, capsys, flag):
    arguments = ["--trex=t", "--wiki=w", f"--output={tmp_path / 'out'}", flag]
    assert build_lib.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: argument {flag.partition('=')[0]}: ")
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_file_of_which_no_example_fits_is_empty(built, tmp_path):
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(built / "vocab.model"))
    writer = build_lib.Writer(tmp_path, vocabulary)
    writer.write("none", [])
    writer.write("long", [{"inputs": "a " * 500, "targets": "b"}])
    assert writer.statistics == {
        "none": {"examples": 0, "too_long": 0},
        "long": {"examples": 0, "too_long": 1},
    }
    assert rows_of(tmp_path / "none.jsonl") == rows_of(tmp_path / "long.jsonl") == []
