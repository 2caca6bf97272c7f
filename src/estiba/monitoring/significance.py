"""Tail probabilities of the chi-square and Kolmogorov distributions, and Holm's correction, without SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MAX_TERMS = 10_000
_PRECISION = 1e-15
_TINY = 1e-300


def chi_square_tail(value: float, degrees: float) -> float:
    """The probability that a chi-square variable exceeds `value`."""
    if value <= 0 or degrees <= 0:
        return 1.0
    if not math.isfinite(value):
        return 0.0
    shape, x = degrees / 2, value / 2
    # The common factor of both expansions of the incomplete gamma function (Abramowitz and Stegun, 6.5.29 and 6.5.31).
    factor = math.exp(-x + shape * math.log(x) - math.lgamma(shape))
    return 1.0 - factor * _series(shape, x) if x < shape + 1 else factor * _fraction(shape, x)


def _series(shape: float, x: float) -> float:
    term = total = 1.0 / shape
    for k in range(1, _MAX_TERMS):
        term *= x / (shape + k)
        total += term
        if term < total * _PRECISION:
            break
    return total


def _fraction(shape: float, x: float) -> float:
    """The continued fraction, evaluated from the front (Lentz)."""
    b = x + 1.0 - shape
    c, d = 1.0 / _TINY, 1.0 / b
    value = d
    for k in range(1, _MAX_TERMS):
        a = -k * (k - shape)
        b += 2.0
        d = 1.0 / (_away(a * d + b))
        c = _away(b + a / c)
        value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return value


def _away(value: float) -> float:
    """The value, kept from zero as it divides."""
    return value if abs(value) > _TINY else _TINY


def kolmogorov_tail(value: float) -> float:
    """The probability that the limit of sqrt(n) times the largest difference exceeds `value` (Kolmogorov 1933)."""
    if value < 0.2:  # the alternating series converges slowly there, and the probability is 1 within 1e-12
        return 1.0
    total = sum((-1.0) ** (k - 1) * math.exp(-2.0 * (k * value) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2.0 * total))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests (Holm 1979): at a level, the chance of any false one is at most that level."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
