"""Classifiers that answer several outputs at once: several targets, or several labels that a row may have."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from estiba.model.estimators.booster_outputs import INDICATOR
from estiba.model.estimators.estimator_facts import innermost, plain_label
from estiba.model.schema.signature import Head, Label

Numbers = npt.NDArray[np.float64]


def several_head(model: Any, labels: npt.NDArray[Any], rows: Any) -> Head | None:
    """The head of a classifier with several outputs; None for one with a single output, or for another answer.

    Args:
        labels: what the model's predict says of `rows`.
    """
    classes = _classes(model, labels)
    if classes is None:
        return None
    heads = []
    for i, (own, numbers) in enumerate(zip(classes, _numbers(model, rows, classes), strict=True)):
        kind: Literal["label", "scores", "probabilities"] = "label"
        if numbers is not None and len(own) > 1:
            kind = "scores" if numbers.shape[1] == 1 else "probabilities"
        heads.append(Head(kind=kind, name=f"output{i}", classes=own))
    return Head(kind="several", heads=tuple(heads))


def several_answer(model: Any, rows: Any, head: Head) -> list[Numbers]:
    """Probabilities or scores of each output that has any, with one column or one per class."""
    classes = [each.classes for each in head.heads]
    wanted = any(each.kind != "label" for each in head.heads)
    numbers = _numbers(model, rows, classes) if wanted else [None] * len(classes)
    count = len(rows)
    return [
        np.empty((count, 0)) if each.kind == "label" or block is None else np.asarray(block, np.float64)
        for each, block in zip(head.heads, numbers, strict=True)
    ]


def _classes(model: Any, labels: npt.NDArray[Any]) -> list[tuple[Label, ...]] | None:
    """The classes of each output; None for a model with a single output."""
    listed = model.classes_
    if isinstance(listed, (list, tuple)) and len(listed) and all(np.ndim(each) == 1 for each in listed):
        return [tuple(plain_label(c) for c in np.asarray(each).tolist()) for each in listed]
    if labels.ndim != 2 or labels.shape[1] < 2:
        return None
    return [INDICATOR] * labels.shape[1] if np.isin(labels.astype(float), INDICATOR).all() else None


def _numbers(model: Any, rows: Any, classes: list[tuple[Label, ...]]) -> list[Numbers | None]:
    """Of each output its probabilities, (n, classes), or scores, (n, 1); None where the model has only its label.

    scikit-learn has two forms of probabilities: a list with one matrix for each output, and one matrix with a column
    for each output, the probability of the second of two classes.
    """
    none: list[Numbers | None] = [None] * len(classes)
    if type(innermost(model)).__name__ == "StackingClassifier":
        return none  # its probabilities are those of the first class of each output
    if hasattr(model, "predict_proba"):
        answers = model.predict_proba(rows)
        if isinstance(answers, list):
            return [
                np.asarray(each) if np.shape(each)[1] == len(c) else None
                for each, c in zip(answers, classes, strict=True)
            ]
        second = _dense(answers)
        return [
            np.stack([1 - second[:, i], second[:, i]], axis=1) if len(c) == 2 else None for i, c in enumerate(classes)
        ]
    if hasattr(model, "decision_function"):
        scores = _dense(model.decision_function(rows))
        return [scores[:, i : i + 1] if len(c) == 2 else None for i, c in enumerate(classes)]
    return none


def _dense(answers: Any) -> Numbers:
    return np.asarray(answers.toarray() if hasattr(answers, "toarray") else answers, np.float64)
