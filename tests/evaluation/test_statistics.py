import numpy as np
import pytest
from scipy import stats

from kaft_promot.evaluation.statistics import (
    Estimate,
    bootstrap,
    paired_difference,
    sign_flip_test,
)


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_nothing_measured_is_no_value_and_no_crash():
    estimate = bootstrap([], [])
    assert estimate.to_json() == {"value": None, "low": None, "high": None, "n": 0}
    difference = paired_difference([], [], [])
    assert difference.value is None and difference.p_value is None and difference.n == 0


def test_ratio_without_denominator_is_no_value():
    estimate = bootstrap([0.0, 0.0], weights=[0.0, 0.0])
    assert (estimate.value, estimate.n) == (None, 0)  # no row says anything


def test_same_seed_same_interval_other_seed_other_interval():
    values = np.random.default_rng(3).random(2000) ** 20
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    assert bootstrap(values, seed=1).low != bootstrap(values, seed=2).low


def wilson(right, n):
    interval = stats.binomtest(right, n).proportion_ci(method="wilson")
    return interval.low, interval.high


@pytest.mark.parametrize(("right", "n"), [(0, 40), (40, 40), (39, 40), (3, 17), (200, 200)])
def test_never_narrower_than_wilsons_interval_and_not_much_wider(right, n):
    """Also at 0 and 100 %, where the plain bootstrap claims certainty."""
    estimate = bootstrap([1.0] * right + [0.0] * (n - right))
    low, high = wilson(right, n)
    assert estimate.low <= low and estimate.high >= high
    assert width(estimate) < (high - low) * 1.25 + 0.5 / n


def test_agresti_coull_by_hand():
    # 10 of 10, z = 1.96: 13.84 observations with mean 11.92 / 13.84.
    mean = (10 + 1.96**2 / 2) / (10 + 1.96**2)
    expected = mean - 1.96 * np.sqrt(mean * (1 - mean) / (10 + 1.96**2))
    assert bootstrap([1.0] * 10).low == pytest.approx(expected, abs=1e-4)
    assert bootstrap([1.0] * 10).high == 1.0


def test_all_alike_in_few_questions_counts_questions():
    alike = bootstrap([1.0] * 40, ["q1", "q2", "q3", "q4"] * 10)
    assert alike.low == bootstrap([1.0] * 4).low < bootstrap([1.0] * 40).low


def test_scores_between_0_and_1_keep_their_small_variance():
    """Not that of right-or-wrong answers with the same mean, which is sqrt(3) times as wide."""
    values = np.random.default_rng(1).random(400)
    half = 1.96 * values.std() / np.sqrt(400)
    assert width(bootstrap(values)) == pytest.approx(2 * half, rel=0.1)


def test_interval_shrinks_as_the_last_error_goes():
    """More right answers never look less certain from below."""
    lows = [bootstrap([1.0] * right + [0.0] * (60 - right)).low for right in (56, 57, 58, 59, 60)]
    assert lows == sorted(lows)


def test_clustered_interval_is_wider_where_rows_share_questions():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(0, 2, size=60), 5).astype(float)
    questions = np.repeat(np.arange(60), 5).tolist()
    clustered, naive = bootstrap(values, questions), bootstrap(values)
    assert clustered.value == naive.value
    # Five rows that always agree are worth one: sqrt(5) times as wide.
    assert width(clustered) / width(naive) == pytest.approx(np.sqrt(5), rel=0.15)
    assert (clustered.n, clustered.clusters) == (300, 60)


@pytest.mark.parametrize(
    ("truth", "questions", "rows"), [(0.5, 40, 1), (0.9, 60, 1), (0.97, 100, 1), (0.8, 40, 4)]
)
def test_coverage_on_simulated_data(truth, questions, rows):
    """About 95 % of intervals hold the truth, also near 100 % and where rows share a question."""
    rng = np.random.default_rng(7)
    trials, held = 1000, 0
    names = np.repeat(np.arange(questions), rows).tolist()
    for _ in range(trials):
        # Each question has its own difficulty, with mean `truth`.
        if rows == 1:
            chance = np.full(questions, truth)
        else:
            chance = rng.beta(2 * truth, 2 * (1 - truth), size=questions)
        values = (rng.random((questions, rows)) < chance[:, None]).astype(float).ravel()
        estimate = bootstrap(values, names, replicates=500)
        held += estimate.low <= truth <= estimate.high
    # Three binomial standard deviations below 95 % is 92.9 %.
    assert held / trials >= 0.929


def test_coverage_of_paired_differences():
    rng = np.random.default_rng(11)
    trials, held = 1000, 0
    for _ in range(trials):
        a = (rng.random(80) < 0.95).astype(float)
        b = np.where(rng.random(80) < 0.8, a, rng.random(80) < 0.5)
        held += _holds(paired_difference(a, b, replicates=500), 0.2 * (0.95 - 0.5))
    assert held / trials >= 0.929


def _holds(estimate, truth):
    return estimate.low <= truth <= estimate.high


def test_rows_without_weight_do_not_narrow_a_ratio():
    """5 of 100 conflicts show an answer, none from memory: what 0 of 5 says, and no more."""
    weights = np.zeros(100)
    weights[:5] = 1
    few = bootstrap(np.zeros(100), weights=weights)
    assert few == bootstrap(np.zeros(5)) and few.n == 5
    wilson = stats.binomtest(0, 5).proportion_ci(method="wilson").high
    assert few.high >= wilson - 0.01


def test_ratio_is_the_ratio_of_sums():
    estimate = bootstrap([1.0, 0.0, 0.5], weights=[1.0, 1.0, 1.5])
    assert estimate.value == pytest.approx(1.5 / 3.5)
    assert 0 <= estimate.low < estimate.value < estimate.high <= 1


def test_many_questions_are_drawn_in_parts():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, size=6000).astype(float)
    estimate = bootstrap(values, replicates=2000)
    half = 1.96 * np.sqrt(estimate.value * (1 - estimate.value) / 6000)
    assert width(estimate) == pytest.approx(2 * half, rel=0.08)


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (7, 2), (10, 10), (30, 12), (0, 8)])
def test_sign_flip_test_is_mcnemars_exact_test_on_right_or_wrong(wins, losses):
    differences = [1.0] * wins + [-1.0] * losses + [0.0] * 25
    p_value, name = sign_flip_test(differences)
    assert p_value == pytest.approx(stats.binomtest(wins, wins + losses, 0.5).pvalue)
    assert name == "McNemar's exact test"


def test_exact_sign_flip_test_of_clusters_equals_enumeration():
    differences = np.array([3.0, -1.0, 2.0, 2.0, 1.0, -1.0, 4.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1)
    expected = np.mean(np.abs(differences @ signs) >= abs(differences.sum()))
    assert sign_flip_test(differences)[0] == pytest.approx(expected)


def test_drawn_sign_flips_agree_with_scipy():
    differences = np.random.default_rng(5).normal(0.25, 1.0, size=30)
    p_value, name = sign_flip_test(differences)
    expected = stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=20_000, random_state=0
    ).pvalue
    assert p_value == pytest.approx(expected, abs=0.015)
    assert name == "sign-flip permutation test"


def test_paired_difference_counts_and_signs():
    difference = paired_difference([1, 1, 0, 1], [0, 1, 1, 0])
    assert (difference.value, difference.wins, difference.losses, difference.n) == (0.25, 2, 1, 4)
    assert difference.p_value == pytest.approx(1.0)
    mirrored = paired_difference([0, 1, 1, 0], [1, 1, 0, 1])
    assert mirrored.value == -difference.value and mirrored.p_value == difference.p_value


def test_no_difference_at_all_still_has_a_width():
    difference = paired_difference([1.0] * 50, [1.0] * 50)
    assert (difference.value, difference.p_value) == (0.0, 1.0)
    assert -0.06 < difference.low < -0.02 and difference.low == -difference.high


@pytest.mark.parametrize(
    ("wins", "losses", "same", "measurable"),
    [(3, 0, 0, False), (5, 0, 0, False), (6, 0, 0, True), (0, 6, 0, True), (0, 0, 9, False)],
)
def test_a_difference_is_measurable_where_interval_and_test_agree(wins, losses, same, measurable):
    a = [1] * wins + [0] * losses + [1] * same
    b = [0] * wins + [1] * losses + [1] * same
    difference = paired_difference(a, b)
    assert difference.measurable == measurable
    assert (difference.low > 0 or difference.high < 0) == bool(wins or losses)


def test_what_was_not_compared_is_not_measurable():
    assert not paired_difference([], []).measurable


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(2)
    hard = rng.random(200) < 0.5
    a, b = hard.astype(float), (hard | (rng.random(200) < 0.1)).astype(float)
    paired = paired_difference(b, a)
    assert width(paired) < 0.5 * np.hypot(width(bootstrap(a)), width(bootstrap(b)))
    assert paired.low > 0 and paired.p_value < 0.01


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="differ in number"):
        paired_difference([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="cluster names"):
        bootstrap([1.0, 0.0], ["q"])
