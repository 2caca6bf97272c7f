"""Convert classifiers that answer several outputs, one part of the graph for each, and chains of estimators."""

from __future__ import annotations

from typing import Any

import numpy as np

from estiba.model.convert.columns import Columns, slots
from estiba.model.convert.context import Context, Want, unsupported
from estiba.model.convert.forests import read_tree
from estiba.model.convert.graph import DOUBLE
from estiba.model.convert.trees import vote_share
from estiba.model.schema.signature import Head

_TREES = (
    "DecisionTreeClassifier",
    "ExtraTreeClassifier",
    "RandomForestClassifier",
    "ExtraTreesClassifier",
)


def several_outputs(c: Context, model: Any, columns: Columns, heads: tuple[Head, ...]) -> list[str]:
    """The columns of each output of a classifier, as its head says.

    Raises:
        NotConvertible: no rule covers it.
    """
    name = type(model).__name__
    if hasattr(model, "steps"):
        for _, step in model.steps[:-1]:
            columns = c.apply(step, columns)
        return several_outputs(c, model.steps[-1][1], columns, heads)
    if hasattr(model, "best_estimator_"):
        return several_outputs(c, model.best_estimator_, columns, heads)
    if name in ("XGBClassifier", "CatBoostClassifier", "MLPClassifier", "RidgeClassifier"):
        return _indicators(c, model, columns, heads)
    if not type(model).__module__.startswith("sklearn."):
        raise unsupported(model, "answers several outputs, for which there is no rule")
    if name in _TREES:
        return _trees(c, model, columns, heads)
    if name == "MultiOutputClassifier":
        pairs = zip(model.estimators_, heads, strict=True)
        return [_member(c, estimator, columns, head) for estimator, head in pairs]
    if name == "OneVsRestClassifier":
        pairs = zip(model.estimators_, heads, strict=True)
        return [_member(c, estimator, columns, head) for estimator, head in pairs]
    if name == "ClassifierChain":
        return _classifier_chain(c, model, columns, heads)
    raise unsupported(model, "answers several outputs, for which there is no rule")


def _member(c: Context, estimator: Any, columns: Columns, head: Head) -> str:
    """The columns of one output that has an estimator of its own."""
    label = ""
    if head.says_label:
        label = c.graph.cast(c.label(estimator, columns), DOUBLE)
    if head.kind == "label":
        return label
    wants: dict[str, Want] = {"probabilities": "proba"}
    numbers = c.emit(estimator, columns, wants.get(head.kind, "decision"))
    return c.graph.concat([numbers, label]) if label else numbers


def _indicators(c: Context, model: Any, columns: Columns, heads: tuple[Head, ...]) -> list[str]:
    """Labels of which a row may have several: one column of the model's answer for each."""
    if any(head.labelled or len(head.classes) != 2 for head in heads):
        raise unsupported(model, "says a label of several that does not follow from its answer")
    g, width = c.graph, len(heads)
    answer = c.emit(model, columns, "decision")
    if type(model).__name__ == "XGBClassifier":
        answer = g.as_float32(g.expit(answer))  # margins; XGBoost answers in float32
    elif type(model).__name__ == "CatBoostClassifier":
        answer = g.expit(answer)
    parts = [g.columns(answer, [i], width) for i in range(width)]
    return parts if heads[0].kind == "scores" else [g.pair(part) for part in parts]


def _trees(c: Context, model: Any, columns: Columns, heads: tuple[Head, ...]) -> list[str]:
    """The mean of the trees' class shares, for one output after the other."""
    if any(head.kind != "probabilities" or head.labelled for head in heads):
        raise unsupported(model, "says a label of several without probabilities")
    x = c.graph.as_float32(c.matrix(columns))
    estimators = getattr(model, "estimators_", [model])
    parts = []
    for k, head in enumerate(heads):
        width = len(head.classes)
        shares = [np.array(e.tree_.value[:, k, :width], np.float64) for e in estimators]
        trees = [read_tree(e, value) for e, value in zip(estimators, shares, strict=True)]
        parts.append(vote_share(c.graph, x, trees))
    return parts


def _classifier_chain(c: Context, model: Any, columns: Columns, heads: tuple[Head, ...]) -> list[str]:
    """Each estimator reads the labels of those before it, too."""
    if getattr(model, "chain_method_", "predict") != "predict":
        raise unsupported(model, f"hands on {model.chain_method_}, for which there is no rule")
    g, parts = c.graph, [""] * len(heads)
    for estimator, output in zip(model.estimators_, model.order_, strict=True):
        classes = np.asarray(estimator.classes_)
        if classes.dtype.kind not in "iufb":
            raise unsupported(model, "of labels that are no numbers has no rule")
        head = heads[int(output)]
        parts[int(output)] = _member(c, estimator, columns, head)
        position = g.op("Squeeze", c.label(estimator, columns), g.const([1], np.int64))
        label = g.op("Gather", g.const(classes.astype(np.float64)[:, None]), position, axis=0)
        columns = _with_answer(c, columns, label, estimator)
    return parts


def regressor_chain(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """RegressorChain: each estimator reads the values of those before it, too."""
    parts = [""] * len(model.estimators_)
    for estimator, output in zip(model.estimators_, model.order_, strict=True):
        value = c.emit(estimator, columns, "value")
        parts[int(output)] = value
        columns = _with_answer(c, columns, value, estimator)
    return c.graph.concat(parts)


def _with_answer(c: Context, columns: Columns, answer: str, estimator: Any) -> Columns:
    """The columns with an estimator's answer, of one column, behind them."""
    if hasattr(columns.sample, "tocsr"):  # terms of texts, which stay sparse
        from scipy.sparse import csr_matrix, hstack

        own = csr_matrix(np.asarray(estimator.predict(columns.sample), np.float64)[:, None])
        sample = hstack([columns.sample, own], format="csr")
        return columns.same((*columns.columns, *slots(answer, 1)), sample)
    rows = np.asarray(columns.sample, np.float64)
    own = np.asarray(estimator.predict(rows), np.float64).reshape(len(rows), 1)
    width = len(columns.columns) + 1
    joined = c.graph.concat([c.matrix(columns), answer])
    return columns.same(slots(joined, width), np.concatenate([rows, own], axis=1))
