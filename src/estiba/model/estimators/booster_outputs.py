"""Answers of the boosters' own classes, which know neither labels nor names: classes are numbered from 0."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.model.estimators.estimator_facts import innermost, is_booster, rows_for
from estiba.model.schema.signature import Head

if TYPE_CHECKING:
    import pandas as pd

INDICATOR = (0, 1)
"""Classes of one label of several that a row may have: it does not, or does."""


def booster_head(model: Any, frame: pd.DataFrame) -> Head | None:
    """The head of a Booster of XGBoost or LightGBM or of a plain CatBoost; None for any other model.

    Args:
        frame: a few rows to ask for the number of answers.
    """
    if is_plain_catboost(model):
        return _catboost_head(model, frame)
    if not is_booster(model):
        return None
    objective, classes = booster_objective(model)
    width = _raw(model, frame).reshape(len(frame), -1).shape[1]
    if objective == "multi:softmax":
        return Head(kind="label", classes=tuple(range(classes)))
    if objective == "binary:logistic" and width > 1:
        return indicators([f"output{i}" for i in range(width)], "probabilities")
    if objective.startswith("rank") or objective == "lambdarank" or classes == 0:
        return Head(kind="values", names=value_names(model, width))
    return Head(kind="probabilities", classes=tuple(range(classes)))


def booster_answer(model: Any, frame: pd.DataFrame, head: Head) -> Any:
    """The numbers of a Booster of XGBoost or LightGBM, as its head says."""
    raw = _raw(model, frame)
    if head.kind == "several":
        return np.stack([1 - raw, raw], axis=2).reshape(len(raw), -1)
    return np.stack([1 - raw, raw], axis=1) if head.kind == "probabilities" and raw.ndim == 1 else raw


def catboost_values(model: Any, rows: Any) -> Any:
    """Values of a CatBoost model; a mean goes with its variance, also where the model was read from a file."""
    if catboost_loss(model).startswith("RMSEWithUncertainty"):
        return model.predict(rows, prediction_type="RMSEWithUncertainty")
    return model.predict(rows)


def indicators(names: list[str], kind: Any) -> Head:
    """The head of a multi-label classifier: of each label, 0 or 1."""
    return Head(kind="several", heads=tuple(Head(kind=kind, name=name, classes=INDICATOR) for name in names))


def is_plain_catboost(model: Any) -> bool:
    """A CatBoost that is neither a classifier nor a regressor, as one that is read from a file."""
    return type(model).__name__ == "CatBoost" and type(model).__module__.startswith("catboost")


def is_catboost(model: Any) -> bool:
    return type(model).__module__.startswith("catboost")


def catboost_loss(model: Any) -> str:
    """Loss function of a fitted CatBoost model with its parameters, such as `MultiQuantile:alpha=0.1,0.9`."""
    return str(model.get_all_params().get("loss_function", "")) if hasattr(model, "get_all_params") else ""


def value_names(model: Any, count: int) -> tuple[str, ...]:
    """Names for the values of a regression: quantiles and variances by what they are, others by their position."""
    if count == 1:
        return ("value",)
    inner = innermost(model)
    names: list[str] = []
    if is_catboost(inner):
        loss = catboost_loss(inner)
        names = ["value", "variance"] if loss.startswith("RMSEWithUncertainty") else _quantiles(loss, "alpha=")
    elif type(inner).__module__.startswith("xgboost"):
        config = inner.save_config() if is_booster(inner) else inner.get_booster().save_config()
        objective = json.loads(config)["learner"]["objective"]
        names = _quantiles(str(objective.get("quantile_loss_param", {}).get("quantile_alpha", "")), "[")
    return tuple(names) if len(names) == count else tuple(f"value{i}" for i in range(count))


def _quantiles(text: str, before: str) -> list[str]:
    """Names such as `q0.05` for the numbers that follow `before` in a text."""
    numbers = re.match(r"[0-9.,eE+-]*", text.partition(before)[2])
    return [f"q{float(number):g}" for number in numbers.group().split(",") if number] if numbers else []


def _catboost_head(model: Any, frame: pd.DataFrame) -> Head:
    width = np.asarray(model.predict(rows_for(model, frame))).reshape(len(frame), -1).shape[1]
    classes = np.asarray(model.classes_).tolist()
    if catboost_loss(model).startswith(("MultiLogloss", "MultiCrossEntropy")):
        return indicators([f"output{i}" for i in range(width)], "scores")
    if classes:
        return Head(kind="scores", classes=tuple(classes))
    return Head(kind="values", names=value_names(model, width))


def booster_objective(model: Any) -> tuple[str, int]:
    """Objective of an XGBoost or LightGBM Booster and its number of classes, 0 for a regression."""
    if type(model).__module__.startswith("xgboost"):
        learner = json.loads(model.save_config())["learner"]
        objective = str(learner["objective"]["name"])
        count = int(learner["learner_model_param"]["num_class"])
        return objective, count if objective.startswith("multi:") else 2 * (objective == "binary:logistic")
    objective = str(model.dump_model(num_iteration=0).get("objective", "")).split(" ")[0]
    count = int(model.num_model_per_iteration())
    multi = objective in ("multiclass", "multiclassova")
    return objective, count if multi else 2 * (objective == "binary")


def _raw(model: Any, frame: pd.DataFrame) -> Any:
    if type(model).__module__.startswith("xgboost"):
        import xgboost

        names = model.feature_names
        rows: Any = frame.to_numpy() if names is None else frame
        return model.predict(xgboost.DMatrix(rows, enable_categorical=names is not None))
    named = model.feature_name() != [f"Column_{i}" for i in range(model.num_feature())]
    return model.predict(frame if named else frame.to_numpy())
