"""Means over tasks: against one task's statistics, scipy, simulation and figures by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kaft_promot.evaluation.statistics import bootstrap, paired_difference
from kaft_promot.evaluation.task_means import difference_of_tasks, mean_of_tasks

RNG = np.random.default_rng(5)


def ends(estimate):
    return estimate.value, estimate.low, estimate.high


def test_a_task_counts_the_same_however_many_examples_it_has():
    values = [1.0] * 2 + [1.0, 0.0, 0.0, 0.0] + [0.0] * 6
    tasks = ["a"] * 2 + ["b"] * 4 + ["c"] * 6
    estimate = mean_of_tasks(values, tasks, range(12))
    assert estimate.value == pytest.approx((1 + 0.25 + 0) / 3)
    assert (estimate.n, estimate.clusters) == (12, 12)
    assert mean_of_tasks([], [], []).to_json()["value"] is None
    assert difference_of_tasks([], [], [], []).p_value is None
    with pytest.raises(ValueError, match="differ in number"):
        difference_of_tasks([1.0], [], ["a"], ["q"])


@pytest.mark.parametrize("clusters", [range(60), [n // 3 for n in range(60)], [0] * 60])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_one_task_is_the_plain_statistics(clusters, share):
    a, b = (RNG.random(60) < share) * 1.0, (RNG.random(60) < 0.5) * 1.0
    clusters = list(clusters)
    one = mean_of_tasks(a, ["t"] * 60, clusters, seed=3)
    assert ends(one) == pytest.approx(ends(bootstrap(a, clusters, seed=3)), abs=1e-6)
    paired = difference_of_tasks(a, b, ["t"] * 60, clusters, seed=3)
    plain = paired_difference(a, b, clusters, seed=3)
    assert ends(paired) == pytest.approx(ends(plain), abs=1e-6)
    assert (paired.p_value, paired.test) == (plain.p_value, plain.test)
    assert (paired.wins, paired.losses) == (plain.wins, plain.losses)


def test_tasks_that_differ_do_not_widen_the_interval():
    """Stratified: half of the tasks at 80 %, half at 20 %, each with its own binomial error."""
    n = 400
    values = np.concatenate([np.arange(n) < 0.8 * n, np.arange(n) < 0.2 * n]) * 1.0
    estimate = mean_of_tasks(values, ["a"] * n + ["b"] * n, range(2 * n))
    error = np.sqrt(2 * 0.8 * 0.2 / n) / 2
    assert estimate.value == 0.5
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert estimate.high - estimate.low < 0.85 * (2 * 1.96 * np.sqrt(0.25 / (2 * n)))


def test_the_interval_of_unequal_tasks_against_its_formula():
    small, large = 50, 1000
    values = np.concatenate([np.arange(small) < 25, np.arange(large) < 300]) * 1.0
    estimate = mean_of_tasks(values, ["s"] * small + ["l"] * large, range(small + large))
    error = np.sqrt(0.25 / small + 0.21 / large) / 2
    assert estimate.value == pytest.approx(0.4)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_certainty_is_not_claimed_where_all_examples_agree():
    tasks = ["a"] * 20 + ["b"] * 20
    alike = mean_of_tasks([1.0] * 40, tasks, range(40))
    assert alike.low == pytest.approx(bootstrap([1.0] * 40).low) and alike.high == 1.0
    mixed = mean_of_tasks([1.0] * 20 + [0.0] * 20, tasks, range(40))
    assert mixed.low < 0.48 and mixed.high > 0.52
    # A small task that counts as much as a large one makes the mean as uncertain as itself.
    unequal = mean_of_tasks([1.0] * 1005, ["a"] * 5 + ["b"] * 1000, range(1005))
    assert 1 - unequal.low > 0.5 * (1 - bootstrap([1.0] * 5).low) * 0.95


def test_a_question_in_several_tasks_is_drawn_for_all_of_them():
    right = [1.0, 0.0] * 50
    tasks = ["1 shot"] * 100 + ["4 shots"] * 100
    same = mean_of_tasks(right * 2, tasks, [*range(100)] * 2)
    apart = mean_of_tasks(right * 2, tasks, range(200))
    once = bootstrap(right)
    assert same.high - same.low == pytest.approx(once.high - once.low, rel=0.05)
    assert apart.high - apart.low < 0.8 * (same.high - same.low)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(11)
    truth, sizes = np.array([0.95, 0.6, 0.1]), (15, 60, 30)
    tasks = np.repeat(["a", "b", "c"], sizes)
    held = 0
    for trial in range(300):
        values = (rng.random(sum(sizes)) < np.repeat(truth, sizes)) * 1.0
        estimate = mean_of_tasks(values, tasks, range(sum(sizes)), trial, replicates=300)
        held += estimate.low <= truth.mean() <= estimate.high
    assert 0.92 <= held / 300 <= 0.99


def test_the_paired_test_against_scipy():
    equal = ["a", "b"] * 6
    a, b = [1.0] * 10 + [0.0, 0.0], [0.0] * 8 + [1.0, 1.0, 1.0, 0.0]
    exact = difference_of_tasks(a, b, equal, range(12))
    assert exact.p_value == pytest.approx(stats.binomtest(8, 9).pvalue)
    assert exact.test == "McNemar's exact test"
    sizes = {"a": 3, "b": 9}
    tasks = ["a"] * 3 + ["b"] * 9
    unequal = difference_of_tasks(a, b, tasks, range(12))
    weighted = [(x - y) / sizes[task] for x, y, task in zip(a, b, tasks, strict=True)]
    expected = stats.permutation_test(
        (weighted, [0.0] * 12),
        lambda x, y: np.sum(x) - np.sum(y),
        permutation_type="samples",
        n_resamples=np.inf,
    ).pvalue
    assert unequal.p_value == pytest.approx(expected, abs=0.01)
    assert unequal.value == pytest.approx(sum(weighted) / 2)


rows = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from("abc"), st.integers(0, 6)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_figures_stay_in_their_range_and_do_not_depend_on_names(drawn):
    a, b, tasks, questions = zip(*drawn, strict=True)
    estimate = mean_of_tasks(a, tasks, questions, replicates=200)
    difference = difference_of_tasks(a, b, tasks, questions, replicates=200)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1 + 1e-12
    assert -1 <= difference.low <= difference.value <= difference.high <= 1
    assert 0 < difference.p_value <= 1
    named = [f"task {task}" for task in tasks], [f"q{question}" for question in questions]
    assert mean_of_tasks(a, *named, replicates=200) == estimate
    assert difference_of_tasks(a, b, *named, replicates=200) == difference
    reverse = difference_of_tasks(b, a, tasks, questions, replicates=200)
    assert reverse.value == pytest.approx(-difference.value)
    assert reverse.p_value == pytest.approx(difference.p_value)
