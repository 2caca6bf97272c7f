"""Categories of many levels stay sparse through conversion, and the answers are the original's."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeRegressor

import estiba

pytestmark = pytest.mark.slow

LEVELS = 300


def rows(levels: int = LEVELS, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(levels), rng.integers(0, levels, 4 * levels)])
    shops = rng.integers(0, levels // 2, len(codes))
    sample = pd.DataFrame(
        {
            "sku": pd.Series([f"sku-{c}" for c in codes], dtype=object),
            "shop": pd.Series([f"shop-{c}" for c in shops], dtype=object),
            "price": rng.gamma(2.0, 10.0, len(codes)),
        }
    )
    score = rng.normal(size=levels)[codes] + rng.normal(size=levels)[shops] + sample["price"] / 20
    return sample, score.to_numpy()


def encoded(model: Any, *, sparse: bool = True, unknown: str = "ignore", more: tuple[Any, ...] = ()) -> Any:
    encoder = OneHotEncoder(handle_unknown=unknown, sparse_output=sparse)
    columns = make_column_transformer((encoder, ["sku", "shop"]), remainder="passthrough")
    return make_pipeline(columns, *more, model)


MODELS = {
    "logistic regression": lambda: encoded(LogisticRegression(max_iter=300)),
    "dense output": lambda: encoded(LogisticRegression(max_iter=300), sparse=False),
    "refused unseen levels": lambda: encoded(LogisticRegression(max_iter=300), unknown="error"),
    "linear SVM": lambda: encoded(LinearSVC()),
    "ridge": lambda: encoded(Ridge()),
    "three classes": lambda: encoded(SGDClassifier(loss="log_loss", random_state=0)),
    "complement naive Bayes": lambda: encoded(ComplementNB()),
    "Bernoulli naive Bayes": lambda: make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["sku", "shop"])), BernoulliNB()
    ),
    "scaled": lambda: encoded(LogisticRegression(max_iter=300), more=(StandardScaler(with_mean=False),)),
    "largest absolute value": lambda: encoded(LogisticRegression(max_iter=300), more=(MaxAbsScaler(),)),
    "truncated SVD": lambda: encoded(
        RandomForestClassifier(5, random_state=0), more=(TruncatedSVD(8, random_state=0),)
    ),
    "selected columns": lambda: encoded(LogisticRegression(max_iter=300), more=(SelectKBest(chi2, k=90),)),
    "forest": lambda: encoded(RandomForestClassifier(10, random_state=0)),
    "gradient boosting": lambda: encoded(GradientBoostingClassifier(n_estimators=10, random_state=0)),
    "tree": lambda: encoded(DecisionTreeRegressor(max_depth=8, random_state=0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_packed_model_answers_as_the_original(name: str, tmp_path: Path) -> None:
    sample, score = rows()
    model = MODELS[name]()
    numbers = name in ("ridge", "tree")
    classes = np.digitize(score, [1.0, 2.0]) if name == "three classes" else (score > 1.4).astype(int)
    model.fit(sample, score if numbers else classes)
    packed = estiba.pack(model, sample, name="many", registry=tmp_path)
    assert packed.artifact.manifest.engine == "onnx", packed.artifact.manifest.reason
    assert packed.artifact.path.joinpath("model.onnx").stat().st_size < 400_000

    asked = rows(seed=1)[0]
    if "refused" not in name:
        asked.loc[asked.index[:50], "sku"] = "never seen"
    loaded = estiba.load("many", registry=tmp_path)
    predictions = loaded.predict(asked[list(loaded.signature.names)])  # some do not read the price
    if hasattr(model, "predict_proba"):
        got = np.array([list(p["probabilities"].values()) for p in predictions])
        np.testing.assert_allclose(got, model.predict_proba(asked), rtol=0, atol=1e-12)
    elif numbers:
        np.testing.assert_allclose([p["value"] for p in predictions], model.predict(asked), rtol=0, atol=1e-12)
    else:
        np.testing.assert_allclose(
            [p["score"] for p in predictions], model.decision_function(asked), rtol=0, atol=1e-12
        )


def test_what_needs_every_column_of_many_levels_stays_with_python_and_says_why(tmp_path: Path) -> None:
    from sklearn.naive_bayes import GaussianNB

    sample, score = rows(6000)
    sample = sample[["sku"]]
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = make_column_transformer((encoder, ["sku"]), remainder="drop")
    model = make_pipeline(columns, GaussianNB()).fit(sample[:6000], score[:6000] > 1.4)
    packed = estiba.pack(model, sample[:100], name="dense", registry=tmp_path)
    assert packed.artifact.manifest.engine == "python"
    assert "columns of a category or text as numbers of their own" in packed.artifact.manifest.reason


def test_memory_and_size_grow_as_the_levels_do(tmp_path: Path) -> None:
    sizes, peaks = [], []
    for levels in (2_000, 8_000):
        sample, score = rows(levels)
        columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["sku"]), remainder="drop")
        sample = sample[["sku"]]
        model = make_pipeline(columns, LogisticRegression(max_iter=300)).fit(sample, score > 1.4)
        tracemalloc.start()
        packed = estiba.pack(model, sample[:levels], name=f"l{levels}", registry=tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(packed.artifact.path.joinpath("model.onnx").stat().st_size)
    assert sizes[1] < 4.2 * sizes[0]
    assert peaks[1] < 6 * peaks[0]
