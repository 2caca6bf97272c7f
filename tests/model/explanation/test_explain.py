"""Explanations beside the definition, from the original estimator's own answers, and beside the package shap."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

import estiba
from estiba.core.errors import BadInput, BadRequest
from estiba.model.coding.coder import Coded
from estiba.model.explanation.explain import Explainer, Explanation
from estiba.model.explanation.mixtures import Mixer
from estiba.model.explanation.shapley import Values, additive, model_free
from estiba.model.explanation.tree_values import TreeValues

Ask = Callable[[pd.DataFrame], npt.NDArray[np.float64]]


def sample() -> pd.DataFrame:
    random = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "a": random.normal(size=400),
            "b": random.normal(size=400).round(1),
            "c": random.choice(["x", "y", "z"], 400),
            "d": random.integers(0, 5, 400).astype(float),
            "e": random.normal(size=400),
        }
    )
    rows.loc[random.random(400) < 0.1, "e"] = np.nan
    return rows


ROWS = sample()
VALUE = ROWS.a + (ROWS.c == "x") * ROWS.b + ROWS.d * 0.3 + ROWS.e.fillna(0) * ROWS.b
TWO = (VALUE.median() < VALUE).astype(int)
THREE = pd.qcut(VALUE, 3, labels=["low", "mid", "high"]).astype(str)


def piped(estimator: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_pipeline(make_column_transformer((OneHotEncoder(), ["c"]), (numbers, ["a", "b", "d", "e"])), estimator)


def packed(folder: Path, model: Any, rows: pd.DataFrame) -> estiba.Model:
    estiba.pack(model, rows, name="m", registry=str(folder / "registry"))
    return estiba.load("m", registry=str(folder / "registry"))


def background(model: estiba.Model, rows: pd.DataFrame) -> pd.DataFrame:
    profile = model.profile
    assert profile is not None
    values = [dict(zip(rows.columns, row, strict=True)) for row in model.coder.values(profile.background.coded)]
    return pd.DataFrame(values).astype(rows.dtypes.to_dict())


def by_definition(ask: Ask, row: pd.Series[Any], others: pd.DataFrame) -> dict[str, float]:
    """Shapley's formula over all coalitions of fields."""
    names = list(others.columns)
    worth = {}
    for coalition in itertools.product([False, True], repeat=len(names)):
        mixed = others.copy()
        for name, member in zip(names, coalition, strict=True):
            if member:
                mixed[name] = row[name]
        worth[coalition] = float(ask(mixed).mean())
    values = dict.fromkeys(names, 0.0)
    for coalition, without in worth.items():
        size = sum(coalition)
        if size == len(names):
            continue
        weight = math.factorial(size) * math.factorial(len(names) - size - 1) / math.factorial(len(names))
        for i, name in enumerate(names):
            if not coalition[i]:
                values[name] += weight * (worth[(*coalition[:i], True, *coalition[i + 1 :])] - without)
    return values


def original(estimator: Any, explanation: Explanation) -> Ask:
    """The explained number as the original estimator has it."""
    if explanation.scale == "value":
        return lambda rows: np.asarray(estimator.predict(rows), float)
    if explanation.scale == "score":
        return lambda rows: np.asarray(estimator.decision_function(rows), float)
    at = [str(label) for label in estimator.classes_].index(explanation.output)
    if explanation.scale == "margin":
        return lambda rows: np.asarray(estimator.decision_function(rows)[:, at])
    if explanation.scale == "probability":
        return lambda rows: np.asarray(estimator.predict_proba(rows)[:, at])

    def odds(rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        share = estimator.predict_proba(rows)[:, at]
        return np.asarray(np.log(share / (1 - share)))

    return odds


def contributions(explanation: Explanation) -> dict[str, float]:
    return {c.field: c.contribution for c in explanation.contributions}


CASES: dict[str, tuple[Any, Any, str, str, float]] = {
    "forest": (RandomForestClassifier(20, max_depth=6, random_state=0), TWO, "trees", "probability", 1e-12),
    "boosting": (GradientBoostingClassifier(n_estimators=20, random_state=0), TWO, "trees", "log-odds", 1e-11),
    "histograms": (HistGradientBoostingClassifier(max_iter=20), TWO, "trees", "log-odds", 1e-11),
    "three classes": (HistGradientBoostingClassifier(max_iter=10), THREE, "trees", "margin", 1e-11),
    "a forest of three": (RandomForestClassifier(10, random_state=0), THREE, "trees", "probability", 1e-12),
    "a forest of values": (RandomForestRegressor(10, random_state=0), VALUE, "trees", "value", 1e-11),
    "xgboost": (XGBClassifier(n_estimators=10), TWO, "trees", "log-odds", 2e-6),  # sums in float32
    "lightgbm": (LGBMClassifier(n_estimators=10, verbose=-1), TWO, "trees", "log-odds", 1e-11),
    "logistic": (LogisticRegression(), TWO, "additive", "log-odds", 1e-12),
    "linear": (LinearRegression(), VALUE, "additive", "value", 1e-12),
    "a vote of both": (
        VotingClassifier(
            [("forest", RandomForestClassifier(5, random_state=0)), ("line", LogisticRegression())], voting="soft"
        ),
        TWO, "subsets", "probability", 1e-12,
    ),
    "neighbours": (KNeighborsRegressor(5), VALUE, "subsets", "value", 1e-11),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_contributions_are_shapley_values_of_the_original(tmp_path: Path, case: str) -> None:
    estimator, labels, method, scale, tolerance = CASES[case]
    fitted = piped(estimator).fit(ROWS, labels)
    model = packed(tmp_path, fitted, ROWS)
    row = ROWS.iloc[7]
    record = {name: None if value != value else value for name, value in row.items()}
    (explanation,) = Explainer(model).explain([record])
    assert (explanation.method, explanation.scale) == (method, scale)
    ask = original(fitted, explanation)
    wanted = by_definition(ask, row, background(model, ROWS))
    assert contributions(explanation) == pytest.approx(wanted, rel=0, abs=tolerance)
    assert explanation.explained == pytest.approx(ask(ROWS.iloc[[7]])[0], rel=1e-6)
    assert explanation.prediction == model.predict([record])[0]


@pytest.mark.slow
def test_contributions_are_those_of_shap(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of matplotlib, which it draws with
        import shap

    # Eighths and the thresholds between them are exact in float32, to which shap rounds thresholds.
    rows = (ROWS[["a", "b", "d", "e"]].fillna(0.0) * 8).round() / 8
    fitted = GradientBoostingClassifier(n_estimators=30, random_state=0).fit(rows, TWO)
    model = packed(tmp_path, fitted, rows)
    explained = Explainer(model).explain(rows.iloc[:20].to_dict("records"))
    reference = shap.TreeExplainer(fitted, background(model, rows), feature_perturbation="interventional")
    ours = np.array([[contributions(e)[name] for name in rows.columns] for e in explained])
    assert {(e.method, e.scale) for e in explained} == {("trees", "log-odds")}
    assert np.abs(ours - reference.shap_values(rows.iloc[:20])).max() < 1e-6
    assert explained[0].base == pytest.approx(float(np.ravel(reference.expected_value)[0]), abs=1e-6)


@pytest.mark.slow
def test_missing_values_go_where_the_library_sends_them(tmp_path: Path) -> None:
    rows = ROWS[["a", "b", "d", "e"]]
    fitted = HistGradientBoostingClassifier(max_iter=20).fit(rows, TWO)
    model = packed(tmp_path, fitted, rows)
    missing = int(np.flatnonzero(rows.e.isna())[0])
    row = rows.iloc[missing]
    (explanation,) = Explainer(model).explain([{**row.to_dict(), "e": None}])
    wanted = by_definition(original(fitted, explanation), row, background(model, rows))
    assert explanation.method == "trees"
    assert contributions(explanation) == pytest.approx(wanted, rel=0, abs=1e-11)


@pytest.mark.slow
def test_many_fields_are_sampled_with_a_true_standard_error(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    rows = pd.DataFrame(random.normal(size=(200, 8)), columns=[f"x{i}" for i in range(8)])
    value = rows.x0 * rows.x1 + rows.x2 - rows.x3 * rows.x4
    model = packed(tmp_path, KNeighborsRegressor(7).fit(rows, value), rows)
    record = rows.iloc[3].to_dict()
    explainer = Explainer(model)
    (exact,) = explainer.explain([record], max_rows=2**8 * 100)
    (sampled,) = explainer.explain([record], max_rows=5_000)
    assert (exact.method, sampled.method) == ("subsets", "permutations")
    assert sampled.asked_rows <= 5_000
    right = contributions(exact)
    apart = [(c.contribution - right[c.field]) / c.error for c in sampled.contributions if c.error]
    assert len(apart) == 8
    assert max(map(abs, apart)) < 4
    assert sampled.explained == pytest.approx(exact.explained, abs=1e-9)
    assert explainer.explain([record], max_rows=5_000) == [sampled]


def test_what_cannot_be_explained_says_why(tmp_path: Path) -> None:
    rows = ROWS[["a", "b"]]
    explainer = Explainer(packed(tmp_path, RandomForestClassifier(3, random_state=0).fit(rows, THREE), rows))
    with pytest.raises(BadInput, match="expected a number"):
        explainer.explain([{"a": "tall", "b": 1.0}])
    with pytest.raises(BadRequest, match="no output 'hihg'; did you mean 'high'") as wrong:
        explainer.explain([{"a": 1.0, "b": 1.0}], output="hihg")
    assert "high, low, mid" in (wrong.value.hint or "")
    (chosen,) = explainer.explain([{"a": 1.0, "b": 1.0}], output="mid")
    assert chosen.output == "mid"


@pytest.mark.slow
def test_an_outlier_score_is_explained(tmp_path: Path) -> None:
    rows = ROWS[["a", "b", "d"]]
    fitted = IsolationForest(n_estimators=20, random_state=0).fit(rows)
    model = packed(tmp_path, fitted, rows)
    (explanation,) = Explainer(model).explain([rows.iloc[5].to_dict()])
    wanted = by_definition(original(fitted, explanation), rows.iloc[5], background(model, rows))
    assert contributions(explanation) == pytest.approx(wanted, rel=0, abs=1e-9)


def test_a_row_like_all_background_rows_has_no_contributions() -> None:
    same = Coded(np.ones((5, 3)))
    values = model_free(Mixer(Coded(np.ones((1, 3))), same, {}), lambda rows: rows.matrix.sum(axis=1), 1000)
    assert (values.method, values.base, values.contributions.tolist()) == ("subsets", 3.0, [0.0, 0.0, 0.0])


def test_malformed_trees_are_refused(tmp_path: Path) -> None:
    """The kernel checks its arguments as well, as it reads memory by them."""
    rows = ROWS[["a", "b"]]
    model = packed(tmp_path, RandomForestRegressor(2, max_depth=3, random_state=0).fit(rows, VALUE), rows)
    ensemble = TreeValues(model.artifact)._ensembles[0]
    shap, parts = ensemble._kernel.tree_shap, ensemble._parts
    row = np.zeros(ensemble._asked).tobytes()
    assert len(shap(parts, ensemble._of, 2, 1, row, row)) == 16
    far = np.full(len(parts[0]) // 4, 10**6, np.int32).tobytes()
    wrong = [(*parts[:i], far[: len(parts[i])], *parts[i + 1 :]) for i in (0, 3, 4, 7)]
    wrong += [(*parts[:1], parts[1][:-8], *parts[2:]), parts[:-1]]
    for malformed in wrong:
        with pytest.raises(ValueError, match="malformed trees"):
            shap(malformed, ensemble._of, 2, 1, row, row)
    with pytest.raises(ValueError, match="do not fit"):
        shap(parts, ensemble._of, 2, 1, row[:-8] or b"1234567812345678", row)
    with pytest.raises(ValueError, match="malformed trees"):
        shap(parts, np.full(ensemble._asked, 7, np.int32).tobytes(), 2, 1, row, row)


@pytest.mark.slow
def test_boosted_trees_without_doubt_are_explained_in_log_odds(tmp_path: Path) -> None:
    """Their sum takes two values, of which the probability is a line as well."""
    rows = ROWS[["a", "b"]]
    fitted = GradientBoostingClassifier(random_state=0).fit(rows, rows.a > 0)
    model = packed(tmp_path, fitted, rows)
    (explanation,) = Explainer(model).explain([rows.iloc[0].to_dict()])
    assert (explanation.method, explanation.scale) == ("trees", "log-odds")
    wanted = by_definition(original(fitted, explanation), rows.iloc[0], background(model, rows))
    assert contributions(explanation) == pytest.approx(wanted, rel=0, abs=1e-6)  # of log-odds, computed from 1 - 2e-16


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [XGBClassifier(n_estimators=100), HistGradientBoostingClassifier(max_iter=200)],
    ids=["single", "double"],
)
def test_models_that_are_nearly_always_sure_are_explained_from_their_trees(tmp_path: Path, estimator: Any) -> None:
    """The log-odds of a probability that is all but 0 or 1 are noise of its last digits."""
    rows, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    rows = rows.iloc[:, :8].set_axis([f"x{i}" for i in range(8)], axis=1)
    fitted = estimator.fit(rows, labels)
    model = packed(tmp_path, fitted, rows)
    for explanation in Explainer(model).explain(rows.iloc[:20].to_dict("records")):
        assert (explanation.method, explanation.scale) == ("trees", "log-odds")
        probability = list(explanation.prediction["probabilities"].values())[1]
        assert 1 / (1 + math.exp(-explanation.explained)) == pytest.approx(probability, abs=1e-6)


def mixed(ask: Callable[[Coded], npt.NDArray[np.float64]], row: list[float], others: list[list[float]]) -> Values:
    mixer = Mixer(Coded(np.array([row])), Coded(np.array(others)), {})
    return additive(mixer, ask) or model_free(mixer, ask, 1000)


def test_an_interaction_that_cancels_out_is_no_additive_model() -> None:
    values = mixed(
        lambda rows: rows.matrix[:, 0] * rows.matrix[:, 1] * (1 - rows.matrix[:, 2]), [1, 1, 1], [[0, 0, 0]] * 3
    )
    assert values.method == "subsets"
    assert values.contributions.tolist() == pytest.approx([1 / 6, 1 / 6, -1 / 3])


def test_few_walks_begin_at_the_mean_of_all_background_rows() -> None:
    random = np.random.default_rng(3)
    others = random.normal(size=(100, 20))
    row = random.normal(size=20).tolist()
    values = mixed(lambda rows: np.asarray(np.sin(rows.matrix.sum(axis=1))), row, others.tolist())
    assert values.method == "permutations"
    assert values.base == pytest.approx(float(np.sin(others.sum(axis=1)).mean()))


def test_too_many_fields_without_trees_are_refused(tmp_path: Path) -> None:
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 1_001))).add_prefix("x")
    model = packed(tmp_path, LinearRegression().fit(rows, rows.x0), rows)
    with pytest.raises(BadRequest, match="1001 fields and no trees"):
        Explainer(model).explain([rows.iloc[0].to_dict()])
