"""Choose which columns of a sample are fields of a model, and which of them may be missing, by asking the model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.core.errors import BadInput
from estiba.model.coding.coder import Coded, Coder
from estiba.model.schema.estimator_columns import imputed_columns, read_columns
from estiba.model.schema.infer import FieldOptions, infer
from estiba.model.schema.signature import Head, Signature

if TYPE_CHECKING:
    import pandas as pd

_COMPARED_ROWS = 200
"""Rows of the sample that the model is asked with all columns and without those that it does not read."""


def read_part(
    model: object, sample: pd.DataFrame, head: Head, keep: Collection[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The columns of the sample that the model reads, and a note of the others; all where it needs them.

    The model itself decides: without the columns it must give the rows of the sample the same answers.

    Args:
        keep: columns that the user says something of.
    """
    from estiba.model.estimators.outputs import answer

    read = read_columns(model, [str(name) for name in sample.columns])
    unread = [name for name in sample.columns if str(name) not in read and name not in keep]
    if not unread or len(unread) == len(sample.columns):
        return sample, ()
    part = sample.drop(columns=unread)
    rows = np.unique(np.linspace(0, len(sample) - 1, _COMPARED_ROWS).astype(int))
    try:
        answers = answer(model, part.iloc[rows], head)
    except Exception:  # every library has its own errors for rows without a column that it needs
        return sample, ()
    with suppress(Exception):  # a model that refuses the whole sample has no other answer
        if not np.array_equal(answers, answer(model, sample.iloc[rows], head), equal_nan=True):
            return sample, ()
    names = ", ".join(map(repr, unread[:12])) + (f" and {len(unread) - 12} more" if len(unread) > 12 else "")
    several = "columns are" if len(unread) > 1 else "column is"
    remedy = 'In Python, predict leaves out what it does not read; requests may have it with extra = "ignore".'
    return part, (f"The model does not read {names}: the {several} no part of its fields. {remedy}",)


def imputed_fields(
    model: object, sample: pd.DataFrame, signature: Signature, fields: Mapping[str, FieldOptions]
) -> frozenset[str]:
    """Fields that the sample has in every row, and of which the model itself fills in missing values."""
    from estiba.model.estimators.outputs import answer

    named = imputed_columns(model, [field.source for field in signature.fields])
    decided = {name for name, options in fields.items() if options.nullable is not None}
    asked = [
        field.source
        for field in signature.fields
        if field.source in named and not field.nullable and not {field.name, field.source} & decided
    ]
    if not asked:
        return frozenset()
    nullable = infer(model, sample, signature.head, fields=fields, imputed=asked)
    coder = Coder(nullable)
    try:
        first = coder.check_columns(plain_columns(sample.iloc[:1]), 1)
    except BadInput:  # said of the whole sample later
        return frozenset()

    def takes(name: str) -> bool:
        matrix = first.matrix.copy()
        matrix[0, [field.source for field in nullable.fields].index(name)] = math.nan
        try:
            return bool(np.isfinite(answer(model, coder.frame(Coded(matrix, first.texts)), signature.head)).all())
        except Exception:  # every library has its own errors for a missing value
            return False

    return frozenset(name for name in asked if takes(name))


def plain_columns(sample: pd.DataFrame) -> dict[str, Any]:
    """Columns as the coder takes them: numeric ones as arrays, others as lists of plain values."""
    columns: dict[str, Any] = {}
    for name in sample.columns:
        column = sample[name]
        plain = column.dtype.kind in "fiub" and isinstance(column.dtype, np.dtype)
        columns[str(name)] = column.to_numpy() if plain else column.astype(object).tolist()
    return columns
