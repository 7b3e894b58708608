"""Intervals and paired tests for means over examples that may share a question.

**Interval of a mean** (`bootstrap`). The percentile bootstrap (Efron & Tibshirani, An Introduction
to the Bootstrap, 1993, ch. 13) over *clusters*: all rows of one question are drawn together (Field
& Welsh, JRSS-B 69, 2007), since they rise and fall together. Where all or nearly all examples agree
the bootstrap is too narrow (at 100 % its width is zero, though 20 right of 20 says little about the
next one). So the interval is widened, where needed, to Agresti & Coull's (American Statistician 52,
1998: Wald's after about two successes and two failures are added; it always holds Wilson's score
interval), with the observed variance, so that it also serves scores between 0 and 1, and at the
*effective* number of examples, n / design effect (Kish, Survey Sampling, 1965; the same device as
Korn & Graubard, Survey Methodology 24, 1998). Without any variation the design effect cannot be
seen, and every question counts once.

**Interval of a paired difference** (`paired_difference`): the same cluster bootstrap over the
differences on the same examples, widened in the same way to Agresti & Min's interval (Statistics in
Medicine 24, 2005: Wald's after half an observation is added to each cell of the paired 2x2 table).

**Paired test**: the sign-flip permutation test over clusters (Fisher's; Good, Permutation Tests,
2000): if two arms are alike, each question's difference is as likely with either sign. Exact for
whole-number differences; with one right-or-wrong row a question this *is* McNemar's exact test.
Other scores use 20,000 seeded flips, counted with the observed one (Phipson & Smyth, 2010), so that
no p-value is 0.

**Interval of any other figure** (`bootstrap_figures`), such as BLEU, which is no mean over
examples: the percentile bootstrap, the figure computed anew on each resample of whole questions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
SIGNIFICANCE = 0.05  # largest p-value of a measurable difference
REPLICATES = 4000
FLIPS = 20_000
Z = 1.959963984540054  # standard normal quantile at (1 + LEVEL) / 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval.

    Attributes:
      value: the figure, a fraction (not percent); None where nothing was measured.
      low, high: the interval's ends; None where value is.
      n: number of examples (rows) behind it.
      clusters: number of questions behind it.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int = 0

    def to_json(self) -> dict[str, float | int | None]:
        """`{"value", "low", "high", "n"}`, the form of results.json."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True, kw_only=True)
class Resampled(Estimate):
    """An Estimate on the figure's own scale (not a fraction), which says how it was resampled.

    Attributes:
      resamples: number of bootstrap samples behind the interval.
    """

    resamples: int = 0

    def to_json(self) -> dict[str, float | int | None]:
        """As Estimate's, with `resamples`."""
        return {**super().to_json(), "resamples": self.resamples}


@dataclass(frozen=True, kw_only=True)
class Difference(Estimate):
    """An Estimate of `a - b` on the same examples, in [-1, 1], with the paired test's p-value.

    Attributes:
      p_value: two-sided; None where nothing was compared.
      wins, losses: examples on which a scores higher / lower than b.
      test: which test gave the p-value.
    """

    p_value: float | None = None
    wins: int = 0
    losses: int = 0
    test: str = ""

    @property
    def measurable(self) -> bool:
        """Whether it may be called a difference at all: the interval and the test both say so.

        On very few questions they may disagree: 3 right against 0 of 3 gives an interval above
        zero, yet two-sided the test cannot get below p = 0.25.
        """
        if self.low is None or self.high is None or self.p_value is None:
            return False
        return not self.low <= 0 <= self.high and self.p_value <= SIGNIFICANCE

    def to_json(self) -> dict[str, float | int | None]:
        """As Estimate's, with `p_value`, `wins` and `losses`."""
        extra = {"p_value": self.p_value, "wins": self.wins, "losses": self.losses}
        return {**super().to_json(), **extra}


def bootstrap(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    *,
    weights: Sequence[float] | np.ndarray | None = None,
    replicates: int = REPLICATES,
) -> Estimate:
    """Mean of `values` in [0, 1] with a 95 % interval (method: see the module).

    Args:
      values: [n] scores in [0, 1].
      clusters: [n] question of each row; None: every row is its own.
      seed: of the resampling; the same seed gives the same interval.
      weights: [n] denominators, for a ratio sum(values) / sum(weights) with 0 <= values <= weights
        (None: ones, the plain mean). Rows of weight 0 say nothing of the ratio and are left out, of
        the estimate's `n` as well.
      replicates: number of bootstrap samples.

    Returns:
      The estimate; value None where n is 0 or the denominators sum to 0.
    """
    value_n = np.asarray(values, dtype=np.float64)
    weight_n = np.ones_like(value_n) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights is not None:
        told = np.flatnonzero(weight_n)
        value_n, weight_n = value_n[told], weight_n[told]
        clusters = None if clusters is None else [clusters[int(i)] for i in told]
    code_n, num_clusters = codes(clusters, len(value_n))
    total = weight_n.sum()
    if total <= 0:
        return Estimate(value=None, low=None, high=None, n=len(value_n), clusters=num_clusters)
    mean = float(value_n.sum() / total)
    low, high = _percentiles(value_n, weight_n, code_n, num_clusters, seed, replicates)
    size = _effective_n(value_n, weight_n, code_n, num_clusters)
    size = min(size, float(total**2 / (weight_n**2).sum()))  # Kish's, for unequal weights
    # Linearised: the ratio's square stands where a plain mean has the mean of squares.
    deviation_n = value_n - mean * weight_n
    variance = float((deviation_n**2).mean()) / float(weight_n.mean()) ** 2
    wide_low, wide_high = _with_pseudo(mean, variance, size, count=Z**2, centre=0.5)
    return Estimate(
        value=mean,
        low=max(0.0, min(low, wide_low, mean)),
        high=min(1.0, max(high, wide_high, mean)),
        n=len(value_n),
        clusters=num_clusters,
    )


def bootstrap_figures(
    figures: Callable[[np.ndarray], Mapping[str, float]],
    n: int,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    *,
    replicates: int = REPLICATES,
    values: Mapping[str, float] | None = None,
) -> dict[str, Resampled]:
    """Any figures of n examples with percentile intervals: each resample computes them anew.

    Args:
      figures: row numbers, some more than once, -> figures by name; NaN, or a name left out, where
        it cannot be computed.
      n: number of rows.
      clusters, seed, replicates: as for `bootstrap`; rows of a question are drawn together.
      values: the figures of all rows, where they are known already.

    Returns:
      name -> estimate. No interval where there is a single question, where no two resamples differ
      (which says nothing of the next example), or where more than a twentieth of the resamples
      cannot be computed.
    """
    values = figures(np.arange(n)) if values is None else values
    code_n, num_clusters = codes(clusters, n)
    drawn: dict[str, list[float]] = {name: [] for name in values}
    if num_clusters > 1:
        for row_n in _resamples(code_n, num_clusters, seed, replicates):
            of_sample = figures(row_n)
            for name, found in drawn.items():
                found.append(of_sample.get(name, np.nan))
    tail = 100 * (1 - LEVEL) / 2
    estimates = {}
    for name, value in values.items():
        replicate_r = np.asarray(drawn[name], np.float64)
        replicate_r = replicate_r[np.isfinite(replicate_r)]
        low = high = None
        if np.isfinite(value) and len(replicate_r) >= max(1, 0.95 * replicates):
            ends = np.percentile(replicate_r, [tail, 100 - tail])
            if replicate_r.min() < replicate_r.max():
                low, high = min(float(ends[0]), value), max(float(ends[1]), value)
        estimates[name] = Resampled(
            value=float(value) if np.isfinite(value) else None,
            low=low,
            high=high,
            n=n,
            clusters=num_clusters,
            resamples=len(replicate_r),
        )
    return estimates


def _resamples(
    code_n: np.ndarray, num_clusters: int, seed: int, replicates: int
) -> Iterator[np.ndarray]:
    """Row numbers of one bootstrap sample of whole clusters after another, ascending."""
    row_n = np.arange(len(code_n))
    part = max(1, min(replicates, 10_000_000 // num_clusters))
    for start in range(0, replicates, part):
        size = min(part, replicates - start)
        for count_c in draws.__wrapped__(num_clusters, seed + start, size):
            yield np.repeat(row_n, count_c[code_n].astype(np.int64))


def paired_difference(
    values_a: Sequence[float] | np.ndarray,
    values_b: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    *,
    replicates: int = REPLICATES,
) -> Difference:
    """Mean of `a - b` over the same examples, with interval and two-sided p-value.

    Args:
      values_a, values_b: [n] scores in [0, 1]; entry i of both belongs to the same example.
      clusters, seed, replicates: as for `bootstrap`.

    Raises:
      ValueError: the two are not equally long.
    """
    a_n, b_n = np.asarray(values_a, np.float64), np.asarray(values_b, np.float64)
    if a_n.shape != b_n.shape:
        raise ValueError(f"paired values differ in number: {a_n.shape} and {b_n.shape}")
    difference_n = a_n - b_n
    code_n, num_clusters = codes(clusters, len(difference_n))
    if not len(difference_n):
        return Difference(value=None, low=None, high=None, n=0)
    mean, ones_n = float(difference_n.mean()), np.ones_like(difference_n)
    low, high = _percentiles(difference_n, ones_n, code_n, num_clusters, seed, replicates)
    size = _effective_n(difference_n, ones_n, code_n, num_clusters)
    # Half an observation in each of four cells: differences 0 and 0, +1, -1, each counted half.
    wide_low, wide_high = _with_pseudo(mean, float(difference_n.var()), size, count=2, centre=0.0)
    p_value, test = sign_flip_test(_cluster_sums(difference_n, code_n, num_clusters), seed)
    return Difference(
        value=mean,
        low=max(-1.0, min(low, wide_low, mean)),
        high=min(1.0, max(high, wide_high, mean)),
        n=len(difference_n),
        clusters=num_clusters,
        p_value=p_value,
        wins=int((difference_n > 0).sum()),
        losses=int((difference_n < 0).sum()),
        test=test,
    )


def _with_pseudo(
    mean: float, variance: float, size: float, *, count: float, centre: float
) -> tuple[float, float]:
    """Wald's 95 % interval after `count` made-up observations are added to `size` real ones.

    Their mean is `centre` and their mean square is 1/2: halves of 0 and 1 (centre 1/2: Agresti &
    Coull), or a half of 0 and quarters of +1 and -1 (centre 0: Agresti & Min).
    """
    total = size + count
    new_mean = (size * mean + count * centre) / total
    square = (size * (variance + mean**2) + count / 2) / total
    half_width = Z * float(np.sqrt((square - new_mean**2) / total))
    return new_mean - half_width, new_mean + half_width


def sign_flip_test(differences: Sequence[float] | np.ndarray, seed: int = 0) -> tuple[float, str]:
    """Two-sided sign-flip permutation test of independent differences.

    Args:
      differences: [c] one difference a cluster.
      seed: of the flips, where they are drawn.

    Returns:
      (p-value, name of the test): exact by adding up all 2^c sign patterns where the differences
      are whole numbers (for -1, 0, 1: McNemar's exact test), else from FLIPS seeded flips.
    """
    difference_c = np.asarray(differences, dtype=np.float64)
    difference_c = difference_c[difference_c != 0]
    if not len(difference_c):
        return 1.0, "no differing example"
    observed = abs(float(difference_c.sum()))
    if np.all(difference_c == np.round(difference_c)):
        size_c = np.abs(difference_c).astype(np.int64)
        # probability_s[s]: of the sum s - reach after the clusters so far.
        reach = int(size_c.sum())
        probability_s = np.zeros(2 * reach + 1)
        probability_s[reach] = 1.0
        for size in size_c:
            probability_s = 0.5 * (np.roll(probability_s, size) + np.roll(probability_s, -size))
        sum_s = np.abs(np.arange(-reach, reach + 1))
        exact = float(probability_s[sum_s >= round(observed)].sum())
        name = "McNemar's exact test" if size_c.max() == 1 else "exact sign-flip test"
        return min(1.0, exact), name
    rng = np.random.default_rng(seed)
    extreme, tolerance = 0, 1e-9 * float(np.abs(difference_c).sum())
    for start in range(0, FLIPS, 1000):
        flips = min(1000, FLIPS - start)
        sign_fxc = rng.integers(0, 2, size=(flips, len(difference_c)), dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(sign_fxc @ difference_c) >= observed - tolerance).sum())
    return (extreme + 1) / (FLIPS + 1), "sign-flip permutation test"


def codes(clusters: Sequence[Hashable] | None, n: int) -> tuple[np.ndarray, int]:
    """Cluster names -> (int64 [n] codes in order of appearance, number of clusters)."""
    if clusters is None:
        return np.arange(n), n
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} cluster names for {n} values")
    index: dict[Hashable, int] = {}
    code_n = np.array([index.setdefault(name, len(index)) for name in clusters], dtype=np.int64)
    return code_n, len(index)


def _cluster_sums(value_n: np.ndarray, code_n: np.ndarray, num_clusters: int) -> np.ndarray:
    return np.bincount(code_n, weights=value_n, minlength=num_clusters)


@functools.lru_cache(maxsize=3)
def draws(num_clusters: int, seed: int, replicates: int) -> np.ndarray:
    """float32 [replicates, clusters]: how often each bootstrap sample drew each cluster."""
    rng = np.random.default_rng(seed)
    count_rxc = np.empty((replicates, num_clusters), np.float32)
    rows = max(1, 500_000 // num_clusters)  # as many at a time as fit a cache
    for start in range(0, replicates, rows):
        size = min(rows, replicates - start)
        drawn_rxc = rng.integers(0, num_clusters, size=(size, num_clusters), dtype=np.int32)
        cell_rxc = drawn_rxc + np.arange(size, dtype=np.int32)[:, None] * num_clusters
        count_rxc[start : start + size] = np.bincount(
            cell_rxc.ravel(), minlength=size * num_clusters
        ).reshape(size, num_clusters)
    count_rxc.flags.writeable = False
    return count_rxc


def _percentiles(
    value_n: np.ndarray,
    weight_n: np.ndarray,
    code_n: np.ndarray,
    num_clusters: int,
    seed: int,
    replicates: int,
) -> tuple[float, float]:
    """Percentile interval of sum(values) / sum(weights) under resampled clusters."""
    both_cx2 = np.stack(
        [_cluster_sums(x_n, code_n, num_clusters) for x_n in (value_n, weight_n)], axis=1
    )
    sums = []
    # Draws of many clusters are large; those are made in parts and not kept (50 M counts = 200 MB).
    part = max(1, min(replicates, 10_000_000 // num_clusters))
    for start in range(0, replicates, part):
        size = min(part, replicates - start)
        draw = draws if part == replicates else draws.__wrapped__
        sums.append(draw(num_clusters, seed + start, size) @ both_cx2.astype(np.float32))
    total_rx2 = np.concatenate(sums).astype(np.float64)
    total_rx2 = total_rx2[total_rx2[:, 1] > 0]
    if not len(total_rx2):
        return np.inf, -np.inf  # no replicate can be computed: leave it to the other interval
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(total_rx2[:, 0] / total_rx2[:, 1], [tail, 100 - tail])
    return float(low), float(high)


def _effective_n(
    value_n: np.ndarray, weight_n: np.ndarray, code_n: np.ndarray, num_clusters: int
) -> float:
    """Number of independent examples that the rows are worth: n / design effect.

    The design effect is the variance of the (ratio) mean with whole clusters as the units over that
    with rows as the units, both linearised (Cochran, Sampling Techniques, 1977, ch. 6); never below
    1, and n / clusters where rows do not vary at all.
    """
    n = len(value_n)
    residual_n = value_n - value_n.sum() / weight_n.sum() * weight_n
    by_row = float((residual_n**2).sum())
    if num_clusters == 1 or by_row < 1e-12 * n:
        return float(num_clusters)
    by_cluster = float((_cluster_sums(residual_n, code_n, num_clusters) ** 2).sum())
    correction = (num_clusters / (num_clusters - 1)) / (n / (n - 1))
    return n / max(1.0, correction * by_cluster / by_row)
