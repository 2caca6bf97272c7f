"""Boosters inside the wrappers of scikit-learn: they pack, convert, and answer as the wrapper does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import estiba

pytestmark = pytest.mark.slow

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 3)), columns=list("abc"))
NUMBER = (ROWS["a"] * 2 + ROWS["b"]).to_numpy()


def _catboost(kind: str) -> Any:
    import catboost

    return getattr(catboost, kind)(iterations=4, depth=3, verbose=0, allow_writing_files=False, thread_count=1)


def _regressors() -> dict[str, Callable[[Any], Any]]:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import BaggingRegressor, StackingRegressor, VotingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return {
        "Pipeline": lambda m: make_pipeline(StandardScaler(), m),
        "GridSearchCV": lambda m: GridSearchCV(m, {"random_seed": [1]}, cv=2),
        "RandomizedSearchCV of a Pipeline": lambda m: RandomizedSearchCV(make_pipeline(m), {}, n_iter=1, cv=2),
        "VotingRegressor": lambda m: VotingRegressor([("a", m), ("b", Ridge())]),
        "StackingRegressor": lambda m: StackingRegressor([("a", m), ("b", Ridge())], cv=2),
        "StackingRegressor, last": lambda m: StackingRegressor([("b", Ridge())], m, cv=2),
        "BaggingRegressor": lambda m: BaggingRegressor(m, 2, random_state=0),
        "TransformedTargetRegressor": lambda m: TransformedTargetRegressor(m, func=np.exp, inverse_func=np.log),
    }


@pytest.mark.parametrize("name", _regressors())
def test_a_catboost_regressor_has_classes_but_none(name: str, tmp_path: Path) -> None:
    model = _regressors()[name](_catboost("CatBoostRegressor")).fit(ROWS, NUMBER)
    packed = estiba.pack(model, ROWS, name="wrapped", registry=tmp_path)
    assert packed.artifact.manifest.engine == "onnx", packed.artifact.manifest.reason
    answers = [next(iter(a.values())) for a in estiba.load("wrapped", registry=tmp_path).predict(ROWS)]
    assert answers == pytest.approx(model.predict(ROWS), rel=1e-9)


@pytest.mark.parametrize("wrapper", ["MultiOutputRegressor", "RegressorChain"])
def test_several_catboost_regressors(wrapper: str, tmp_path: Path) -> None:
    from sklearn import multioutput

    targets = np.stack([NUMBER, -NUMBER], axis=1)
    model = getattr(multioutput, wrapper)(_catboost("CatBoostRegressor")).fit(ROWS, targets)
    estiba.pack(model, ROWS, name="wrapped", registry=tmp_path)
    answers = [list(a.values()) for a in estiba.load("wrapped", registry=tmp_path).predict(ROWS)]
    assert np.asarray(answers) == pytest.approx(model.predict(ROWS), rel=1e-9)
