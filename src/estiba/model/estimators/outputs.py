"""Read the original estimator's answers, as the float64 matrix that every engine returns."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.model.estimators.booster_outputs import (
    booster_answer,
    booster_head,
    catboost_values,
    is_catboost,
    is_plain_catboost,
    value_names,
)
from estiba.model.estimators.estimator_facts import (
    NoAnswer,
    estimator_type,
    has_classes,
    innermost,
    is_booster,
    is_regressor,
    plain_label,
    predicted,
    rows_for,
)
from estiba.model.estimators.multi_output import several_answer, several_head
from estiba.model.schema.signature import Head, Label

if TYPE_CHECKING:
    import pandas as pd

Matrix = npt.NDArray[np.float64]

PROBE_ROWS = 2
"""Rows of the sample that the model is asked for the form of its answers."""


def head_of(model: Any, sample: pd.DataFrame) -> Head:
    """Return the head of a model: the meaning of the columns of its answer.

    Args:
        model: a fitted estimator or Pipeline, or an XGBoost, LightGBM or CatBoost model.
        sample: rows that it takes.

    Raises:
        NoAnswer: it has no predict method, or knows one class only.
    """
    frame = sample.head(PROBE_ROWS)
    booster = booster_head(model, frame)
    if booster is not None:
        return booster
    if not hasattr(model, "predict"):
        raise NoAnswer(
            f"{type(model).__name__} has no predict method.",
            hint="Pack the fitted estimator, or a Pipeline that ends in one.",
        )
    rows = rows_for(model, frame)
    labels = _values(model, rows)
    if has_classes(model) and not is_regressor(model) and not _has_own_objective(model):
        return several_head(model, labels, rows) or _classifier_head(model)
    if estimator_type(model) == "outlier_detector" and hasattr(model, "decision_function"):
        return Head(kind="outlier", classes=(-1, 1))
    if estimator_type(model) in ("clusterer", "density_estimator") and (clusters := _cluster_head(model)).classes:
        return clusters
    return Head(kind="values", names=value_names(model, labels.reshape(len(frame), -1).shape[1]))


def answer(model: Any, frame: pd.DataFrame, head: Head) -> Matrix:
    """The model's answers to the rows of a DataFrame, float64 of shape (rows, head.width).

    Raises:
        NoAnswer: there are more or fewer numbers for each row than the head has.
    """
    heads = head.heads or (head,)
    if is_booster(model) and head.kind != "label":
        return _checked(model, booster_answer(model, frame, head), len(frame), head.width)
    rows = rows_for(model, frame)
    blocks = several_answer(model, rows, head) if head.heads else [_numbers(model, rows, head)]
    blocks = [_checked(model, block, len(frame), each.columns) for each, block in zip(heads, blocks, strict=True)]
    if any(each.says_label for each in heads) and (own := own_labels(model, frame, head)) is not None:
        pairs = zip(heads, blocks, own.T, strict=True)
        blocks = [np.column_stack([block, places]) if each.says_label else block for each, block, places in pairs]
    return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1))


def _checked(model: Any, raw: Any, rows: int, columns: int) -> Matrix:
    numbers = np.asarray(raw, np.float64)
    if numbers.size != rows * columns:
        raise NoAnswer(
            f"{type(model).__name__} answers {numbers.size / max(rows, 1):g} numbers for each row where {columns} "
            f"{'was' if columns == 1 else 'were'} expected."
        )
    return numbers.reshape(rows, columns)


def own_labels(model: Any, frame: pd.DataFrame, head: Head) -> npt.NDArray[np.int_] | None:
    """Labels that the model's own `predict` gives each row, as positions in the classes: shape (rows, outputs).

    None for a Booster of XGBoost or LightGBM whose `predict` says no label.

    Raises:
        NoAnswer: it says another number of labels, or one that is not among its classes.
    """
    if is_booster(model) and head.kind != "label":
        return None
    if is_booster(model):
        labels = np.asarray(booster_answer(model, frame, head)).astype(int)
    elif is_plain_catboost(model):
        labels = np.asarray(model.predict(rows_for(model, frame), prediction_type="Class"))
    else:
        labels = predicted(model, rows_for(model, frame))
    heads = head.heads or (head,)
    if labels.size != len(frame) * len(heads):
        raise NoAnswer(
            f"{type(model).__name__} says {labels.size / max(len(frame), 1):g} labels for each row where {len(heads)} "
            f"{'was' if len(heads) == 1 else 'were'} expected."
        )
    labels = labels.reshape(len(frame), len(heads))
    return np.stack([_positions(model, labels[:, i], each) for i, each in enumerate(heads)], axis=1)


def _positions(model: Any, labels: npt.NDArray[Any], head: Head) -> npt.NDArray[np.int_]:
    """Labels as positions among the classes; equal ones, such as 1.0 and 1, or ones of the same name."""
    by_value: dict[Any, int] = {label: position for position, label in reversed(list(enumerate(head.classes)))}
    by_name = {str(label): position for position, label in enumerate(head.classes)}
    found = [by_value.get(label, by_name.get(str(plain_label(label)), -1)) for label in labels.tolist()]
    if -1 in found:
        strange = plain_label(labels.tolist()[found.index(-1)])
        raise NoAnswer(f"{type(model).__name__} answers the label {strange!r}, which is not among its classes.")
    return np.array(found, dtype=int)


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


def with_labels(head: Head, labelled: bool, ruled: Collection[str] = ()) -> Head:
    """The head with, or without, the label of the estimator's own `predict` for each output that has numbers.

    Args:
        ruled: names of outputs whose label follows from a threshold of the user's.
    """
    if head.heads:
        heads = (with_labels(each, labelled and each.name not in ruled) for each in head.heads)
        return msgspec.structs.replace(head, heads=tuple(heads))
    return msgspec.structs.replace(head, labelled=labelled and bool(head.classes) and head.kind != "label")


def follows(model: Any) -> bool:
    """Is the model's `predict` known to follow from its probabilities or scores?"""
    inner = innermost(model)
    if type(inner).__name__ == "StackingClassifier":
        return follows(inner.final_estimator_)
    if type(inner).__name__ in ("SVC", "NuSVC"):
        return len(inner.classes_) == 2 and not inner.probability
    if type(inner).__name__ in ("SGDClassifier", "OneVsRestClassifier") and hasattr(inner, "predict_proba"):
        return len(inner.classes_) == 2  # scores above 37 are all the probability 1, and predict compares the scores
    return is_booster(inner) or type(inner).__name__ in _PLAIN.split()


def own_threshold(model: Any) -> tuple[float, Label | None] | None:
    """The probability from which the model's own `predict` says the positive class, and that class if it is named.

    None for a model without a threshold of its own. Source: scikit-learn's FixedThresholdClassifier and
    TunedThresholdClassifierCV, and CatBoost's set_probability_threshold.
    """
    inner = innermost(model)
    if type(inner).__name__ == "CatBoostClassifier":
        chosen = float(inner.get_probability_threshold()) if len(inner.classes_) == 2 else 0.5
        return None if chosen == 0.5 else (chosen, None)
    if type(inner).__name__ not in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
        return None
    if getattr(inner, "response_method", "auto") == "decision_function":
        return None
    threshold = getattr(inner, "best_threshold_", getattr(inner, "threshold", "auto"))
    label = getattr(inner, "pos_label", None)
    return (0.5 if threshold == "auto" else float(threshold)), None if label is None else plain_label(label)


def _numbers(model: Any, rows: Any, head: Head) -> Any:
    """The numbers of a single output."""
    match head.kind:
        case "probabilities":
            return model.predict_proba(rows)
        case "scores":
            return _scores(model, rows, head)
        case "outlier":
            return model.decision_function(rows)
        case "label":
            return np.empty((len(rows), 0))
        case _:
            return _values(model, rows)


def _values(model: Any, rows: Any) -> Any:
    if is_catboost(model):
        return np.asarray(catboost_values(model, rows))
    if _has_own_objective(model):
        return np.asarray(model.predict(rows, raw_score=True))  # as without, but without its warning
    return predicted(model, rows)


def _scores(model: Any, rows: Any, head: Head) -> Any:
    if hasattr(model, "decision_function"):
        return model.decision_function(rows)
    if not _is_hard_vote(model):  # a classifier that says its label and nothing else
        labels = np.asarray(model.predict(rows))
        columns = np.stack([labels == c for c in model.classes_], axis=1)
        return columns[:, 1] - 0.5 if head.width == 1 else columns
    votes = model.transform(rows)
    weights = innermost(model)._weights_not_none or [1.0] * votes.shape[1]
    count = np.stack([((votes == c) * weights).sum(axis=1) for c in range(len(model.classes_))], axis=1)
    # A tie goes to the first class, as in scikit-learn, because only what is above 0 goes to the second.
    return count[:, 1] - count[:, 0] if head.width == 1 else count


def _is_hard_vote(model: Any) -> bool:
    inner = innermost(model)
    return type(inner).__name__ == "VotingClassifier" and inner.voting == "hard"


def _classifier_head(model: Any) -> Head:
    labels = tuple(plain_label(c) for c in np.asarray(model.classes_).tolist())
    if len(labels) < 2:
        raise NoAnswer(
            f"{type(model).__name__} knows one class only: {labels[0]!r}.",
            hint="Train it on rows of at least two classes.",
        )
    sure = hasattr(model, "predict_proba") and not _clips(innermost(model))
    return Head(kind="probabilities" if sure else "scores", classes=labels)


def _cluster_head(model: Any) -> Head:
    """Clusters by their numbers: probabilities for a mixture, the label alone for others; no classes if unknown."""
    inner = innermost(model)
    if hasattr(model, "predict_proba") and hasattr(inner, "n_components"):
        return Head(kind="probabilities", classes=tuple(range(int(inner.n_components))), clusters=True)
    found = set(np.unique(getattr(inner, "labels_", ())).astype(int).tolist())
    found |= set(range(len(getattr(inner, "cluster_centers_", ()))))
    return Head(kind="label", classes=tuple(sorted(found)), clusters=True)


def _has_own_objective(model: Any) -> bool:
    """A LightGBM classifier with an objective of the user's own, which answers neither labels nor probabilities."""
    inner = innermost(model)
    return type(inner).__module__.startswith("lightgbm") and callable(getattr(inner, "objective_", None))


def _clips(model: Any) -> bool:
    """True for a model whose probabilities are often equal, so that only its scores give the label: modified Huber."""
    return getattr(model, "loss", None) == "modified_huber" and len(model.classes_) > 2
