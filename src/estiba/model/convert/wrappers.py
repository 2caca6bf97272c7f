"""Convert estimators that hand their rows to one fitted estimator: feature elimination, and imbalanced-learn's."""

from __future__ import annotations

from typing import Any

from estiba.model.convert.columns import Columns
from estiba.model.convert.context import Context, Want, unsupported


def feature_elimination(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """RFE and RFECV as the last step: the inner estimator, on the columns that were kept."""
    kept = [int(i) for i in model.get_support(indices=True)]
    taken = columns.take(kept)
    return c.emit(model.estimator_, columns.same(taken.columns, model.transform(columns.sample)), want)


def resampling_pipeline(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """imbalanced-learn's Pipeline: its samplers (SMOTE and the like) change rows in training only."""
    for _, step in model.steps[:-1]:
        if not hasattr(step, "fit_resample"):
            columns = c.apply(step, columns)
    return c.emit(model.steps[-1][1], columns, want)


def resampling_transformers(c: Context, pipe: Any, columns: Columns) -> Columns:
    """imbalanced-learn's Pipeline of transformers and samplers."""
    for _, step in pipe.steps:
        if not hasattr(step, "fit_resample"):
            columns = c.apply(step, columns)
    return columns


def easy_ensemble(c: Context, model: Any, columns: Columns, want: Want) -> str:
    """imbalanced-learn's EasyEnsembleClassifier and BalancedBaggingClassifier: the mean of their members."""
    if want != "proba":
        raise unsupported(model, "has scores for which there is no rule")
    members = zip(model.estimators_, model.estimators_features_, strict=True)
    answers = [c.emit(e, columns.take(list(map(int, f))), want) for e, f in members]
    total = answers[0] if len(answers) == 1 else c.graph.op("Sum", *answers)
    return c.graph.op("Div", total, c.graph.const(float(len(answers))))
