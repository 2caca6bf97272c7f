"""Convert IterativeImputer, which predicts each missing number from the others, in the order of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from estiba.model.convert.columns import Column, Columns, slots
from estiba.model.convert.context import Context, unsupported
from estiba.model.convert.graph import DOUBLE

MAX_STEPS = 300
"""Predictions of all rounds together. A graph of more is larger and slower than the original."""


def iterative_imputer(c: Context, imputer: Any, columns: Columns, output: Any) -> Columns:
    """IterativeImputer on numbers, without drawing from the posterior."""
    steps = imputer.imputation_sequence_ if imputer.n_iter_ else []
    if imputer.sample_posterior:
        raise unsupported(imputer, "with sample_posterior=True answers at random")
    if len(steps) > MAX_STEPS:
        raise unsupported(imputer, f"predicts {len(steps)} times for each row, more than a graph should hold")
    g = c.graph
    kept = _kept(imputer)
    x = c.matrix(columns.take(kept))
    missing, names = g.op("IsNaN", x), [g.columns(x, [i], len(kept)) for i in range(len(kept))]
    gone = [g.columns(missing, [i], len(kept)) for i in range(len(kept))]
    fills = np.asarray(imputer.initial_imputer_.statistics_, np.float64)[kept]
    filled = [g.op("Where", m, g.const(v), n) for m, v, n in zip(gone, fills, names, strict=True)]
    for step in steps:
        i = int(step.feat_idx)
        others = g.concat([filled[int(j)] for j in step.neighbor_feat_idx])
        given = Columns(slots(others, len(step.neighbor_feat_idx)), np.zeros((1, len(step.neighbor_feat_idx))))
        low, high = (float(np.asarray(bound)[i]) for bound in (imputer._min_value, imputer._max_value))
        guess = g.op("Clip", c.emit(step.estimator, given, "value"), g.const(low), g.const(high))
        filled[i] = g.op("Where", gone[i], guess, filled[i])
    imputed: list[Column] = [slot for tensor in filled for slot in slots(tensor, 1)]
    if imputer.add_indicator:
        flagged = [int(i) for i in imputer.indicator_.features_]
        flags = g.cast(g.op("IsNaN", c.matrix(columns.take(flagged))), DOUBLE)
        imputed += slots(flags, len(flagged))
    return columns.same(tuple(imputed), output)


def _kept(imputer: Any) -> list[int]:
    """The columns that are not empty in training."""
    if imputer.missing_values == imputer.missing_values:
        raise unsupported(imputer, "for a missing value other than NaN has no rule")
    statistics = np.asarray(imputer.initial_imputer_.statistics_, np.float64)
    if imputer.keep_empty_features and np.isnan(statistics).any():
        raise unsupported(imputer, "with keep_empty_features has no rule")
    return [int(i) for i in np.flatnonzero(~np.isnan(statistics))]
