"""Convert OneVsOneClassifier by the votes of its binary classifiers, one for each pair of classes."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from estiba.model.convert.columns import Columns
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.graph import DOUBLE, INT64, Graph


def one_vs_one(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """Votes of the pairs, and confidences squeezed below half a vote to break ties, as scikit-learn does."""
    if want == "proba" or model.pairwise_indices_ is not None:
        raise unsupported(model, "has no probabilities" if want == "proba" else "on a kernel matrix has no rule")
    second = [c.graph.cast(c.label(e, columns), DOUBLE) for e in model.estimators_]
    confidence = [_confidence(c, e, columns) for e in model.estimators_]
    scores = pair_votes(c.graph, c.graph.concat(second), c.graph.concat(confidence), len(model.classes_))
    if len(model.classes_) > 2:
        return c.graph.argmax(scores) if want == "label" else scores
    score = c.graph.columns(scores, [1], 2)
    if want != "label":
        return score
    limit = 0.0 if hasattr(model.estimators_[0], "decision_function") else 0.5
    return c.graph.cast(c.graph.op("Greater", score, c.graph.const(limit)), INT64)


def _confidence(c: Context, estimator: Any, columns: Columns) -> str:
    if hasattr(estimator, "decision_function"):
        return c.emit(estimator, columns, "decision")
    if not hasattr(estimator, "predict_proba"):
        return c.emit(estimator, columns, "value")
    return c.graph.columns(c.emit(estimator, columns, "proba"), [1], 2)


def pair_votes(g: Graph, second: str, confidence: str, classes: int) -> str:
    """Scores by class, (n, classes).

    Args:
        second: 1 where a pair votes for its second class, else 0, (n, pairs).
        confidence: of each pair in its second class, (n, pairs).
    """
    pairs = list(combinations(range(classes), 2))
    sign = np.zeros((len(pairs), classes))
    for k, (i, j) in enumerate(pairs):
        sign[k, i], sign[k, j] = -1, 1
    first = g.op("Sub", g.const(1.0), second)
    votes = g.op("Add", g.op("MatMul", first, g.const(sign < 0)), g.op("MatMul", second, g.const(sign > 0)))
    total = g.op("MatMul", confidence, g.const(sign))
    bounded = g.op("Mul", g.const(3.0), g.op("Add", g.op("Abs", total), g.const(1.0)))
    return g.op("Add", votes, g.op("Div", total, bounded))
