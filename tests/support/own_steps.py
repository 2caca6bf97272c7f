"""Transformers and estimators as people write them in a module of their own."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin


class Ratios(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Two features of b and k: b = 0 gives infinity, and k = 8 a missing value."""

    def fit(self, X: pd.DataFrame, y: Any = None) -> Ratios:
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"ratio": X["k"] / X["b"], "rest": X["k"].where(X["k"] < 8), "big": X["k"] > 4})


class Above(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Says if the first column is above its mean of training."""

    def fit(self, X: Any, y: Any = None) -> Above:
        self.mean_ = float(X[:, 0].mean())
        self.classes_ = [False, True]
        return self

    def decision_function(self, X: Any) -> Any:
        return X[:, 0] - self.mean_

    def predict(self, X: Any) -> Any:
        return self.decision_function(X) > 0


def lowered(frame: pd.DataFrame) -> pd.DataFrame:
    """Texts in lower case, and a column that no later step reads."""
    return frame.assign(c=frame["c"].str.lower(), when=pd.Timestamp("2026-01-01"), t=frame["t"].str.lower())
