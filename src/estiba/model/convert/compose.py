"""Convert pipelines, column transformers and unions, which only arrange other steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from estiba.model.convert.columns import Column, Columns
from estiba.model.convert.context import Context, unsupported
from estiba.model.convert.sparse import kept


def pipeline(c: Context, pipe: Any, columns: Columns) -> Columns:
    """A Pipeline of transformers, one after the other."""
    for _, step in pipe.steps:
        columns = c.apply(step, columns)
    return columns


def union(c: Context, features: Any, columns: Columns) -> Columns:
    """A FeatureUnion: several transformers on the same columns, with weights."""
    weights = features.transformer_weights or {}
    parts: list[Column] = []
    for name, transformer in features.transformer_list:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        if weights.get(name) is not None:
            raise unsupported(features, "with transformer_weights has no rule")
        parts += c.apply(transformer, columns).columns
    return columns.same(tuple(parts), kept(features.transform(columns.sample)))


def column_transformer(c: Context, transformer: Any, columns: Columns) -> Columns:
    """A ColumnTransformer, with names, slices, masks, callables and a remainder."""
    output = kept(transformer.transform(columns.sample))
    parts: list[Column] = []
    weights = transformer.transformer_weights or {}
    positions = _positions(transformer, columns.sample)
    for name, step, chosen in transformer.transformers_:
        indices = [positions.get(i, -1) for i in map(int, transformer._transformer_to_input_indices.get(name, []))]
        if (isinstance(step, str) and step == "drop") or not indices:
            continue
        if weights.get(name) is not None:
            raise unsupported(transformer, "with transformer_weights has no rule")
        taken = columns.take(indices)
        if isinstance(chosen, str | int):  # one column without brackets is handed over as a Series
            taken = taken.same(taken.columns, taken.sample.iloc[:, 0])
        parts += c.apply(step, taken).columns
    if len(parts) != np.shape(output)[1]:
        raise unsupported(transformer, "arranges its columns in a way that no rule covers")
    return columns.same(tuple(parts), output)


def _positions(transformer: Any, sample: Any) -> dict[int, int]:
    """Positions in the sample of the columns of training: by name, as columns that are dropped may be missing there."""
    names = getattr(transformer, "feature_names_in_", None)
    if names is None or not hasattr(sample, "columns"):
        return {i: i for i in range(transformer.n_features_in_)}
    present = {str(name): i for i, name in enumerate(sample.columns)}
    return {i: present[str(name)] for i, name in enumerate(names) if str(name) in present}


STRUCTURES: dict[str, Callable[[Context, Any, Columns], Columns]] = {
    "Pipeline": pipeline,
    "FeatureUnion": union,
    "ColumnTransformer": column_transformer,
}
