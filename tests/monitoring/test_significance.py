"""Tail probabilities and corrections agree with SciPy."""

from __future__ import annotations

import pytest
from scipy import stats

from estiba.monitoring.significance import chi_square_tail, holm, kolmogorov_tail


@pytest.mark.parametrize("degrees", [1, 2, 5, 19, 100, 3000])
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 1.0, 1.5, 3.0, 20.0])
def test_tail_of_chi_square(degrees: int, ratio: float) -> None:
    expected = float(stats.chi2.sf(degrees * ratio, degrees))
    assert chi_square_tail(degrees * ratio, degrees) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("value", [0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0])
def test_tail_of_kolmogorov(value: float) -> None:
    assert kolmogorov_tail(value) == pytest.approx(float(stats.kstwobign.sf(value)), abs=1e-9)


def test_holm_is_at_least_the_p_value_and_at_most_bonferroni() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
