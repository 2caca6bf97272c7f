"""Facts about a fitted estimator that several questions to it depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.core.errors import EstibaError
from estiba.model.schema.signature import Label
from estiba.model.schema.text_input import rows_of

if TYPE_CHECKING:
    import pandas as pd


class NoAnswer(EstibaError):
    """The object is not a model that gives labels, probabilities, scores or values."""

    exit_code = 2


def innermost(model: Any) -> Any:
    """The estimator that decides on the outputs."""
    while True:
        if hasattr(model, "steps"):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "regressor_"):
            model = model.regressor_
        else:
            return model


def rows_for(model: Any, frame: pd.DataFrame) -> Any:
    """The rows as the model's own methods take them: a bare array where it was fitted on one."""
    return frame.to_numpy() if wants_array(model) else rows_of(model, frame)


def wants_array(model: Any) -> bool:
    """Fitted on a bare array, an estimator warns about, or refuses, a DataFrame's column names."""
    if type(model).__module__.startswith("catboost"):
        return list(model.feature_names_) == [str(i) for i in range(len(model.feature_names_))]
    if type(model).__module__.startswith("lightgbm"):
        return list(model.feature_name_) == [f"Column_{i}" for i in range(model.n_features_)]
    return not hasattr(model, "feature_names_in_") and hasattr(model, "n_features_in_")


def has_classes(model: Any) -> bool:
    """Tell a fitted classifier. A CatBoostRegressor, and what wraps one, has classes_ too: none."""
    classes = getattr(model, "classes_", None)
    return classes is not None and len(classes) > 0


def is_regressor(model: Any) -> bool:
    return getattr(model, "_estimator_type", None) == "regressor" or type(model).__name__.endswith("Regressor")


def estimator_type(model: Any) -> str:
    """The kind of estimator by scikit-learn's tags, such as `clusterer`; empty for an object without tags."""
    from sklearn.utils import get_tags

    try:
        return str(get_tags(model).estimator_type or "")
    except (AttributeError, TypeError, ValueError):
        return ""


def is_booster(model: Any) -> bool:
    root = type(model).__module__.partition(".")[0]
    return root in ("xgboost", "lightgbm") and type(model).__name__ == "Booster"


def plain_label(value: object) -> Label:
    return value if isinstance(value, str | int | float | bool) else str(value)


def predicted(model: Any, rows: Any) -> Any:
    """Ask `predict`; the answer is an array, also where it is a sparse matrix of indicators."""
    said = model.predict(rows)
    return np.asarray(said.toarray() if hasattr(said, "toarray") else said)
