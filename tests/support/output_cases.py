"""Models that answer several outputs, clusters or quantiles, and the answers that their own methods give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

RANDOM = np.random.default_rng(7)
ROWS = pd.DataFrame(RANDOM.normal(size=(500, 4)), columns=["a", "b", "c", "d"])
SAMPLE, HELD_OUT = ROWS.iloc[:360], ROWS.iloc[360:].reset_index(drop=True)
NOISE = RANDOM.normal(size=500) * 0.3

LABELS = pd.DataFrame(
    {"sport": ROWS["a"] + NOISE > 0, "art": ROWS["b"] + ROWS["a"] > 0.4, "law": ROWS["c"] * ROWS["d"] > 0}
).astype(int)
"""Labels that a row may have several of."""

KINDS = pd.DataFrame(
    {
        "size": np.where(ROWS["a"] + NOISE > 0, "big", "small"),
        "colour": np.select([ROWS["b"] > 0.5, ROWS["c"] > 0], ["red", "green"], "blue"),
    }
)
"""Two classifications, of two and of three classes."""

NUMBERS = pd.DataFrame({"price": 3 * ROWS["a"] + ROWS["b"] ** 2, "stock": ROWS["c"] - ROWS["a"] + NOISE})
NAMELESS = NUMBERS["price"].to_numpy()

Form = Literal["list", "second", "margins", "scores", "labels", "values", "clusters", "mixture"]


@dataclass(frozen=True)
class OutputCase:
    """A model, its target, and the form of its answers.

    - `list`: predict_proba gives a list with one matrix for each output;
    - `second`: one matrix with the probability of the second class of each output;
    - `scores`: decision_function gives a column for each output;
    - `labels`: predict alone says something; `values`: numbers; `clusters`; `mixture`: clusters with probabilities.
    """

    make: Callable[[], Any]
    target: Any
    form: Form
    names: tuple[str, ...] = ()

    def fit(self) -> Any:
        if self.target is None:
            return self.make().fit(SAMPLE)
        given = self.target[: len(SAMPLE)]
        # ClassifierChain and CatBoost want an array of several targets; the names are those given to pack.
        return self.make().fit(SAMPLE, np.asarray(given))

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.names or tuple(map(str, self.target.columns))

    def expected(self, model: Any, rows: pd.DataFrame) -> list[dict[str, Any]]:
        """The predictions of rows by the model's own methods."""
        said = model.predict(rows)
        said = np.asarray(said.toarray() if hasattr(said, "toarray") else said)
        if self.form == "clusters":
            return [{"cluster": int(c)} for c in said]
        if self.form == "mixture":
            shares = model.predict_proba(rows)
            pairs = zip(said, shares, strict=True)
            return [{"cluster": int(c), "probabilities": by_name(range(len(p)), p)} for c, p in pairs]
        if self.form == "values":
            return [dict(zip(self.outputs, map(float, row), strict=True)) for row in said.reshape(len(rows), -1)]
        columns = [self._output(model, rows, said, i) for i in range(len(self.outputs))]
        return [dict(zip(self.outputs, row, strict=True)) for row in zip(*columns, strict=True)]

    def _output(self, model: Any, rows: pd.DataFrame, said: Any, i: int) -> list[Any]:
        labels = [int(v) if isinstance(v, (int, float, np.number)) else str(v) for v in said[:, i]]
        if self.form == "labels":
            return labels
        if self.form == "scores":
            scores = model.decision_function(rows)[:, i]
            return [{"label": label, "score": score} for label, score in zip(labels, scores, strict=True)]
        shares = model.predict_proba(rows)
        if self.form == "list":
            classes = np.asarray(model.classes_[i]).tolist()
            each = [by_name(classes, row) for row in shares[i]]
        else:
            second = np.asarray(shares, float)[:, i]
            each = [by_name((0, 1), (1 - p, p)) for p in second]
        return [{"label": label, "probabilities": shares} for label, shares in zip(labels, each, strict=True)]


def by_name(names: Sequence[Any], numbers: Sequence[float]) -> dict[str, float]:
    return {str(name): float(number) for name, number in zip(names, numbers, strict=True)}


def _catboost(kind: str, loss: str) -> Any:
    import catboost

    return getattr(catboost, kind)(iterations=20, loss_function=loss, verbose=0, allow_writing_files=False)


def _xgboost(kind: str, **options: Any) -> Any:
    import xgboost

    return getattr(xgboost, kind)(n_estimators=10, **options)


def _sk(path: str, *inner: Any, **options: Any) -> Callable[[], Any]:
    """An estimator of scikit-learn by `module.Class`; the inner ones are made anew as well."""
    import importlib

    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(f"sklearn.{module}"), name)
    return lambda: kind(*(each() for each in inner), **options)


def _pipe(*steps: Callable[[], Any]) -> Callable[[], Any]:
    from sklearn.pipeline import make_pipeline

    return lambda: make_pipeline(*(step() for step in steps))


_LOGISTIC = _sk("linear_model.LogisticRegression")
_RIDGE = _sk("linear_model.Ridge")
_SCALE = _sk("preprocessing.StandardScaler")
_FOREST = _sk("ensemble.RandomForestClassifier", n_estimators=12, random_state=0)
_TREE = _sk("tree.DecisionTreeClassifier", max_depth=5, random_state=0)

CASES: dict[str, OutputCase] = {
    "forest of two classifications": OutputCase(_FOREST, KINDS, "list"),
    "forest of labels": OutputCase(_FOREST, LABELS, "list"),
    "extra trees": OutputCase(_sk("ensemble.ExtraTreesClassifier", n_estimators=9, random_state=0), KINDS, "list"),
    "tree": OutputCase(_TREE, KINDS, "list"),
    "extra tree": OutputCase(_sk("tree.ExtraTreeClassifier", max_depth=6, random_state=0), KINDS, "list"),
    "scaled forest": OutputCase(_pipe(_SCALE, _FOREST), KINDS, "list"),
    "neighbours": OutputCase(_sk("neighbors.KNeighborsClassifier", n_neighbors=5), KINDS, "list"),
    "perceptron of labels": OutputCase(
        _sk("neural_network.MLPClassifier", hidden_layer_sizes=(8,), max_iter=900, tol=1e-2, random_state=0),
        LABELS,
        "second",
    ),
    "MultiOutputClassifier": OutputCase(_sk("multioutput.MultiOutputClassifier", _LOGISTIC), KINDS, "list"),
    "MultiOutputClassifier of forests": OutputCase(_sk("multioutput.MultiOutputClassifier", _FOREST), KINDS, "list"),
    "MultiOutputClassifier of labels alone": OutputCase(
        _sk("multioutput.MultiOutputClassifier", _sk("svm.LinearSVC")), KINDS, "labels"
    ),
    "OneVsRest of labels": OutputCase(_sk("multiclass.OneVsRestClassifier", _LOGISTIC), LABELS, "second"),
    "OneVsRest of trees": OutputCase(_sk("multiclass.OneVsRestClassifier", _TREE), LABELS, "second"),
    "OneVsRest of scores": OutputCase(_sk("multiclass.OneVsRestClassifier", _sk("svm.LinearSVC")), LABELS, "scores"),
    "RidgeClassifier of labels": OutputCase(_sk("linear_model.RidgeClassifier"), LABELS, "scores"),
    "ClassifierChain": OutputCase(_sk("multioutput.ClassifierChain", _LOGISTIC), LABELS, "second"),
    "ClassifierChain in an order": OutputCase(
        _sk("multioutput.ClassifierChain", _TREE, order=[2, 0, 1]), LABELS, "second"
    ),
    "dummy": OutputCase(_sk("dummy.DummyClassifier"), KINDS, "list"),
    "XGBoost of labels": OutputCase(lambda: _xgboost("XGBClassifier"), LABELS, "second"),
    "CatBoost of labels": OutputCase(lambda: _catboost("CatBoostClassifier", "MultiLogloss"), LABELS, "second"),
    "RegressorChain": OutputCase(_sk("multioutput.RegressorChain", _RIDGE), NUMBERS, "values"),
    "RegressorChain in an order": OutputCase(
        _sk("multioutput.RegressorChain", _sk("tree.DecisionTreeRegressor", max_depth=5), order=[1, 0]),
        NUMBERS,
        "values",
    ),
    "MultiOutputRegressor": OutputCase(_sk("multioutput.MultiOutputRegressor", _RIDGE), NUMBERS, "values"),
    "MultiOutputRegressor of boosters": OutputCase(
        _sk("multioutput.MultiOutputRegressor", _sk("ensemble.HistGradientBoostingRegressor", max_iter=20)),
        NUMBERS,
        "values",
    ),
    "forest of values": OutputCase(
        _sk("ensemble.RandomForestRegressor", n_estimators=9, random_state=0), NUMBERS, "values"
    ),
    "linear of values": OutputCase(_pipe(_SCALE, _RIDGE), NUMBERS, "values"),
    "PLS": OutputCase(_sk("cross_decomposition.PLSRegression", n_components=2), NUMBERS, "values"),
    "XGBoost of values": OutputCase(lambda: _xgboost("XGBRegressor"), NUMBERS, "values"),
    "XGBoost of vector leaves": OutputCase(
        lambda: _xgboost("XGBRegressor", multi_strategy="multi_output_tree", tree_method="hist"), NUMBERS, "values"
    ),
    "XGBoost of quantiles": OutputCase(
        lambda: _xgboost("XGBRegressor", objective="reg:quantileerror", quantile_alpha=[0.05, 0.5, 0.95]),
        NAMELESS,
        "values",
        ("q0.05", "q0.5", "q0.95"),
    ),
    "CatBoost MultiRMSE": OutputCase(lambda: _catboost("CatBoostRegressor", "MultiRMSE"), NUMBERS, "values"),
    "CatBoost MultiQuantile": OutputCase(
        lambda: _catboost("CatBoostRegressor", "MultiQuantile:alpha=0.1,0.5,0.9"),
        NAMELESS,
        "values",
        ("q0.1", "q0.5", "q0.9"),
    ),
    "CatBoost RMSEWithUncertainty": OutputCase(
        lambda: _catboost("CatBoostRegressor", "RMSEWithUncertainty"), NAMELESS, "values", ("value", "variance")
    ),
    "KMeans": OutputCase(_sk("cluster.KMeans", n_clusters=5, n_init=2, random_state=0), None, "clusters"),
    "scaled KMeans": OutputCase(
        _pipe(_SCALE, _sk("cluster.KMeans", n_clusters=4, n_init=2, random_state=0)), None, "clusters"
    ),
    "MiniBatchKMeans": OutputCase(
        _sk("cluster.MiniBatchKMeans", n_clusters=5, n_init=2, random_state=0), None, "clusters"
    ),
    "BisectingKMeans": OutputCase(_sk("cluster.BisectingKMeans", n_clusters=5, random_state=0), None, "clusters"),
    "Birch": OutputCase(_sk("cluster.Birch", n_clusters=4), None, "clusters"),
    "MeanShift": OutputCase(_sk("cluster.MeanShift", bandwidth=1.6), None, "clusters"),
    "AffinityPropagation": OutputCase(_sk("cluster.AffinityPropagation", random_state=0), None, "clusters"),
    "GaussianMixture": OutputCase(_sk("mixture.GaussianMixture", n_components=3, random_state=0), None, "mixture"),
    "BayesianGaussianMixture": OutputCase(
        _sk("mixture.BayesianGaussianMixture", n_components=3, max_iter=900, random_state=0), None, "mixture"
    ),
}
