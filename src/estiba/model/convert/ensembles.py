"""Convert estimators made of other estimators: voting, stacking, calibration, search, transformed targets."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from estiba.model.convert.columns import Columns, slots
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.functions import FUNCTIONS
from estiba.model.convert.graph import DOUBLE, INT64, Graph
from estiba.model.estimators.estimator_facts import has_classes


def pipeline(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """A Pipeline that ends in an estimator."""
    for _, step in model.steps[:-1]:
        columns = c.apply(step, columns)
    return c.emit(model.steps[-1][1], columns, want)


def search(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """GridSearchCV and its like: the best estimator."""
    return c.emit(model.best_estimator_, columns, want)


def threshold(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """FixedThresholdClassifier and TunedThresholdClassifierCV: the probabilities; the threshold is a note."""
    chosen = getattr(model, "best_threshold_", getattr(model, "threshold", "auto"))
    c.note(f"{type(model).__name__} decides at the threshold {chosen}: set outputs.threshold to it")
    return c.emit(model.estimator_, columns, want)


def frozen(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """FrozenEstimator."""
    return c.emit(model.estimator, columns, want)


def transformed_target(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """TransformedTargetRegressor with a NumPy function or a linear scaler as the way back."""
    raw, g = c.emit(model.regressor_, columns, "value"), c.graph
    back = model.transformer_
    if type(back).__name__ == "FunctionTransformer":
        function = back.inverse_func
        if function is None:
            return raw
        if isinstance(function, np.ufunc) and function.__name__ in FUNCTIONS:
            return FUNCTIONS[function.__name__](g, raw)
        raise unsupported(
            model, f"undoes its transform with {getattr(function, '__name__', function)}, which has no rule"
        )
    if type(back).__name__ == "StandardScaler":
        raw = g.op("Mul", raw, g.const(back.scale_[None, :])) if back.with_std else raw
        return g.op("Add", raw, g.const(back.mean_[None, :])) if back.with_mean else raw
    if type(back).__name__ == "MinMaxScaler":
        return g.op("Div", g.op("Sub", raw, g.const(back.min_[None, :])), g.const(back.scale_[None, :]))
    raise unsupported(model, f"undoes its transform with {type(back).__name__}, which has no rule")


def voting_classifier(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """VotingClassifier: soft as the weighted mean of probabilities, hard as counted votes."""
    g, classes = c.graph, len(model.classes_)
    weights = model._weights_not_none
    if model.voting == "soft":
        return _mean(g, [c.emit(e, columns, "proba") for e in model.estimators_], weights)
    votes = [g.one_hot(c.label(e, columns), classes) for e in model.estimators_]
    if weights is not None:
        votes = [g.op("Mul", v, g.const(float(w))) for v, w in zip(votes, weights, strict=True)]
    count = _sum(g, votes)
    if classes > 2:
        return count
    return g.op("Sub", g.columns(count, [1], 2), g.columns(count, [0], 2))


def voting_regressor(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """VotingRegressor: the weighted mean."""
    return _mean(c.graph, [c.emit(e, columns, "value") for e in model.estimators_], model._weights_not_none)


def _sum(g: Graph, tensors: list[str]) -> str:
    return tensors[0] if len(tensors) == 1 else g.op("Sum", *tensors)


def _mean(g: Graph, tensors: list[str], weights: Any) -> str:
    if weights is None:
        return g.op("Div", _sum(g, tensors), g.const(float(len(tensors))))
    weighted = [g.op("Mul", t, g.const(float(w))) for t, w in zip(tensors, weights, strict=True)]
    return g.op("Div", _sum(g, weighted), g.const(float(np.sum(weights))))


def stacking(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """StackingClassifier and -Regressor: the members' answers, and the input if it passes through."""
    parts = []
    for estimator, method in zip(model.estimators_, model.stack_method_, strict=True):
        parts += _stacked(c, estimator, columns, method)
    if model.passthrough:
        parts.append(c.matrix(columns))
    width = model.final_estimator_.n_features_in_
    joined = c.graph.concat(parts)
    sample = model.transform(columns.sample)
    if np.shape(sample)[1] != width:
        raise unsupported(model, "joins its members' answers in a way that no rule covers")
    return c.emit(model.final_estimator_, columns.same(slots(joined, width), np.asarray(sample)), want)


def _stacked(c: Context, estimator: Any, columns: Columns, method: str) -> list[str]:
    g = c.graph
    if method == "predict_proba":
        probabilities = c.emit(estimator, columns, "proba")
        # With two classes the first column says nothing that the second does not.
        return [g.columns(probabilities, [1], 2) if len(estimator.classes_) == 2 else probabilities]
    if method == "decision_function":
        return [c.emit(estimator, columns, "decision")]
    if not has_classes(estimator):
        return [c.emit(estimator, columns, "value")]
    labels = g.const(np.asarray(estimator.classes_, np.float64))
    return [g.op("Gather", labels, c.label(estimator, columns), axis=0)]


def calibrated(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """CalibratedClassifierCV: the mean over its calibrated members."""
    parts = [_calibrated_member(c, m, columns) for m in model.calibrated_classifiers_]
    return c.graph.op("Div", _sum(c.graph, parts), c.graph.const(float(len(parts))))


def _calibrated_member(c: Context, member: Any, columns: Columns) -> str:
    g, classes = c.graph, len(member.classes)
    if member.method not in ("sigmoid", "isotonic") or len(member.estimator.classes_) != classes:
        raise unsupported(member, f"calibrated by {member.method} has no rule")
    if hasattr(member.estimator, "decision_function"):
        scores = c.emit(member.estimator, columns, "decision")
    else:
        scores = c.emit(member.estimator, columns, "proba")
        scores = g.columns(scores, [1], 2) if classes == 2 else scores
    width = 1 if classes == 2 else classes
    shares = [
        _calibrate(g, calibrator, g.columns(scores, [i], width)) for i, calibrator in enumerate(member.calibrators)
    ]
    if classes == 2:
        return g.pair(shares[0])
    joined = g.concat(shares)
    total = g.total(joined)
    nothing = g.op("Equal", total, g.const(0.0))
    safe = g.op("Where", nothing, g.const(1.0), total)
    return g.op("Where", nothing, g.const(1.0 / classes), g.op("Div", joined, safe))


def _calibrate(g: Graph, calibrator: Any, scores: str) -> str:
    """Platt's sigmoid (1999), or a piecewise linear isotonic curve."""
    if hasattr(calibrator, "a_"):
        line = g.op("Add", g.op("Mul", g.const(float(calibrator.a_)), scores), g.const(float(calibrator.b_)))
        return g.expit(g.op("Neg", line))
    return isotonic(g, calibrator, scores)


def isotonic(g: Graph, model: Any, x: str) -> str:
    """IsotonicRegression: linear between its points, as scipy's interp1d computes it."""
    points = np.asarray(model.X_thresholds_, np.float64)
    values = np.asarray(model.y_thresholds_, np.float64)
    if len(points) == 1:
        return g.op("Add", g.op("Mul", x, g.const(0.0)), g.const(values[0]))
    if model.out_of_bounds == "clip":
        x = g.op("Clip", x, g.const(points[0]), g.const(points[-1]))
    above = g.op("Less", g.const(points[None, 1:-1]), x)
    index = (
        g.cast(g.total(g.cast(above, DOUBLE)), INT64)
        if len(points) > 2
        else g.cast(g.op("Mul", x, g.const(0.0)), INT64)
    )
    left = g.op("Gather", g.const(points[:-1]), index, axis=0)
    start = g.op("Gather", g.const(values[:-1]), index, axis=0)
    slope = g.op("Gather", g.const(np.diff(values) / np.diff(points)), index, axis=0)
    return g.op("Add", g.op("Mul", slope, g.op("Sub", x, left)), start)


def multi_output(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """MultiOutputRegressor: one estimator per target."""
    if want != "value":
        raise unsupported(model, "answers several classifications at once")
    return c.graph.concat([c.emit(e, columns, "value") for e in model.estimators_])


def one_vs_rest(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """OneVsRestClassifier on classes, not on several labels at once."""
    g, binary = c.graph, len(model.estimators_) == 1
    if model.multilabel_:
        raise unsupported(model, "answers several labels at once")
    if want == "decision":
        return g.concat([c.emit(e, columns, "decision") for e in model.estimators_])
    if want == "label":
        scores = [_confidence(c, e, columns) for e in model.estimators_]
        return g.argmax(g.concat(scores)) if _takes_first(model) else _last_largest(g, scores)
    columns_of = [g.columns(c.emit(e, columns, "proba"), [1], 2) for e in model.estimators_]
    if binary:
        return g.pair(columns_of[0])
    joined = g.concat(columns_of)
    total = g.total(joined)  # where all are 0, scikit-learn leaves them so
    return g.op("Div", joined, g.op("Where", g.op("Equal", total, g.const(0.0)), g.const(1.0), total))


def _confidence(c: Context, estimator: Any, columns: Columns) -> str:
    if hasattr(estimator, "decision_function"):
        return c.emit(estimator, columns, "decision")
    return c.graph.columns(c.emit(estimator, columns, "proba"), [1], 2)


def _takes_first(model: Any) -> bool:
    """Tell whether `predict` takes the first of equal scores: scikit-learn's versions differ, so it is asked."""
    from sklearn.dummy import DummyClassifier

    tied = copy(model)
    tied.estimators_ = [DummyClassifier(strategy="prior").fit([[0.0], [0.0]], [0, 1])] * len(model.estimators_)
    return bool(tied.predict(np.zeros((1, 1)))[0] == model.classes_[0])


def _last_largest(g: Graph, scores: list[str]) -> str:
    """Position of the last largest score of each row, int64 (n, 1)."""
    from_the_end = g.cast(g.argmax(g.concat(scores[::-1])), DOUBLE)
    return g.cast(g.op("Sub", g.const(len(scores) - 1.0), from_the_end), INT64)
