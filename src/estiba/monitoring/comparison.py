"""Compare the counts of a window with those of the reference: an effect that matters and is no chance.

Two samples are compared, as the reference is one too. The size of the window is divided by its design effect: rows that
come in runs, such as retries, say less than as many independent ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.monitoring.layout import Counts, Part, Share, share
from estiba.monitoring.options import DriftOptions
from estiba.monitoring.significance import chi_square_tail, holm, kolmogorov_tail

GROUPS = 20
"""Slices of a window by which the design effect is measured."""

MIN_EXPECTED = 5.0
"""Bins with fewer expected rows are put together, as the chi-square distribution does not hold for them."""

Numbers = npt.NDArray[np.float64]


class Statistic(msgspec.Struct, frozen=True, omit_defaults=True):
    """One comparison.

    Args:
        name: `ks` (largest difference of the shares below a value), `shares` (total variation: the share of rows in
            other bins), `missing`, `unseen` or `outside` (difference of shares).
        value: the effect, 0 to 1. floor: the smallest that is reported.
        p: the probability of such an effect without drift, by itself. adjusted: over all comparisons of the window.
    """

    name: str
    value: float
    floor: float
    p: float
    adjusted: float = 1.0

    def exceeds(self, alpha: float) -> bool:
        return self.value >= self.floor and self.adjusted <= alpha

    def is_quiet(self, alpha: float, hysteresis: float) -> bool:
        """True if nothing is left of a drift: the effect is well below its floor, or chance explains it."""
        return self.value < hysteresis * self.floor or self.p > alpha


class Compared(NamedTuple):
    """Comparisons of a window, by part. `design_effect`: how many rows count as one."""

    statistics: dict[str, tuple[Statistic, ...]]
    design_effect: float


def compare(parts: tuple[Part, ...], reference: Counts, groups: Counts, options: DriftOptions) -> Compared:
    """Compare a window with the reference.

    Args:
        groups: counts of consecutive slices of the window, of shape (slices, cells).
    """
    effect = design_effect(parts, groups)
    window = groups.sum(axis=0)
    results: dict[str, tuple[Statistic, ...]] = {}
    for part in parts:
        known, now = share(part, reference), share(part, window)
        if known.rows and now.rows:
            results[part.name] = tuple(_statistics(part, known, now, effect, options))
    flat = [each for own in results.values() for each in own]
    adjusted = iter(holm([each.p for each in flat]))
    return Compared(
        {
            name: tuple(msgspec.structs.replace(each, adjusted=next(adjusted)) for each in own)
            for name, own in results.items()
        },
        effect,
    )


def _statistics(part: Part, known: Share, now: Share, effect: float, options: DriftOptions) -> list[Statistic]:
    results = []
    if known.valued and now.valued:
        counts = now.bins / effect
        difference, p = chi_square(known.bins, counts)
        if part.by_level:
            results.append(Statistic("shares", difference, options.level_floor, p))
        else:
            results.append(Statistic("ks", *_with(options.number_floor, kolmogorov(known.bins, counts))))
            results.append(Statistic("shares", difference, options.spread_floor, p))
    for name in ("missing", "unseen", "outside"):
        before, after = getattr(known, name), getattr(now, name)
        if before or after:
            pair = proportions(before, known.rows, after / effect, now.rows / effect)
            results.append(Statistic(name, *_with(options.missing_floor, pair)))
    return results


def _with(floor: float, results: tuple[float, float]) -> tuple[float, float, float]:
    return results[0], floor, results[1]


def kolmogorov(reference: Counts, window: Numbers) -> tuple[float, float]:
    """The largest difference of the shares below an edge, and its probability, of two samples counted in bins."""
    m, n = float(reference.sum()), float(window.sum())
    difference = float(np.abs(np.cumsum(reference) / m - np.cumsum(window) / n).max())
    return difference, kolmogorov_tail(math.sqrt(n * m / (n + m)) * difference)


def chi_square(reference: Counts, window: Numbers) -> tuple[float, float]:
    """Total variation between two samples counted in bins, and the probability by the chi-square test."""
    table = _pooled(np.stack([reference.astype(float), window]))
    rows = table.sum(axis=1)
    difference = float(np.abs(table[0] / rows[0] - table[1] / rows[1]).sum() / 2)
    if table.shape[1] < 2:
        return difference, 1.0
    expected = rows[:, None] * table.sum(axis=0) / rows.sum()
    value = float(((table - expected) ** 2 / expected).sum())
    return difference, chi_square_tail(value, table.shape[1] - 1)


def _pooled(table: Numbers) -> Numbers:
    """The table without empty bins, and with those of few expected rows put together into groups of enough."""
    totals = table.sum(axis=0)
    table, totals = table[:, totals > 0], totals[totals > 0]
    smaller = table.sum(axis=1).min() / totals.sum()
    few = totals * smaller < MIN_EXPECTED
    if few.sum() < 2:
        return table
    reached = np.floor(np.cumsum(totals[few] * smaller) / MIN_EXPECTED)
    group = np.minimum(np.append(0.0, reached[:-1]), max(reached[-1] - 1, 0.0))  # the last ones join those before
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    return np.concatenate([table[:, ~few], np.add.reduceat(table[:, few], starts, axis=1)], axis=1)


def proportions(before: float, m: float, after: float, n: float) -> tuple[float, float]:
    """The difference of two shares, and its probability by the chi-square test with Yates' correction."""
    difference = abs(before / m - after / n)
    share_of_all = (before + after) / (m + n)
    if not 0 < share_of_all < 1:
        return difference, 1.0
    error = share_of_all * (1 - share_of_all) * (1 / m + 1 / n)
    corrected = max(0.0, difference - min(difference, (1 / m + 1 / n) / 2))
    return difference, chi_square_tail(corrected**2 / error, 1)


def design_effect(parts: tuple[Part, ...], groups: Counts) -> float:
    """The number of rows of a window that count as one independent row, at least 1: the median over the parts.

    Of each part the bins are compared between the slices; where rows are independent, the chi-square is about as large
    as its degrees of freedom.
    """
    groups = groups[groups.any(axis=1)]
    if len(groups) < 2:
        return 1.0
    results = []
    for part in parts:
        own = groups[:, part.start : part.start + part.size - 1].astype(float)  # a row outside is in a bin too
        own = own[:, own.any(axis=0)][own.any(axis=1)]
        degrees = (own.shape[0] - 1) * (own.shape[1] - 1)
        if degrees > 0:
            expected = own.sum(axis=1, keepdims=True) * own.sum(axis=0) / own.sum()
            results.append(float(((own - expected) ** 2 / expected).sum()) / degrees)
    return max(1.0, float(np.median(results))) if results else 1.0


def smallest_shift(alpha: float, comparisons: int, reference: float, window: float) -> float:
    """The smallest `ks` that a window of so many effective rows can show (Dvoretzky, Kiefer and Wolfowitz)."""
    return math.sqrt(math.log(2 * max(1, comparisons) / alpha) / 2 * (1 / reference + 1 / window))
