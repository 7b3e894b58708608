"""mini's few-shot SeqIO tasks: the prompts that mini was trained on, with held-out queries."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import gin
import pytest

from kaft_promot.mini.fewshot import QUERY_SPLITS, SHOTS, TASKS, held_out, prompt

seqio = pytest.importorskip("seqio")
tasks = importlib.import_module("kaft_promot.tasks.mini_fewshot")


@pytest.fixture(autouse=True, scope="module")
def bytes_as_vocabulary() -> Iterator[None]:
    with gin.unlock_config():
        gin.clear_config()
        gin.bind_parameter("task_vocabulary.path", "bytes")
    yield
    with gin.unlock_config():
        gin.clear_config()


def read(
    name: str, count: int = 100, split: str = "validation", **arguments
) -> list[dict[str, str]]:
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        {"inputs": 512, "targets": 64}, split, **({"shuffle": False} | arguments)
    )
    names = {"inputs_pretokenized": "inputs", "targets_pretokenized": "targets"}
    return [
        {
            new: row[old].decode()
            for old, new in (names | {"id": "id", "source_id": "query"}).items()
        }
        for row in dataset.take(count).as_numpy_iterator()
    ]


def shown(row: dict[str, str]) -> list[tuple[str, str]]:
    """The shots of a prompt, by its text alone."""
    *shots, asked = row["inputs"].split(" ; ")
    assert asked == f"{row['query']} ="
    return [(x, y) for x, y in (shot.split(" = ") for shot in shots)]


def test_every_task_exists_at_every_number_of_shots_and_only_asks():
    for name in TASKS:
        for shots in SHOTS:
            task = seqio.get_mixture_or_task(f"mini_{name}_{shots}shot")
            assert tuple(task.splits) == QUERY_SPLITS
            for split in task.splits:
                assert task.num_input_examples(split) == tasks.QUERIES >= 100


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("name", ["first", "count", "claim", "kind"])
def test_prompts_are_those_that_mini_was_trained_on(name, split):
    task, by_shots = TASKS[name], {k: read(f"mini_{name}_{k}shot", split=split) for k in SHOTS}
    for shots, rows in by_shots.items():
        assert len({row["id"] for row in rows}) == len(rows) == 100
        for row in rows:
            items = shown(row)
            assert len(set(items)) == len(items) == shots
            assert row["inputs"] == prompt(items, row["query"])
            # Queries are held out, shots are not; so no query is among its shots.
            assert held_out(task, row["query"].removeprefix(f"{name}: "))
            assert not any(held_out(task, text.removeprefix(f"{name}: ")) for text, _ in items)
    for zero, one, two, four in zip(*by_shots.values(), strict=True):
        assert {r["query"] for r in (one, two, four)} == {zero["query"]}
        assert {r["targets"] for r in (one, two, four)} == {zero["targets"]}
        assert {r["id"] for r in (one, two, four)} == {zero["id"]}
        assert shown(four)[:2] == shown(two) and shown(two)[:1] == shown(one)
    # Each query has shots of its own.
    assert len({tuple(shown(row)) for row in by_shots[4]}) == 100


def test_the_splits_meet_only_where_a_task_has_few_inputs():
    met = {}
    for name in TASKS:
        asked, tested = (read(f"mini_{name}_2shot", 50, split=split) for split in QUERY_SPLITS)
        assert {row["id"] for row in asked}.isdisjoint(row["id"] for row in tested)
        assert all(shown(a) != shown(b) for a, b in zip(asked, tested, strict=True))
        queries = {row["query"] for row in asked}
        met[name] = sum(row["query"] in queries for row in tested)
    # As the module says.
    few = {"claim": 23, "same": 18, "twice": 10, "next": 8, "upper": 5, "larger": 3, "kind": 1}
    assert met == dict.fromkeys(TASKS, 0) | few


def test_two_loads_are_equal_whatever_the_seed_and_the_shard():
    first = read("mini_lookup_2shot", 20)
    assert read("mini_lookup_2shot", 20, seed=7) == first
    parts = [
        read("mini_lookup_2shot", 10, shard_info=seqio.ShardInfo(index=i, num_shards=2))
        for i in range(2)
    ]
    assert parts == [first[0::2], first[1::2]]


def test_the_metric_is_exact():
    (metric,) = seqio.get_mixture_or_task("mini_choice_1shot").metric_fns
    assert metric(["A", "A", "B"], ["A ", "B", "b"])["exact_match"] == pytest.approx(100 / 3)


def test_the_table_shows_every_task_with_its_format():
    rows = [line.split(" | ") for line in tasks.__doc__.splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in TASKS]
    for (_, output, example), (name, task) in zip(rows, TASKS.items(), strict=True):
        assert output == task.output
        assert example.startswith(f"`{name}: ") and "` -> `" in example
