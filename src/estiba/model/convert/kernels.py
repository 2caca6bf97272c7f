"""Convert support vector machines and nearest neighbours, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.convert.columns import Columns
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.graph import DOUBLE, Graph
from estiba.model.convert.nearest_ties import MAX_TIED_SHARE, TIES_ASKED, tied_share
from estiba.model.convert.pairwise import pair_votes

MAX_POINTS = 20_000
MAX_POINT_NUMBERS = 10_000_000
"""Nearest neighbours of more training rows, or numbers in them, are slow in any graph, and large."""


def _kernel(g: Graph, model: Any, x: str) -> str:
    """The kernel between each row and each support vector, (n, vectors)."""
    vectors = np.asarray(model.support_vectors_, np.float64)
    if not isinstance(model.kernel, str) or model.kernel == "precomputed" or model._sparse:
        raise unsupported(model, f"with the kernel {model.kernel} has no rule")
    if model.kernel == "rbf":
        return g.op("Exp", g.op("Mul", g.const(-float(model._gamma)), _squared_distance(g, x, vectors)))
    inner = g.op("MatMul", x, g.const(vectors.T))
    if model.kernel == "linear":
        return inner
    inner = g.op("Add", g.op("Mul", g.const(float(model._gamma)), inner), g.const(float(model.coef0)))
    return g.op("Tanh", inner) if model.kernel == "sigmoid" else g.op("Pow", inner, g.const(float(model.degree)))


def _squared_distance(g: Graph, x: str, points: Any) -> str:
    """Feature after feature, as libsvm and the trees of neighbours add it: no cancellation, and ties stay ties."""
    total = ""
    for i in range(points.shape[1]):
        difference = g.op("Sub", g.columns(x, [i], points.shape[1]), g.const(points[None, :, i]))
        square = g.op("Mul", difference, difference)
        total = g.op("Add", total, square) if total else square
    return total


def nearest_centre(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """KMeans and others that say the nearest centre: the position of the first smallest distance."""
    centres = np.asarray(model.cluster_centers_)
    if want != "label":
        raise unsupported(model, "has no scores")
    if centres.dtype != np.float64:
        raise unsupported(model, "was fitted on single precision, for which there is no rule")
    if len(centres) < 2 or not getattr(model, "cluster_all", True):
        raise unsupported(model, "leaves rows without a cluster, for which there is no rule")
    g = c.graph
    product = g.op("MatMul", c.matrix(columns), g.const(2 * centres.T))
    # The row's own square is the same for all centres.
    return g.argmax(g.op("Sub", product, g.const((centres**2).sum(axis=1)[None, :])))


def svr(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """SVR, NuSVR and OneClassSVM: one weighted sum of kernels."""
    g = c.graph
    kernel = _kernel(g, model, c.matrix(columns))
    return g.op("Add", g.op("MatMul", kernel, g.const(model._dual_coef_.T)), g.const(model._intercept_[None, :]))


def svc(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """SVC and NuSVC: pairwise scores and their votes."""
    g, classes = c.graph, len(model.classes_)
    if want == "proba":
        raise unsupported(model, "estimates probabilities by an iteration that stops early")
    pairs = _pairs(g, model, _kernel(g, model, c.matrix(columns)))
    if classes == 2:
        return g.op("Neg", pairs)
    if model.decision_function_shape != "ovr":
        raise unsupported(model, "with decision_function_shape='ovo' has one score per pair of classes")
    if want == "label" and not model.break_ties:
        return _most_voted(g, pairs, classes)
    scores = pair_votes(g, g.cast(g.op("Less", pairs, g.const(0.0)), DOUBLE), g.op("Neg", pairs), classes)
    return g.argmax(scores) if want == "label" else scores


def _pairs(g: Graph, model: Any, kernel: str) -> str:
    """libsvm's decision values, positive for the first class of each pair, (n, pairs)."""
    starts = np.cumsum([0, *model._n_support])
    classes = len(model.classes_)
    weights = []
    for i in range(classes):
        for j in range(i + 1, classes):
            column = np.zeros(len(model.support_vectors_))
            first, second = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
            column[first] = model._dual_coef_[j - 1, first]
            column[second] = model._dual_coef_[i, second]
            weights.append(column)
    return g.op("Add", g.op("MatMul", kernel, g.const(np.stack(weights, axis=1))), g.const(model._intercept_[None, :]))


def _most_voted(g: Graph, pairs: str, classes: int) -> str:
    """The class of libsvm's predict: the first with the most votes, where a score of 0 votes for the second class."""
    indices = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    first, second = np.zeros((len(indices), classes)), np.zeros((len(indices), classes))
    for k, (i, j) in enumerate(indices):
        first[k, i], second[k, j] = 1, 1
    above = g.cast(g.op("Greater", pairs, g.const(0.0)), DOUBLE)
    other = g.op("Sub", g.const(1.0), above)
    return g.argmax(g.op("Add", g.op("MatMul", above, g.const(first)), g.op("MatMul", other, g.const(second))))


def neighbours(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """KNeighborsClassifier and -Regressor with the Euclidean or Manhattan distance, every distance computed."""
    g = c.graph
    fitted = model._fit_X
    if fitted.shape[0] > MAX_POINTS or fitted.shape[0] * fitted.shape[1] > MAX_POINT_NUMBERS:
        size = f"{fitted.shape[0]} training rows of {fitted.shape[1]} numbers"
        raise unsupported(model, f"looks through {size}, more than a graph should hold")
    points = np.asarray(fitted.toarray() if hasattr(fitted, "toarray") else fitted, np.float64)
    metric = (model.effective_metric_, (model.effective_metric_params_ or {}).get("p", 2))
    if metric[0] != "euclidean" and metric != ("minkowski", 2):
        raise unsupported(model, f"with the metric {metric[0]} has no rule")
    _tell_ties(c, model, points)
    distances = _squared_distance(g, c.matrix(columns), points)
    near, index = g.name(), g.name()
    from onnx import helper

    count = g.const([model.n_neighbors], np.int64)
    g.add(helper.make_node("TopK", [distances, count], [near, index], axis=1, largest=0, sorted=1))
    weights = _weights(g, model, near)
    if want == "proba":
        return _votes(g, model, index, weights)
    targets = np.asarray(model._y, np.float64).reshape(len(points), -1)
    answers = g.op("Gather", g.const(targets), index, axis=0)
    return _mean_of_neighbours(g, answers, weights, model.n_neighbors)


def _tell_ties(c: Context, model: Any, points: npt.NDArray[np.float64]) -> None:
    """Refuse a model whose answers often depend on the choice among training rows at equal distances; note few."""
    from sklearn.metrics.pairwise import euclidean_distances

    own = np.arange(0, len(points), max(1, len(points) // TIES_ASKED))
    answers = np.asarray(model._y, np.float64).reshape(len(points), -1)
    distances = euclidean_distances(points[own], points)
    share = tied_share(distances, model.n_neighbors, answers, 1e-7 * float(points.std()), own)
    if share > MAX_TIED_SHARE:
        raise unsupported(
            model,
            f"finds training rows at equal distances for {share:.0%} of its rows, of which scikit-learn takes any; it "
            "converts where few rows are equally far, so with columns that are not all whole numbers or categories",
        )
    if share:
        name = type(model).__name__
        c.note(f"{name}: of training rows at equal distances the first are taken; scikit-learn takes any of them")


def _weights(g: Graph, model: Any, near: str) -> str:
    """Shape (n, k, 1); empty where all count the same."""
    if model.weights == "uniform":
        return ""
    if model.weights != "distance":
        raise unsupported(model, "with weights by a function has no rule")
    distance = g.op("Sqrt", near)
    zero = g.op("Equal", distance, g.const(0.0))
    exact = g.cast(zero, DOUBLE)
    some = g.op("Greater", g.total(exact), g.const(0.0))
    inverse = g.op("Div", g.const(1.0), g.op("Where", zero, g.const(1.0), distance))
    return g.op("Unsqueeze", g.op("Where", some, exact, inverse), g.const([2], np.int64))


def _votes(g: Graph, model: Any, index: str, weights: str) -> str:
    classes = len(model.classes_)
    ballots = np.eye(classes)[np.asarray(model._y).ravel()]
    votes = g.op("Gather", g.const(ballots), index, axis=0)
    votes = g.op("Mul", votes, weights) if weights else votes
    count = g.op("ReduceSum", votes, g.const([1], np.int64), keepdims=0)
    return g.op("Div", count, g.total(count))


def _mean_of_neighbours(g: Graph, answers: str, weights: str, count: int) -> str:
    middle = g.const([1], np.int64)
    if not weights:
        return g.op("Div", g.op("ReduceSum", answers, middle, keepdims=0), g.const(float(count)))
    total = g.op("ReduceSum", g.op("Mul", answers, weights), middle, keepdims=0)
    return g.op("Div", total, g.op("ReduceSum", weights, middle, keepdims=0))
