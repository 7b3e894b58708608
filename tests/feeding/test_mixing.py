"""Mixing by rate."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaft_promot.feeding import pipeline
from kaft_promot.feeding.mixing import integer_rates, place
from kaft_promot.feeding.token_store import TokenStore

RATES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=6)


def source(name: str, rate: float, count: int) -> pipeline.Source:
    examples = [{"inputs": [i], "targets": [rate_id(name)]} for i in range(count)]
    return pipeline.Source(name=name, rate=rate, store=TokenStore.from_examples(examples))


def rate_id(name: str) -> int:
    return ord(name)


@settings(max_examples=100, deadline=None)
@given(rates=RATES, n=st.integers(1, 400))
def test_any_beginning_has_the_right_shares(rates, n) -> None:
    whole = integer_rates(rates)
    counts = Counter(place(i, whole)[0] for i in range(n))
    for i, rate in enumerate(rates):
        share = n * rate / sum(rates)
        assert abs(counts[i] - share) <= len(rates)


@settings(max_examples=50, deadline=None)
@given(rates=RATES)
def test_every_dataset_is_read_in_order_without_gaps(rates) -> None:
    whole = integer_rates(rates)
    expected: Counter[int] = Counter()
    for i in range(300):
        dataset, index = place(i, whole)
        assert index == expected[dataset]
        expected[dataset] += 1


def test_integer_rates_are_exact() -> None:
    assert integer_rates([1e9, 1]) == [1_000_000_000, 1]
    assert integer_rates([0.5, 1.25, 3]) == [2, 5, 12]
    assert integer_rates([0.1, 0.1]) == [1, 1]


def test_mixture_ends_with_its_first_exhausted_task() -> None:
    data = pipeline.examples([source("a", 2.0, 10), source("b", 1.0, 100)], seed=None, num_epochs=1)
    found = Counter(int(data[i]["targets"][0]) for i in range(len(data)))
    assert found == {rate_id("a"): 10, rate_id("b"): 5}


@pytest.mark.parametrize("epochs", [1, 3])
def test_shuffling_permutes_every_epoch_differently(epochs: int) -> None:
    data = pipeline.examples([source("a", 1.0, 50)], seed=7, num_epochs=epochs)
    ids = [int(data[i]["inputs"][0]) for i in range(len(data))]
    orders = [ids[e * 50 : (e + 1) * 50] for e in range(epochs)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert list(range(50)) not in orders
    assert len({tuple(order) for order in orders}) == epochs


def test_tasks_of_a_mixture_shuffle_independently() -> None:
    seeds = {pipeline.task_seed(0, "a"), pipeline.task_seed(0, "b"), pipeline.task_seed(1, "a")}
    assert len(seeds) == 3 and all(0 <= seed < 2**32 for seed in seeds)
