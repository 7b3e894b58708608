"""Facts: what counts as one, and what no split may share."""

import gzip
import json

import pytest

from kaft_promot.errors import UserError
from kaft_promot.mini import facts as facts_lib
from kaft_promot.mini.facts import Fact, clean_sentence, find_words, names_both_ends


def test_words_are_found_whole():
    assert find_words("Rome", "Romero saw Rome.") == [11]
    assert find_words("Rome", "Jerome, romeo") == []
    assert find_words("St. Ives", "in St. Ives, in St. Ives") == [3, 16]
    assert find_words("İstanbul", "İİ İstanbul") == [3]


def test_asides_go_unless_they_name_an_end():
    text = "Ada (born  1815) lived in Kent (in England [south])."
    assert clean_sentence(text, ("Ada", "Kent")) == "Ada lived in Kent."
    assert "(born 1815)" in clean_sentence(text, ("Ada", "1815"))


def test_an_answer_inside_the_subject_does_not_count():
    assert names_both_ends("Bank of Finland is in Helsinki.", "Bank of Finland", "Helsinki")
    assert not names_both_ends("Bank of Finland is in Helsinki.", "Bank of Finland", "Finland")
    assert not names_both_ends("Bank of Finland, Finland.", "Bank of Finland", "Finland")
    assert not names_both_ends("The bank is in Helsinki.", "Bank of Finland", "Helsinki")


def make(identity: str, subject: str, answer: str, *sentences: str, relation: str = "P19") -> Fact:
    return Fact(
        id=identity,
        relation=relation,
        subject=subject,
        answer=answer,
        subject_uri="Q1",
        object_uri="Q2",
        sentences=sentences,
    )


def test_a_fact_with_two_objects_or_a_rival_is_ambiguous():
    facts = [
        make("a", "Ada Byron", "London", "Ada Byron was born in London."),
        make("b", "Bo Lee", "Kent", "Bo Lee was born in Kent and died in London."),
        make("c", "Cy Dow", "Kent", "Cy Dow was born in Kent."),
        make("d", "Cy Dow", "London", "Cy Dow was born in London."),
        make("e", "Di Fox", "actor", "Di Fox was an actor.", relation="P106"),
    ]
    assert [fact.id for fact in facts_lib.unambiguous(facts)] == ["a"]


def test_a_sentence_of_a_held_out_fact_is_in_no_other_split(split_part):
    unread = {s for f in split_part if f.split in facts_lib.UNREAD for s in f.sentences}
    read = {s for f in split_part if f.split not in facts_lib.UNREAD for s in f.sentences}
    assert len(unread) >= 120
    assert not unread & read


def test_held_out_subjects_stand_in_no_sentence_of_another_fact(split_part):
    for fact in split_part:
        if fact.split == facts_lib.READING_TEST:
            others = [f for f in split_part if f.id != fact.id]
            assert not any(find_words(fact.subject, s) for f in others for s in f.sentences)


def test_remembered_facts_have_one_answer_each(split_part):
    answers: dict[str, str] = {}
    for fact in split_part:
        if fact.split in facts_lib.REMEMBERED:
            assert answers.setdefault(fact.question(), fact.answer) == fact.answer
    subjects = [f.subject for f in split_part if f.split in facts_lib.REMEMBERED]
    assert len(set(subjects)) == len(subjects) == 210


def test_splits_depend_on_the_seed_alone(trex_part, split_part, sizes):
    facts = facts_lib.read_facts(trex_part)
    assert facts_lib.split_facts(facts, 0, sizes) == split_part
    assert facts_lib.split_facts(facts, 1, sizes) != split_part


def test_too_few_facts_are_said_so():
    with pytest.raises(UserError, match="too few unambiguous facts"):
        facts_lib.split_facts([make("a", "Ada", "Kent", "Ada was born in Kent.")], 0)


def test_facts_survive_their_file(tmp_path, split_part):
    facts_lib.write_facts(split_part, tmp_path / "facts.jsonl.gz")
    assert facts_lib.load_facts(tmp_path / "facts.jsonl.gz") == split_part


def test_a_broken_facts_file_names_its_line(tmp_path):
    path = tmp_path / "facts.jsonl.gz"
    with gzip.open(path, "wt") as out:
        out.write(json.dumps({"id": "a"}) + "\n")
    with pytest.raises(UserError, match="facts.jsonl.gz:1"):
        facts_lib.load_facts(path)
    sound = {"id": "a", "relation": "P19", "subject": "Ada", "answer": "Kent", "split": "x"}
    sound |= {"subject_uri": "Q1", "object_uri": "Q2", "sentences": ["Ada is from Kent."]}
    for line, message in (
        (json.dumps(sound | {"relation": "P0"}).encode(), "relation 'P0' is unknown"),
        (json.dumps(sound).encode()[:-9], "malformed_json"),
        (b'{"id": "\xff"}', "invalid_utf8"),
        (b"[]", "malformed_json"),
    ):
        path.write_bytes(json.dumps(sound).encode() + b"\n" + line)  # plain serves as well
        with pytest.raises(UserError, match=f"facts.jsonl.gz:2.*{message}"):
            facts_lib.load_facts(path)
    path.write_bytes(gzip.compress(json.dumps(sound).encode() * 99)[:-20])
    with pytest.raises(UserError, match="gzip file is damaged"):
        facts_lib.load_facts(path)
    with pytest.raises(UserError, match="no such facts file"):
        facts_lib.load_facts(tmp_path / "none.jsonl.gz")


def test_the_shipped_facts_are_sound():
    facts = facts_lib.load_facts()
    counts = {split: sum(f.split == split for f in facts) for split in facts_lib.SHIPPED_SPLITS}
    assert sum(counts[split] for split in facts_lib.REMEMBERED) >= 2000
    assert counts[facts_lib.REMEMBERED_TEST] >= 500 and counts[facts_lib.READING_TEST] >= 400
    assert len({f.id for f in facts}) == len(facts)
    for fact in facts:
        if fact.sentences:
            assert names_both_ends(fact.sentence, fact.subject, fact.answer), fact
    tests = (facts_lib.REMEMBERED_TEST, facts_lib.READING_TEST)
    tested = {s for f in facts if f.split in tests for s in f.sentences}
    assert all(f.sentences for f in facts if f.split in tests)
    assert not any(s in tested for f in facts if f.split not in tests for s in f.sentences)


def test_a_fact_becomes_a_question_with_its_sentence():
    example = facts_lib.to_example(make("a", "Ada", "Kent", "Ada was born in Kent."))
    assert example.question == "Where was Ada born?"
    assert example.context == "Ada was born in Kent."
    assert example.answers == ("Kent",)
    assert (example.answer_type, example.relation) == ("place", "P19")
