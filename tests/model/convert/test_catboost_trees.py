"""CatBoost with columns of words converts where each split names one of them, and says otherwise what would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import estiba
from estiba.model.engines.exact import ExactEngine

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
TOWNS = np.array([*(f"town {i}" for i in range(10)), "", "ñandú", "NA"])
ROWS = pd.DataFrame(
    {
        "town": RNG.choice(TOWNS, 500),
        "x": RNG.normal(size=500),
        "sex": RNG.choice(["f", "m"], 500),
        "n": np.arange(500) % 4,
    }
)
TARGET = (ROWS["x"] + pd.factorize(ROWS["town"])[0] / 3 + (ROWS["sex"] == "f") * ROWS["n"]).to_numpy()


def _fitted(kind: str, target: Any, **options: Any) -> Any:
    import catboost

    settings = {"iterations": 15, "cat_features": ["town", "sex"], "one_hot_max_size": 20, "thread_count": 1} | options
    return getattr(catboost, kind)(verbose=0, allow_writing_files=False, **settings).fit(ROWS, target)


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
@pytest.mark.parametrize("classes", [0, 2, 3])
def test_words_asked_one_by_one(policy: str, classes: int, tmp_path: Path) -> None:
    target = np.digitize(TARGET, np.quantile(TARGET, [0.3, 0.7][: classes - 1])) if classes else TARGET
    model = _fitted("CatBoostClassifier" if classes else "CatBoostRegressor", target, grow_policy=policy)
    unseen = {name: {"unseen": "other"} for name in ("town", "sex")}
    estiba.pack(model, ROWS, name="words", registry=tmp_path, fields=unseen)
    loaded = estiba.load("words", registry=tmp_path)
    assert isinstance(loaded.engine, ExactEngine)
    asked = ROWS.assign(town=np.roll(ROWS["town"], 1), x=np.linspace(-9, 9, 500))
    asked.loc[::7, "town"] = "Nowhere"
    asked.loc[::11, "sex"] = "F"
    answers = loaded.predict(asked)
    if not classes:
        assert [a["value"] for a in answers] == model.predict(asked).tolist()
        return
    assert [a["label"] for a in answers] == model.predict(asked).ravel().tolist()
    shares = [list(a["probabilities"].values()) for a in answers]
    np.testing.assert_allclose(shares, model.predict_proba(asked), rtol=0, atol=1e-15)


def test_statistics_of_words_are_a_reason_with_the_option_that_converts(tmp_path: Path) -> None:
    packed = estiba.pack(_fitted("CatBoostRegressor", TARGET, one_hot_max_size=2), ROWS, name="w", registry=tmp_path)
    assert packed.artifact.manifest.engine == "python"
    assert packed.artifact.manifest.reason.endswith("trained with one_hot_max_size=13 it converts")


def test_numbers_as_categories_are_a_reason(tmp_path: Path) -> None:
    model = _fitted("CatBoostRegressor", TARGET, cat_features=["n", "town", "sex"])
    packed = estiba.pack(model, ROWS, name="w", registry=tmp_path)
    assert "reads the numbers of column 3 as categories" in packed.artifact.manifest.reason
