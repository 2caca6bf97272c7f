"""Tell whether an estimator takes texts instead of a table, and hand it those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

VECTORIZERS = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")


def takes_texts(model: Any) -> bool:
    """Check that a model's `predict` takes a list or Series of texts, as its first step is a text vectorizer."""
    if any(kind.__name__ in VECTORIZERS for kind in type(model).__mro__):
        return True
    return any(takes_texts(part) for part in _first_parts(model))


def rows_of(model: Any, frame: pd.DataFrame) -> Any:
    """The rows as the model's own methods take them: a Series for a model of texts."""
    return frame.iloc[:, 0] if frame.shape[1] == 1 and takes_texts(model) else frame


def _first_parts(model: Any) -> list[Any]:
    """The estimators inside a model that see its input as it is."""
    if hasattr(model, "steps"):
        return [step for _, step in model.steps[:1]]
    if hasattr(model, "transformer_list"):
        return [step for _, step in model.transformer_list]
    for name in ("best_estimator_", "estimator_", "regressor_"):
        if hasattr(model, name):
            return [getattr(model, name)]
    if hasattr(model, "calibrated_classifiers_"):
        return [model.calibrated_classifiers_[0].estimator]
    members = getattr(model, "estimators_", None)
    return list(members) if isinstance(members, list) and type(model).__name__.startswith(_JOINED) else []


_JOINED = ("Voting", "Stacking", "MultiOutput", "OneVsRest")
"""Beginnings of the names of estimators whose members all see the same rows."""
