"""Convert KNNImputer, which fills a missing number with the mean of the nearest training rows that have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.columns import Column, Columns, slots
from estiba.model.convert.context import Context, unsupported
from estiba.model.convert.graph import BOOL, DOUBLE, Graph
from estiba.model.convert.kernels import MAX_POINTS
from estiba.model.convert.nearest_ties import MAX_TIED_SHARE, TIES_ASKED, tied_share

Numbers = npt.NDArray[np.float64]


def knn_imputer(c: Context, imputer: Any, columns: Columns, output: Any) -> Columns:
    """KNNImputer with equal weights. Only rows with a missing number look for neighbours."""
    points = np.asarray(imputer._fit_X, np.float64)
    _refuse(imputer, points)
    _tell_ties(c, imputer, points)
    g, x = c.graph, c.matrix(columns)
    gone = g.op("IsNaN", x)
    some = g.op("Greater", g.total(g.cast(gone, DOUBLE)), g.const(0.0))
    rows = _places(g, some)
    asked = g.op("Gather", x, rows, axis=0)
    distances = _distances(g, asked, points)
    valid = [int(i) for i in np.flatnonzero(imputer._valid_mask)]
    filled = [_filled(g, imputer.n_neighbors, asked, distances, points, i) for i in valid]
    kept = g.columns(x, valid, len(points[0]))
    whole = g.op("ScatterND", kept, g.op("Unsqueeze", rows, g.const([1], np.int64)), g.concat(filled))
    imputed: list[Column] = list(slots(whole, len(valid)))
    if imputer.add_indicator:
        flagged = [int(i) for i in imputer.indicator_.features_]
        imputed += slots(g.cast(g.columns(gone, flagged, len(points[0])), DOUBLE), len(flagged))
    return columns.same(tuple(imputed), output)


def _refuse(imputer: Any, points: Numbers) -> None:
    if imputer.missing_values == imputer.missing_values:
        raise unsupported(imputer, "for a missing value other than NaN has no rule")
    if imputer.weights != "uniform":
        raise unsupported(
            imputer,
            "weighs neighbours by distances, which near 0 are rounding errors: scikit-learn itself fills a row by up "
            "to 1e-5 of a column's spread differently alone and among others; 'uniform' converts",
        )
    if imputer.metric != "nan_euclidean" or (imputer.keep_empty_features and not imputer._valid_mask.all()):
        raise unsupported(imputer, "with a metric of its own or keep_empty_features has no rule")
    if len(points) > MAX_POINTS:
        raise unsupported(imputer, f"looks through {len(points)} training rows, more than a graph should hold")


def _tell_ties(c: Context, imputer: Any, points: Numbers) -> None:
    """Refuse frequent ties in columns that training had missing, and note all others.

    Of training rows at equal distances scikit-learn takes any (`nearest_ties.py`).
    """
    shares = {int(column): _tied(imputer, points, int(column)) for column in np.flatnonzero(imputer._valid_mask)}
    missing = {column: share for column, share in shares.items() if np.isnan(points[:, column]).any()}
    column = max(missing, key=lambda name: missing[name], default=-1)
    if missing.get(column, 0.0) > MAX_TIED_SHARE:
        raise unsupported(
            imputer,
            f"finds training rows at equal distances for its column {column}, of which scikit-learn takes any; it "
            "converts where few rows are equally far, so without columns of whole numbers",
        )
    if any(shares.values()):
        c.note("KNNImputer: of training rows at equal distances the first are taken; scikit-learn takes any of them")


def _tied(imputer: Any, points: Numbers, column: int) -> float:
    """The share of rows for which donors of different values are at the distance of the last neighbour and beyond."""
    from sklearn.metrics.pairwise import nan_euclidean_distances

    known = ~np.isnan(points[:, column])
    donors = points[known]
    asked = np.arange(0, len(points), max(1, len(points) // TIES_ASKED))
    own = np.where(known[asked], np.cumsum(known)[asked] - 1, -1)
    hidden = points[asked]
    hidden[:, column] = np.nan
    distances = np.nan_to_num(nan_euclidean_distances(hidden, donors), nan=np.inf)
    slack = 1e-7 * float(np.nanstd(points))  # a matrix product leaves as much of a distance of 0
    return tied_share(distances, imputer.n_neighbors, donors[:, column : column + 1], slack, own)


def _places(g: Graph, truths: str) -> str:
    """Numbers of the rows for which a tensor (n, 1) is true, int64 of shape (rows,)."""
    return g.op("Squeeze", g.op("NonZero", g.op("Squeeze", truths, g.const([1], np.int64))), g.const([0], np.int64))


def _distances(g: Graph, x: str, points: Numbers) -> str:
    """Squared distances to all training rows by what both rows have, (n, points); infinite where that is nothing."""
    gone = np.isnan(points)
    known, there = np.where(gone, 0.0, points), (~gone).astype(np.float64)
    missing = g.op("IsNaN", x)
    zeroed = g.op("Where", missing, g.const(0.0), x)
    present = g.op("Sub", g.const(1.0), g.cast(missing, DOUBLE))
    left = g.concat([g.op("Mul", zeroed, zeroed), zeroed, present])
    product = g.op("MatMul", left, g.const(np.vstack([there.T, -2.0 * known.T, (known**2).T])))
    count = g.op("MatMul", present, g.const(there.T))
    mean = g.op("Div", g.op("Max", product, g.const(0.0)), count)
    return g.op("Where", g.op("Equal", count, g.const(0.0)), g.const(np.inf), mean)


def _filled(g: Graph, neighbours: int, x: str, distances: str, points: Numbers, column: int) -> str:
    """A column of the rows, (rows, 1), with the mean of the nearest donors where it is missing."""
    from onnx import helper

    own = g.columns(x, [column], points.shape[1])
    donors = np.flatnonzero(~np.isnan(points[:, column]))
    values = points[donors, column]
    receivers = _places(g, g.op("IsNaN", own))
    away = g.columns(g.op("Gather", distances, receivers, axis=0), [int(i) for i in donors], len(points))
    near, index = g.name(), g.name()
    count = g.const([min(neighbours, len(donors))], np.int64)
    g.add(helper.make_node("TopK", [away, count], [near, index], axis=1, largest=0, sorted=1))
    weights = g.cast(g.op("Not", g.cast(g.op("IsInf", near), BOOL)), DOUBLE)
    total = g.total(weights)
    mean = g.op("Div", g.total(g.op("Mul", g.op("Gather", g.const(values), index, axis=0), weights)), total)
    alone = g.op("Equal", total, g.const(0.0))
    guess = g.op("Where", alone, g.const(float(np.ma.masked_invalid(points[:, column]).mean())), mean)
    return g.op("ScatterND", own, g.op("Unsqueeze", receivers, g.const([1], np.int64)), guess)
