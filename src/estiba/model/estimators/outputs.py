"""What the original estimator answers, as the float64 matrix that every engine gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from estiba.core.errors import EstibaError
from estiba.model.schema.signature import Head, Label
from estiba.model.schema.text_input import rows_of

if TYPE_CHECKING:
    import pandas as pd

Matrix = npt.NDArray[np.float64]


class NoAnswer(EstibaError):
    """The object is not a model that gives probabilities, scores or values."""

    exit_code = 2


def head_of(model: Any) -> Head:
    """What the columns of the model's answer mean.

    Args:
        model: a fitted estimator or Pipeline, or an XGBoost, LightGBM or CatBoost model.

    Raises:
        NoAnswer: it has no predict method, or answers several classifications at once.
    """
    booster = _booster_head(model)
    if booster is not None:
        return booster
    if not hasattr(model, "predict"):
        raise NoAnswer(
            f"{type(model).__name__} has no predict method.",
            hint="Pack the fitted estimator, or a Pipeline that ends in one.",
        )
    if hasattr(model, "classes_") and not _is_regressor(model):
        return _classifier_head(model)
    if _is_outlier_detector(model):
        return Head(kind="outlier", classes=(-1, 1))
    return Head(kind="values", names=_targets(model))


def answer(model: Any, frame: pd.DataFrame, head: Head) -> Matrix:
    """The model's answers to the rows of a DataFrame, float64 of shape (rows, head.width).

    Raises:
        NoAnswer: there are more or fewer numbers for each row than the head has.
    """
    raw = _booster_answer(model, frame, head) if _is_booster(model) else _estimator_answer(model, frame, head)
    numbers = np.asarray(raw, np.float64)
    if numbers.size != len(frame) * head.columns:
        each = f"{numbers.size / max(len(frame), 1):g}"
        raise NoAnswer(
            f"{type(model).__name__} answers {each} numbers for each row where {head.columns} "
            f"{'was' if head.columns == 1 else 'were'} expected.",
            hint="Pack one model for each number that it should answer.",
        )
    numbers = numbers.reshape(len(frame), head.columns)
    if head.labelled and (own := own_labels(model, frame, head)) is not None:
        numbers = np.column_stack([numbers, own])
    return np.ascontiguousarray(numbers)


def own_labels(model: Any, frame: pd.DataFrame, head: Head) -> npt.NDArray[np.int_] | None:
    """Labels that the model's own `predict` gives each row, as positions in `head.classes`.

    None for an XGBoost or LightGBM Booster, whose `predict` says no label.

    Raises:
        NoAnswer: it says several labels, or one that is not among its classes.
    """
    if _is_booster(model):
        return None
    rows: Any = frame.to_numpy() if _wants_array(model) else rows_of(model, frame)
    bare = type(model).__name__ == "CatBoost"
    labels = np.asarray(model.predict(rows, prediction_type="Class") if bare else model.predict(rows))
    if labels.size != len(frame):
        raise NoAnswer(f"{type(model).__name__} answers several labels at once.", hint="Pack one model for each label.")
    positions = {str(label): position for position, label in enumerate(head.classes)}
    names = [str(_label(value)) for value in labels.reshape(-1).tolist()]
    strange = [label for label in names if label not in positions]
    if strange:
        raise NoAnswer(f"{type(model).__name__} answers the label {strange[0]!r}, which is not among its classes.")
    return np.array([positions[label] for label in names], dtype=int)


_PLAIN = """
    LogisticRegression LogisticRegressionCV SGDClassifier LinearDiscriminantAnalysis LinearSVC RidgeClassifier
    RidgeClassifierCV Perceptron PassiveAggressiveClassifier DecisionTreeClassifier ExtraTreeClassifier
    RandomForestClassifier ExtraTreesClassifier GradientBoostingClassifier HistGradientBoostingClassifier
    AdaBoostClassifier BaggingClassifier GaussianNB MultinomialNB ComplementNB BernoulliNB CategoricalNB
    QuadraticDiscriminantAnalysis KNeighborsClassifier MLPClassifier DummyClassifier VotingClassifier
    CalibratedClassifierCV OneVsRestClassifier FixedThresholdClassifier TunedThresholdClassifierCV
    XGBClassifier XGBRFClassifier LGBMClassifier CatBoostClassifier CatBoost IsolationForest OneClassSVM
    SGDOneClassSVM EllipticEnvelope
"""
"""Estimators whose `predict` follows from the probabilities or scores, as far as rows of the sample show."""


def follows(model: Any) -> bool:
    """Is the model's `predict` known to follow from its probabilities or scores?"""
    inner = _innermost(model)
    if type(inner).__name__ == "StackingClassifier":
        return follows(inner.final_estimator_)
    if type(inner).__name__ in ("SVC", "NuSVC"):
        return len(inner.classes_) == 2 and not inner.probability
    return _is_booster(inner) or type(inner).__name__ in _PLAIN.split()


def own_threshold(model: Any) -> tuple[float, Label | None] | None:
    """The probability from which the model's own `predict` says the positive class, and that class if it is named.

    None for a model without a threshold of its own. Source: scikit-learn's FixedThresholdClassifier and
    TunedThresholdClassifierCV, and CatBoost's set_probability_threshold.
    """
    inner = _innermost(model)
    if type(inner).__name__ == "CatBoostClassifier":
        chosen = float(inner.get_probability_threshold()) if len(inner.classes_) == 2 else 0.5
        return None if chosen == 0.5 else (chosen, None)
    if type(inner).__name__ not in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
        return None
    if getattr(inner, "response_method", "auto") == "decision_function":
        return None
    threshold = getattr(inner, "best_threshold_", getattr(inner, "threshold", "auto"))
    label = getattr(inner, "pos_label", None)
    return (0.5 if threshold == "auto" else float(threshold)), None if label is None else _label(label)


def _estimator_answer(model: Any, frame: pd.DataFrame, head: Head) -> Any:
    rows: Any = frame.to_numpy() if _wants_array(model) else rows_of(model, frame)
    match head.kind:
        case "probabilities":
            return model.predict_proba(rows)
        case "scores":
            return _scores(model, rows, head)
        case "outlier":
            return model.decision_function(rows)
        case _:
            return model.predict(rows)


def _scores(model: Any, rows: Any, head: Head) -> Any:
    if hasattr(model, "decision_function"):
        return model.decision_function(rows)
    if not _is_hard_vote(model):  # a classifier that says its label and nothing else
        labels = np.asarray(model.predict(rows))
        columns = np.stack([labels == c for c in model.classes_], axis=1)
        return columns[:, 1] - 0.5 if head.width == 1 else columns
    votes = model.transform(rows)
    weights = model._weights_not_none or [1.0] * votes.shape[1]
    count = np.stack([((votes == c) * weights).sum(axis=1) for c in range(len(model.classes_))], axis=1)
    # A tie goes to the first class, as in scikit-learn, because only what is above 0 goes to the second.
    return count[:, 1] - count[:, 0] if head.width == 1 else count


def _is_hard_vote(model: Any) -> bool:
    return type(model).__name__ == "VotingClassifier" and model.voting == "hard"


def _is_regressor(model: Any) -> bool:
    return getattr(model, "_estimator_type", None) == "regressor" or type(model).__name__.endswith("Regressor")


def _is_outlier_detector(model: Any) -> bool:
    from sklearn.utils import get_tags

    try:
        kind = get_tags(model).estimator_type
    except (AttributeError, TypeError, ValueError):
        return False
    return kind == "outlier_detector" and hasattr(model, "decision_function")


def _classifier_head(model: Any) -> Head:
    classes = model.classes_
    if isinstance(classes, list):
        raise NoAnswer(
            f"{type(model).__name__} answers {len(classes)} classifications at once.",
            hint="Pack one model for each target.",
        )
    labels = tuple(_label(c) for c in np.asarray(classes).tolist())
    if len(labels) < 2:
        raise NoAnswer(
            f"{type(model).__name__} knows one class only: {labels[0]!r}.",
            hint="Train it on rows of at least two classes.",
        )
    sure = hasattr(model, "predict_proba") and not _clips(_innermost(model))
    return Head(kind="probabilities" if sure else "scores", classes=labels)


def _clips(model: Any) -> bool:
    """Modified Huber probabilities of more than two classes are often equal; only the scores say which wins."""
    return getattr(model, "loss", None) == "modified_huber" and len(model.classes_) > 2


def _label(value: object) -> Label:
    return value if isinstance(value, str | int | float | bool) else str(value)


def _targets(model: Any) -> tuple[str, ...]:
    count = _target_count(model)
    return ("value",) if count == 1 else tuple(f"value{i}" for i in range(count))


def _target_count(model: Any) -> int:
    """Number of regression targets; estimators keep it under different names."""
    model = _innermost(model)
    if type(model).__module__.startswith("xgboost"):
        return _xgboost_targets(model)
    for name in ("n_outputs_", "_n_outputs"):
        if isinstance(getattr(model, name, None), int):
            return int(getattr(model, name))
    coefficients = getattr(model, "coef_", None)
    if isinstance(coefficients, np.ndarray) and coefficients.ndim == 2:
        return 1 if type(model).__name__ in ("SVR", "NuSVR", "LinearSVR") else int(coefficients.shape[0])
    if hasattr(model, "estimators_") and type(model).__name__ == "MultiOutputRegressor":
        return len(model.estimators_)
    fitted = getattr(model, "_y", None)
    return int(fitted.shape[1]) if isinstance(fitted, np.ndarray) and fitted.ndim == 2 else 1


def _xgboost_targets(model: Any) -> int:
    import json

    learner = json.loads(model.get_booster().save_config())["learner"]
    return int(learner["learner_model_param"].get("num_target", 1))


def _innermost(model: Any) -> Any:
    """The estimator that decides on the number of targets."""
    while True:
        if hasattr(model, "steps"):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        elif hasattr(model, "regressor_"):
            model = model.regressor_
        else:
            return model


def _wants_array(model: Any) -> bool:
    """Fitted on a bare array, an estimator warns about, or refuses, a DataFrame's column names."""
    if type(model).__module__.startswith("catboost"):
        return list(model.feature_names_) == [str(i) for i in range(len(model.feature_names_))]
    if type(model).__module__.startswith("lightgbm"):
        return list(model.feature_name_) == [f"Column_{i}" for i in range(model.n_features_)]
    return not hasattr(model, "feature_names_in_") and hasattr(model, "n_features_in_")


def _is_booster(model: Any) -> bool:
    root = type(model).__module__.partition(".")[0]
    return root in ("xgboost", "lightgbm") and type(model).__name__ == "Booster"


def _booster_head(model: Any) -> Head | None:
    """Boosters loaded from a file know neither labels nor names: classes are numbered from 0."""
    if type(model).__name__ == "CatBoost" and type(model).__module__.startswith("catboost"):
        return _catboost_head(model)
    if not _is_booster(model):
        return None
    objective, classes = booster_objective(model)
    if objective.startswith("rank") or objective == "lambdarank" or classes == 0:
        return Head(kind="values", names=("value",))
    return Head(kind="probabilities", classes=tuple(range(classes)))


def _catboost_head(model: Any) -> Head:
    classes = np.asarray(model.classes_).tolist()
    return Head(kind="scores", classes=tuple(classes)) if classes else Head(kind="values", names=("value",))


def booster_objective(model: Any) -> tuple[str, int]:
    """Objective of an XGBoost or LightGBM Booster and its number of classes, 0 for a regression."""
    import json

    if type(model).__module__.startswith("xgboost"):
        learner = json.loads(model.save_config())["learner"]
        objective = str(learner["objective"]["name"])
        count = int(learner["learner_model_param"]["num_class"])
        return objective, count if objective.startswith("multi:") else 2 * (objective == "binary:logistic")
    objective = str(model.dump_model(num_iteration=0).get("objective", "")).split(" ")[0]
    count = int(model.num_model_per_iteration())
    multi = objective in ("multiclass", "multiclassova")
    return objective, count if multi else 2 * (objective == "binary")


def _booster_answer(model: Any, frame: pd.DataFrame, head: Head) -> Any:
    if type(model).__module__.startswith("xgboost"):
        import xgboost

        names = model.feature_names
        rows: Any = frame.to_numpy() if names is None else frame
        raw = model.predict(xgboost.DMatrix(rows, enable_categorical=names is not None))
    else:
        named = model.feature_name() != [f"Column_{i}" for i in range(model.num_feature())]
        raw = model.predict(frame if named else frame.to_numpy())
    return np.stack([1 - raw, raw], axis=1) if head.kind == "probabilities" and raw.ndim == 1 else raw
