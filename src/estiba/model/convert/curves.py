"""Convert transformers that bend each column along a curve of its own: powers, quantiles, splines, missing flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.context import unsupported
from estiba.model.convert.functions import expm1, log1p, normal_quantile
from estiba.model.convert.graph import INT64, Graph
from estiba.model.convert.trees import Tree, scalar_sum

Numbers = npt.NDArray[np.float64]


def power(g: Graph, t: Any, x: str) -> str:
    """PowerTransformer: Yeo and Johnson (2000) or Box and Cox (1964), then the scaler."""
    width = len(t.lambdas_)
    bend = _box_cox if t.method == "box-cox" else _yeo_johnson
    x = g.concat([bend(g, g.columns(x, [i], width), float(v)) for i, v in enumerate(t.lambdas_)])
    if not t.standardize:
        return x
    centred = g.op("Sub", x, g.const(t._scaler.mean_[None, :]))
    return g.op("Div", centred, g.const(t._scaler.scale_[None, :]))


def _box_cox(g: Graph, x: str, power_: float) -> str:
    """A number that is not positive, which scikit-learn refuses, becomes NaN."""
    logarithm = g.op("Log", g.op("Where", g.op("Greater", x, g.const(0.0)), x, g.const(np.nan)))
    if abs(power_) < 1e-19:
        return logarithm
    return g.op("Div", expm1(g, g.op("Mul", g.const(power_), logarithm)), g.const(power_))


def _yeo_johnson(g: Graph, x: str, power_: float) -> str:
    zero, tiny = g.const(0.0), float(np.finfo(np.float64).eps)
    above = log1p(g, g.op("Where", g.op("Less", x, zero), zero, x))
    below = log1p(g, g.op("Where", g.op("Less", x, zero), g.op("Neg", x), zero))
    if abs(power_) >= tiny:
        above = g.op("Div", expm1(g, g.op("Mul", g.const(power_), above)), g.const(power_))
    if abs(power_ - 2) > tiny:
        below = g.op("Div", expm1(g, g.op("Mul", g.const(2 - power_), below)), g.const(2 - power_))
    return g.op("Where", g.op("Less", x, zero), g.op("Neg", below), above)


def _position(g: Graph, x: str, edges: Sequence[Numbers], offsets: npt.ArrayLike = 0.0) -> str:
    """Count the edges of its column that are not above each number, int64 (n, columns), by a search tree each.

    A missing number gets the last position. The offsets, one for each column, are added.
    """
    trees = [_search_tree(np.nextafter(e, -np.inf), column) for column, e in enumerate(edges)]
    position = scalar_sum(g, x, trees, targets=len(edges))
    return g.cast(g.op("Add", position, g.const(np.reshape(offsets, (1, -1)))), INT64)


def _search_tree(limits: Numbers, column: int) -> Tree:
    """A balanced tree whose leaf is how many limits are below a number."""
    count = len(limits)
    nodes: list[tuple[float, int, int, float]] = []

    def grow(start: int, end: int) -> int:
        place = len(nodes)
        nodes.append((0.0, -1, -1, float(start)))
        if start < end:
            middle = (start + end) // 2
            left, right = grow(start, middle), grow(middle + 1, end)
            nodes[place] = (float(limits[middle]), left, right, 0.0)
        return place

    grow(0, count)
    threshold, left, right, value = (np.asarray(part) for part in zip(*nodes, strict=True))
    feature, missing = np.full(len(nodes), column, np.int64), np.zeros(len(nodes), bool)
    return Tree(feature, threshold.astype(np.float64), left, right, missing, value.astype(np.float64), column)


@dataclass(frozen=True)
class _Lines:
    """Pieces of a line by position: start + slope * (x - left)."""

    left: Numbers
    start: Numbers
    slope: Numbers


def _pieces(points: Numbers, values: Numbers) -> tuple[Numbers, _Lines]:
    """NumPy's interp: the distinct points, and by how many are not above a number its line; flat beyond the ends.

    Of equal points the last counts.
    """
    last = np.append(points[1:] != points[:-1], True)
    at, level = points[last], values[last]
    following = np.append(np.flatnonzero(last)[:-1] + 1, 0)[:-1]
    slope = (values[following] - level[:-1]) / (points[following] - at[:-1])
    return at, _Lines(np.append(at[0], at), np.append(values[0], level), np.concatenate([[0.0], slope, [0.0]]))


def quantile(g: Graph, t: Any, x: str) -> str:
    """QuantileTransformer: the mean of two interpolations, upwards and downwards, and the normal quantile of that."""
    tables, references = np.asarray(t.quantiles_, np.float64).T, np.asarray(t.references_, np.float64)
    up = _interpolated(g, x, [_pieces(table, references) for table in tables])
    mirrored = [_pieces(-table[::-1], -references[::-1]) for table in tables]
    down = _interpolated(g, g.op("Neg", x), mirrored)
    share = g.op("Mul", g.const(0.5), g.op("Sub", up, down))
    first, last, zero, whole = (g.const(v) for v in (tables[None, :, 0], tables[None, :, -1], 0.0, 1.0))
    if t.output_distribution == "uniform":
        share = g.op("Where", g.op("Equal", x, last), whole, share)
        return g.op("Where", g.op("Equal", x, first), zero, share)
    near = g.const(_NEAR)
    share = g.op("Where", g.op("Greater", g.op("Add", x, near), last), whole, share)
    return _normal(g, g.op("Where", g.op("Less", g.op("Sub", x, near), first), zero, share))


_NEAR = 1e-7
"""A number this near to the outer quantiles is taken for them, before a normal distribution."""


def _normal(g: Graph, share: str) -> str:
    """The normal quantile of a share, held within those that scikit-learn can undo, +-5.2."""
    from scipy.stats import norm

    low = _NEAR - float(np.spacing(1))
    least, most = float(norm.ppf(low)), float(norm.ppf(1 - low))
    under = g.op("LessOrEqual", share, g.const(low))
    over = g.op("GreaterOrEqual", share, g.const(1 - low))
    inner = normal_quantile(g, g.op("Where", g.op("Or", under, over), g.const(0.5), share))
    return g.op("Where", under, g.const(least), g.op("Where", over, g.const(most), inner))


def _interpolated(g: Graph, x: str, pieces: Sequence[tuple[Numbers, _Lines]]) -> str:
    offsets = np.cumsum([0, *(len(lines.left) for _, lines in pieces)])[:-1]
    position = _position(g, x, [edges for edges, _ in pieces], offsets)
    left, start, slope = (
        g.op("Gather", g.const(np.concatenate([getattr(lines, name) for _, lines in pieces])), position, axis=0)
        for name in ("left", "start", "slope")
    )
    return g.op("Add", g.op("Mul", slope, g.op("Sub", x, left)), start)


def spline(g: Graph, t: Any, x: str) -> str:
    """SplineTransformer: the polynomials of each interval between two knots, in powers of the distance to the left."""
    if t.extrapolation == "periodic":
        raise unsupported(t, "with extrapolation='periodic' has no rule; the others convert")
    if t.extrapolation == "linear" and t.degree < 2 and len(t.bsplines_) > 1:
        raise unsupported(t, "with a linear extrapolation of degree 0 or 1 has no rule; 'constant' converts")
    width = len(t.bsplines_)
    parts = [_spline_of(g, t, b, g.columns(x, [i], width)) for i, b in enumerate(t.bsplines_)]
    return g.concat(parts)


def _spline_of(g: Graph, t: Any, spline_: Any, x: str) -> str:
    """One column's basis functions; zeros for a missing number."""
    degree, knots = int(spline_.k), np.asarray(spline_.t, np.float64)
    count = spline_.c.shape[1]
    low, high = float(knots[degree]), float(knots[-degree - 1])
    inside = g.op("Clip", x, g.const(low), g.const(high)) if t.extrapolation == "constant" else x
    basis = _polynomials(g, inside, knots[degree : len(knots) - degree], _coefficients(spline_))
    if t.extrapolation == "linear":
        basis = _linear_ends(g, x, spline_, basis)
    basis = g.op("Where", g.op("IsNaN", x), g.const(0.0), basis)
    return basis if t.include_bias else g.columns(basis, list(range(count - 1)), count)


def _coefficients(spline_: Any) -> list[Numbers]:
    """By power, from 0: (intervals, basis functions), of the distance to the interval's left knot."""
    degree, knots = int(spline_.k), np.asarray(spline_.t, np.float64)
    starts = knots[degree : len(knots) - degree - 1]
    found, factorial = [], 1.0
    for power_ in range(degree + 1):
        factorial *= max(power_, 1)
        found.append(np.asarray(spline_(starts, nu=power_), np.float64) / factorial)
    return found


def _polynomials(g: Graph, x: str, knots: Numbers, coefficients: Sequence[Numbers]) -> str:
    """The polynomials of the interval that holds x; of knots at one place, as quantiles may be, the last counts."""
    flat = g.op("Squeeze", _position(g, x, [knots[1:-1]]), g.const([1], np.int64))
    left = g.op("Gather", g.const(knots[:-1, None]), flat, axis=0)
    distance = g.op("Sub", x, left)
    basis = ""
    for table in reversed(coefficients):
        row = g.op("Gather", g.const(table), flat, axis=0)
        basis = g.op("Add", g.op("Mul", basis, distance), row) if basis else row
    return basis


def _linear_ends(g: Graph, x: str, spline_: Any, basis: str) -> str:
    """Beyond the outer knots, the tangents there of the basis functions that are not zero."""
    degree, knots, count = int(spline_.k), np.asarray(spline_.t, np.float64), spline_.c.shape[1]
    low, high = float(knots[degree]), float(knots[-degree - 1])
    reach = degree + 1 if degree <= 1 else degree
    for end, kept, beyond in (
        (low, np.arange(count) < reach, "Less"),
        (high, np.arange(count) >= count - reach, "Greater"),
    ):
        value, slope = (np.where(kept, spline_(end, nu=n), 0.0)[None, :] for n in (0, 1))
        line = g.op("Add", g.const(value), g.op("Mul", g.op("Sub", x, g.const(end)), g.const(slope)))
        basis = g.op("Where", g.op(beyond, x, g.const(end)), line, basis)
    return basis
