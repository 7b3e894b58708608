"""The task of claims: true ones, false ones, and splits that share no fact."""

from __future__ import annotations

import collections
import importlib
import pathlib
from collections import Counter
from collections.abc import Iterator

import gin
import pytest

from kaft_promot.errors import UserError
from kaft_promot.evaluation.output_share import in_format
from kaft_promot.knowledge.relations import RELATIONS
from kaft_promot.mini import facts as facts_lib

seqio = pytest.importorskip("seqio")
claims = importlib.import_module("kaft_promot.tasks.mini_claims")


@pytest.fixture(autouse=True)
def bytes_as_vocabulary() -> Iterator[None]:
    with gin.unlock_config():
        gin.clear_config()
        gin.bind_parameter("task_vocabulary.path", "bytes")
    yield
    with gin.unlock_config():
        gin.clear_config()


def fact(number: int, answer: str, relation: str = "P19", split: str = "remembered_train"):
    return facts_lib.Fact(
        id=f"f{number}",
        relation=relation,
        subject=f"Person{number}",
        answer=answer,
        subject_uri="",
        object_uri="",
        sentences=(),
        split=split,
    )


def read(split: str) -> list[dict[str, str]]:
    dataset = seqio.get_mixture_or_task("mini_claims").get_dataset(
        {"inputs": 128, "targets": 8}, split, shuffle=False
    )
    fields = ("inputs_pretokenized", "targets_pretokenized", "id", "source_id", "relation")
    return [{name: row[name].decode() for name in fields} for row in dataset.as_numpy_iterator()]


def test_each_fact_gives_one_true_and_one_false_claim():
    facts = [fact(0, "Rome"), fact(1, "Oslo"), fact(2, "New York"), fact(3, "York"),
             fact(4, "Norway", "P17"), fact(5, "Chile", "P17", "remembered_test"),
             fact(6, "Peru", "P17", "reading_train")]  # fmt: skip
    found = claims.claims(facts, "train")
    assert [row["targets"] for row in found] == ["True", "False"] * 5
    assert found[0]["inputs"] == (
        "question: Where was Person0 born? Rome. Is it true or false? answer:"
    )
    assert found[0]["id"] == "f0/true" and found[1]["id"] == "f0/false"
    for true, false in zip(found[::2], found[1::2], strict=True):
        assert true["source_id"] == false["source_id"] and true["inputs"] != false["inputs"]
    # Not a part of the right answer, and only objects of remembered facts of the relation.
    assert "? York." not in found[5]["inputs"]
    assert "? New York." not in found[7]["inputs"]
    assert found[9]["inputs"] == (
        "question: What country is Person4 in? Chile. Is it true or false? answer:"
    )


def test_a_false_claim_depends_on_its_fact_alone():
    facts = [fact(n, f"City{n % 7}") for n in range(40)]
    found = {row["id"]: row["inputs"] for row in claims.claims(facts, "train")}
    moved = [facts[0], *(fact(n, f"City{n % 7}", split="remembered_test") for n in range(1, 40))]
    assert claims.claims(moved, "train")[1]["inputs"] == found["f0/false"]
    assert claims.claims(facts, "train") == claims.claims(facts, "train")


def test_a_fact_whose_relation_has_no_other_object_is_left_out():
    assert claims.claims([fact(0, "Rome"), fact(1, "Rome")], "train") == []


def test_false_objects_are_as_frequent_as_true_ones():
    facts = [fact(n, "Paris" if n < 100 else f"City{n % 20}") for n in range(300)]
    found = claims.claims(facts, "train")
    said = Counter(row["targets"] for row in found if "Paris" in row["inputs"])
    assert 60 <= said["False"] <= 140  # 100 true ones


def test_the_shipped_facts():
    by_split = {split: read(split) for split in ("train", "validation", "test")}
    assert [len(rows) for rows in by_split.values()] == [3800, 500, 1300]
    ids = {split: {row["source_id"] for row in rows} for split, rows in by_split.items()}
    assert not ids["train"] & (ids["validation"] | ids["test"])
    assert not ids["validation"] & ids["test"]
    for rows in by_split.values():
        texts = [row["inputs_pretokenized"] for row in rows]
        assert len(set(texts)) == len(texts)
        assert Counter(row["targets_pretokenized"] for row in rows)["True"] == len(rows) / 2
        assert all(text.endswith(" Is it true or false? answer:") for text in texts)


def test_facts_are_bound_by_gin(tmp_path: pathlib.Path):
    path = tmp_path / "facts.jsonl.gz"
    facts_lib.write_facts([fact(0, "Rome"), fact(1, "Oslo")], path)
    with gin.unlock_config():
        gin.bind_parameter("mini_claims_data.facts", str(path))
    assert [row["source_id"] for row in read("train")] == ["f0", "f0", "f1", "f1"]
    with gin.unlock_config():
        gin.bind_parameter("mini_claims_data.facts", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="gone: no such facts file"):
        read("train")


def test_the_format_is_the_two_labels():
    assert in_format(["True", "false.", "Paris", ""], "mini_claims") == [1.0, 1.0, 0.0, 0.0]


def test_typed_claims_are_false_by_their_kind():
    facts = facts_lib.load_facts()
    kinds = collections.defaultdict(set)
    for fact in facts:
        kinds[fact.answer].add(RELATIONS[fact.relation].answer_type)
    by_id = {fact.id: fact for fact in facts}
    rows = claims.claims(facts, "validation", typed=True)
    assert len(rows) == 500
    for row in rows[1::2]:
        fact = by_id[row["source_id"]]
        start = f"question: {fact.question()} "
        assert row["inputs"].startswith(start)
        answer = row["inputs"].removeprefix(start).partition(". Is it true")[0]
        assert kinds[answer] - {RELATIONS[fact.relation].answer_type}, row
