"""Statistics of windows agree with SciPy on the same bins."""

from __future__ import annotations

import numpy as np
import pytest
from drift_rows import Watch, draw
from scipy import stats

from estiba.monitoring.comparison import chi_square, design_effect, kolmogorov, proportions


def test_chi_square_of_two_samples_in_bins() -> None:
    random = np.random.default_rng(1)
    reference, window = (random.multinomial(n, [0.1, 0.2, 0.3, 0.4]) for n in (5_000, 800))
    difference, p = chi_square(reference, window.astype(float))
    assert p == pytest.approx(stats.chi2_contingency([reference, window], correction=False)[1], rel=1e-6)
    assert difference == pytest.approx(np.abs(reference / 5_000 - window / 800).sum() / 2)


def test_bins_of_few_rows_are_put_together() -> None:
    reference, window = np.array([5_000, 4, 3, 0]), np.array([990.0, 3.0, 7.0, 0.0])
    p = stats.chi2_contingency([[5_000, 7], [990, 10]], correction=False)[1]
    assert chi_square(reference, window)[1] == pytest.approx(p, rel=1e-6)
    assert chi_square(np.array([10, 0]), np.array([5.0, 0.0])) == (0.0, 1.0)


def test_kolmogorov_in_bins_is_that_of_rounded_values() -> None:
    random = np.random.default_rng(2)
    first, second = random.normal(size=4_000), random.normal(0.1, 1, 1_000)
    edges = np.quantile(first, np.arange(1, 20) / 20)
    binned = [np.searchsorted(edges, values, side="right") for values in (first, second)]
    difference, p = kolmogorov(*(np.bincount(each, minlength=20) for each in binned))
    exact = stats.ks_2samp(*binned, method="asymp")
    assert difference == pytest.approx(exact.statistic)
    assert p == pytest.approx(exact.pvalue, rel=0.1)


@pytest.mark.parametrize(("before", "after"), [(5, 20), (0, 3), (200, 20), (0, 1)])
def test_proportions_are_compared_with_the_correction_of_yates(before: int, after: int) -> None:
    table = [[before, 1_000 - before], [after, 800 - after]]
    assert proportions(before, 1_000, after, 800)[1] == pytest.approx(stats.chi2_contingency(table)[1], rel=1e-6)
    assert proportions(0, 1_000, 0, 800) == (0.0, 1.0)


def test_rows_that_come_four_times_count_once() -> None:
    watch = Watch(np.random.default_rng(3))
    once, four = draw(1_000, watch.random), np.repeat(draw(250, watch.random), 4, axis=0)
    effects = [design_effect(watch.layout.parts, watch.gathered(rows).slices.cells) for rows in (once, four)]
    assert effects[0] < 1.3
    assert 3.2 < effects[1] < 4.8


@pytest.mark.parametrize("levels", [60, 100])
def test_half_of_many_sparse_levels_is_a_difference(levels: int) -> None:
    """Each level alone has too few expected rows for the test."""
    reference = np.full(levels, 16 if levels == 60 else 20)
    window = np.zeros(levels)
    window[: levels // 2] = 7 if levels == 60 else 5
    difference, p = chi_square(reference, window)
    assert difference == pytest.approx(0.5, abs=0.1)
    assert p < 1e-6
