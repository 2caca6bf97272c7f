"""Compute the figures of the portfolio's models, and choose thresholds on training rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    f1_score,
    mean_absolute_error,
    mean_absolute_percentage_error,
    precision_score,
    r2_score,
    recall_score,
    root_mean_squared_error,
)
from sklearn.metrics import roc_auc_score as roc_auc
from sklearn.model_selection import RepeatedStratifiedKFold
from threadpoolctl import threadpool_limits

Vector = npt.NDArray[np.float64]
Function = TypeVar("Function", bound=Callable[..., Any])


def one_thread(function: Function) -> Function:
    """A decorator: native libraries use one thread while `function` runs.

    Sums are then added up in one order on every machine. It is also faster where other programs want the cores:
    OpenMP threads spin while they wait for one another, and boosting waits after each of thousands of small steps.
    """
    wrapped: Function = threadpool_limits.wrap(limits=1)(function)
    return wrapped


def out_of_fold(model: Any, X: Any, y: Any, *, seed: int, repeats: int = 3) -> tuple[Vector, list[tuple[float, float]]]:
    """Out-of-fold probabilities of class 1: 5 stratified folds, `repeats` times.

    Args:
        model: an unfitted classifier; it is cloned. X: features, shaped (n, p). y: 0 or 1, shaped (n,).

    Returns:
        The mean out-of-fold probability of each row, shaped (n,), and (ROC-AUC, Brier score) of each fold.
    """
    target, total, figures = np.asarray(y), np.zeros(len(y)), []
    for fit, judge in RepeatedStratifiedKFold(n_splits=5, n_repeats=repeats, random_state=seed).split(X, target):
        fitted = clone(model).fit(X.iloc[fit], target[fit])
        p = fitted.predict_proba(X.iloc[judge])[:, 1]
        total[judge] += p
        figures.append((float(roc_auc(target[judge], p)), float(brier_score_loss(target[judge], p))))
    return total / repeats, figures


def best_threshold(y: Any, p: Vector) -> float:
    """The probability, in steps of 0.01, from which on calling a row positive gives the highest F1."""
    steps = np.round(np.arange(0.05, 0.96, 0.01), 2)
    return float(steps[int(np.argmax([f1_score(y, p >= step) for step in steps]))])


def calibration_error(y: Any, p: Vector, bins: int = 10) -> float:
    """The mean distance, 0 to 1, between predicted and seen share of positives over bins of equally many rows."""
    target = np.asarray(y)
    groups = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    return float(sum(len(g) * abs(p[g].mean() - target[g].mean()) for g in groups) / len(p))


def binary(y: Any, p: Vector, threshold: float) -> dict[str, float]:
    """Figures of a binary classifier; those that need a label use `threshold`, those at one half say so."""
    label = p >= threshold
    return {
        "roc_auc": float(roc_auc(y, p)),
        "average_precision": float(average_precision_score(y, p)),
        "brier": float(brier_score_loss(y, p)),
        "calibration_error": calibration_error(y, p),
        "f1": float(f1_score(y, label)),
        "precision": float(precision_score(y, label)),
        "recall": float(recall_score(y, label)),
        "accuracy": float(accuracy_score(y, label)),
        "f1_at_half": float(f1_score(y, p >= 0.5)),
    }


def prices(y: Any, predicted: Vector) -> dict[str, float]:
    """Figures of a price model: rmse and mae in the unit of `y`, mape as a share, r2 without a unit."""
    return {
        "rmse": float(root_mean_squared_error(y, predicted)),
        "mae": float(mean_absolute_error(y, predicted)),
        "r2": float(r2_score(y, predicted)),
        "mape": float(mean_absolute_percentage_error(y, predicted)),
    }


def spread(name: str, values: Iterable[float]) -> dict[str, float]:
    """The mean and the standard deviation of one figure over folds, as `cv_NAME_mean` and `cv_NAME_sd`."""
    numbers = np.fromiter(values, float)
    return {f"cv_{name}_mean": float(numbers.mean()), f"cv_{name}_sd": float(numbers.std(ddof=1))}


def intervals(
    compute: Callable[[Any, Any], dict[str, float]], y: Any, p: Vector, *, seed: int = 0, draws: int = 1000
) -> dict[str, tuple[float, float]]:
    """The 95 % percentile bootstrap interval (Efron 1979) over held-out rows of each figure in `compute(y, p)`."""
    generator, target = np.random.default_rng(seed), np.asarray(y)
    rows = (generator.integers(0, len(target), len(target)) for _ in range(draws))
    drawn = [compute(target[r], p[r]) for r in rows]
    bounds = {name: np.percentile([one[name] for one in drawn], [2.5, 97.5]) for name in drawn[0]}
    return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}
