"""Convert models that are matrix products, in float64: linear ones, naive Bayes, discriminant analysis, perceptrons."""

from __future__ import annotations

from typing import Any

import numpy as np

from estiba.model.convert.columns import Cell, Columns, slots
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.graph import DOUBLE, Graph
from estiba.model.convert.sparse import above, weighted


def product(c: Context, columns: Columns, weights: Any, intercept: Any) -> str:
    """columns @ weights + intercept."""
    return _shifted(c.graph, weighted(c.graph, columns, weights), intercept)


def _shifted(g: Graph, result: str, intercept: Any) -> str:
    intercept = np.atleast_1d(np.asarray(intercept, np.float64))
    return g.op("Add", result, g.const(intercept[None, :])) if intercept.any() else result


def _decision(c: Context, model: Any, columns: Columns) -> str:
    coefficients = np.atleast_2d(np.asarray(model.coef_, np.float64))
    return product(c, columns, coefficients.T, model.intercept_)


def linear_regressor(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """All regressors that answer X @ coef_ + intercept_."""
    return _decision(c, model, columns)


def exponential_regressor(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """Poisson, Gamma and Tweedie regression; the link of a Tweedie model may be the identity."""
    raw = _decision(c, model, columns)
    link = type(model._base_loss.link).__name__
    if link == "IdentityLink":
        return raw
    if link == "LogLink":
        return c.graph.op("Exp", raw)
    raise unsupported(model, f"has the link {link}, which has no rule")


def linear_classifier(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """Classifiers that only have scores: LinearSVC, RidgeClassifier, Perceptron and the like."""
    if want != "decision":
        raise unsupported(model, "has no probabilities")
    return _decision(c, model, columns)


def logistic_regression(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """LogisticRegression: binary, multinomial and one-vs-rest."""
    raw, g = _decision(c, model, columns), c.graph
    if want == "decision":
        return raw
    one_vs_rest = getattr(model, "multi_class", None) == "ovr" or model.solver == "liblinear"
    if len(model.classes_) == 2:
        if getattr(model, "multi_class", None) == "multinomial":
            return g.softmax(g.concat([g.op("Neg", raw), raw]))
        return g.pair(g.expit(raw))
    return _share(g, g.expit(raw)) if one_vs_rest else g.softmax(raw)


def _share(g: Graph, tensor: str) -> str:
    return g.op("Div", tensor, g.total(tensor))


def sgd_classifier(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """SGDClassifier: probabilities for log_loss and modified_huber (Zadrozny and Elkan, 2002), scores for all."""
    raw, g = _decision(c, model, columns), c.graph
    if want == "decision":
        return raw
    binary = len(model.classes_) == 2
    if model.loss == "log_loss":
        share = g.expit(raw)
        return g.pair(share) if binary else _share(g, share)
    if model.loss != "modified_huber":
        raise unsupported(model, f"with the loss {model.loss} has no probabilities")
    clipped = g.op("Clip", raw, g.const(-1.0), g.const(1.0))
    share = g.op("Div", g.op("Add", clipped, g.const(1.0)), g.const(2.0))
    if binary:
        return g.pair(share)
    nothing = g.op("Equal", g.total(share), g.const(0.0))
    return _share(g, g.op("Where", nothing, g.const(1.0), share))


def discriminant(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """LinearDiscriminantAnalysis."""
    raw, g = _decision(c, model, columns), c.graph
    if want == "decision":
        return raw
    return g.pair(g.expit(raw)) if len(model.classes_) == 2 else g.softmax(raw)


def gaussian_nb(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """GaussianNB: log prior and log density per class, normalised."""
    g, x = c.graph, c.matrix(columns)
    variance, mean = np.asarray(model.var_, np.float64), np.asarray(model.theta_, np.float64)
    start = np.log(model.class_prior_) - 0.5 * np.sum(np.log(2.0 * np.pi * variance), axis=1)
    rows = g.op("Unsqueeze", x, g.const([1], np.int64))
    distance = g.op("Sub", rows, g.const(mean[None]))
    scaled = g.op("Div", g.op("Mul", distance, distance), g.const(variance[None]))
    total = g.op("ReduceSum", scaled, g.const([2], np.int64), keepdims=0)
    joint = g.op("Sub", g.const(start[None]), g.op("Mul", g.const(0.5), total))
    return _joint(g, joint, want)


def _joint(g: Graph, joint: str, want: Want) -> str:
    """Joint log likelihoods to probabilities: exp(joint - log of the sum of exp(joint))."""
    if want == "decision":
        return joint
    top = g.op("ReduceMax", joint, g.const([1], np.int64))
    total = g.total(g.op("Exp", g.op("Sub", joint, top)))
    return g.op("Exp", g.op("Sub", joint, g.op("Add", g.op("Log", total), top)))


def discrete_nb(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """MultinomialNB, ComplementNB and BernoulliNB."""
    g = c.graph
    weights = np.asarray(model.feature_log_prob_, np.float64)
    prior = np.asarray(model.class_log_prior_, np.float64)
    name = type(model).__name__
    if name == "BernoulliNB":
        if model.binarize is not None:
            columns = _binarised(c, columns, float(model.binarize))
        absent = np.log(1 - np.exp(weights))
        weights, prior = weights - absent, prior + absent.sum(axis=1)
    elif name == "ComplementNB" and len(model.classes_) > 1:
        prior = np.zeros_like(prior)
    return _joint(g, product(c, columns, weights.T, prior), want)


def _binarised(c: Context, columns: Columns, limit: float) -> Columns:
    """1 where a column is above the limit; sparse columns stay sparse where zero is not."""
    if columns.sparse and limit >= 0 and all(isinstance(column, Cell) for column in columns.columns):
        return above(columns, limit, None)
    x = c.graph.cast(c.graph.op("Greater", c.matrix(columns), c.graph.const(limit)), DOUBLE)
    return columns.same(slots(x, len(columns)), None)


_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}


def perceptron(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """MLPClassifier and MLPRegressor."""
    g, x = c.graph, ""
    for i, (weights, intercept) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
        result = g.op("MatMul", x, g.const(weights)) if x else weighted(g, columns, weights)
        x = _shifted(g, result, intercept)
        if i < len(model.coefs_) - 1:
            x = _activate(g, x, model.activation)
    if model.out_activation_ == "logistic" and want == "proba":
        if len(model.classes_) > 2:
            raise unsupported(model, "answers several labels at once")
        return g.pair(g.expit(x))
    if model.out_activation_ == "softmax":
        return g.softmax(x)
    return _activate(g, x, model.out_activation_)


def _activate(g: Graph, x: str, name: str) -> str:
    if name == "logistic":
        return g.expit(x)
    return x if name == "identity" else g.op(_ACTIVATIONS[name], x) if name in _ACTIVATIONS else g.op("Exp", x)


def dummy(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """DummyRegressor and the deterministic DummyClassifiers."""
    if want == "value":
        return c.graph.fill(np.asarray(model.constant_, np.float64).ravel())
    if getattr(model, "strategy", None) not in ("most_frequent", "prior", "constant"):
        raise unsupported(model, "answers at random")
    return c.graph.fill(model.predict_proba(np.zeros((1, 1)))[0])
