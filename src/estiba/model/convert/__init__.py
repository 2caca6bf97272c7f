"""Convert a fitted estimator to an ONNX graph that answers exactly as it does.

The graph has one input, `x`: float64 (n, fields), the coded matrix of the signature; and one output, `y`: float64
(n, head.width). Preparation and models are computed in double and in the libraries' own order; categories become
tables that the fitted encoders themselves have filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from estiba.model.coding.coder import Coded, Coder
from estiba.model.convert.columns import Column, Columns, Key, NotConvertible, Slot, Table, Text
from estiba.model.convert.context import Context, Want
from estiba.model.convert.graph import DOUBLE, Array, Graph
from estiba.model.convert.models import emit
from estiba.model.convert.several import several_outputs
from estiba.model.convert.transforms import apply
from estiba.model.estimators.outputs import head_of
from estiba.model.schema.signature import UNSEEN, Field, Head, Signature
from estiba.model.schema.text_input import takes_texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Converted", "NotConvertible", "convert", "failing_step"]

SAMPLE_ROWS = 256
"""Rows of the sample that go through the original's steps to check the tables."""


@dataclass(frozen=True)
class Converted:
    """An ONNX file, the meaning of its output, and notes for the model card."""

    onnx: bytes
    head: Head
    notes: tuple[str, ...]


def convert(
    model: object, fields: Sequence[Field], sample: pd.DataFrame, head: Head | None = None, *, exact_first: bool = False
) -> Converted:
    """Convert a fitted model to ONNX.

    Args:
        model: a fitted scikit-learn estimator or Pipeline, or an XGBoost, LightGBM or CatBoost model.
        fields: the signature's fields, in the order of the sample's columns.
        sample: training rows with the columns and dtypes that the model was trained on.
        head: the meaning of the answer, by default the model's own; it says whether labels of `predict` are wanted.
        exact_first: compute the probability of the first class of two to the last bit as well.

    Returns:
        The file (the same bytes for the same model), the head and notes.

    Raises:
        NotConvertible: some part has no exact ONNX form.
        NoAnswer: the object is no model.
    """
    head = head or head_of(model, sample)
    graph = Graph(len(fields), exact_first=exact_first)
    context = Context(graph, emit, apply)
    columns = _ordered(model, _input(graph, fields, head, sample.head(SAMPLE_ROWS)), sample)
    if takes_texts(model):
        columns = columns.same(columns.columns, sample.head(SAMPLE_ROWS).iloc[:, 0])
    return Converted(graph.model(_answer(context, model, columns, head), head.width), head, tuple(context.notes))


def failing_step(
    steps: Sequence[Any], fields: Sequence[Field], sample: pd.DataFrame, head: Head
) -> tuple[int, NotConvertible] | None:
    """The first of the fitted transformers, one after the other, that has no exact form, and why; None where all do.

    Args:
        fields, sample: as for `convert`. head: any.
    """
    context = Context(Graph(len(fields)), emit, apply)
    position = 0
    try:
        columns = _ordered(steps[0], _input(context.graph, fields, head, sample.head(SAMPLE_ROWS)), sample)
        if takes_texts(steps[0]):
            columns = columns.same(columns.columns, sample.head(SAMPLE_ROWS).iloc[:, 0])
        for position, step in enumerate(steps):  # noqa: B007 - for the error
            columns = context.apply(step, columns)
    except NotConvertible as error:
        return position, error
    return None


def _answer(c: Context, model: object, columns: Columns, head: Head) -> str:
    """The columns of an answer, as the head says."""
    if head.kind == "several":
        return c.graph.concat(several_outputs(c, model, columns, head.heads))
    if head.kind == "label":
        return c.graph.cast(c.label(model, columns), DOUBLE)
    wants: dict[str, Want] = {"probabilities": "proba", "values": "value"}
    answer = c.emit(model, columns, wants.get(head.kind, "decision"))
    if not head.labelled:
        return answer
    label = c.label(model, columns, answer if head.columns > 1 else "")
    return c.graph.concat([answer, c.graph.cast(label, DOUBLE)])


def _input(g: Graph, fields: Sequence[Field], head: Head, sample: pd.DataFrame) -> Columns:
    """The signature's fields as columns: categories as tables of their own levels, everything else as numbers."""
    single = [i for i, f in enumerate(fields) if f.dtype.lower() == "float32"]
    x = "x"
    if len(single) == len(fields):
        x = g.as_float32("x")
    elif single:
        mask = np.isin(np.arange(len(fields)), single)[None, :]
        x = g.op("Where", g.const(mask, bool), g.as_float32("x"), "x")
    columns: list[Column] = []
    for i, field in enumerate(fields):
        slot = Slot(x, i, len(fields), np.asarray([0.0, 1.0]) if field.kind == "boolean" else None)
        if field.kind == "timestamp":
            raise NotConvertible(f"the field {field.name!r} is a timestamp, which only Python code can read")
        if field.kind == "text":
            columns.append(Text(field.name))
        else:
            columns.append(_levels(slot, i, fields, head, sample) if field.kind == "category" else slot)
    return Columns(tuple(columns), sample)


def _levels(slot: Slot, i: int, fields: Sequence[Field], head: Head, sample: pd.DataFrame) -> Table:
    field = fields[i]
    count = len(field.levels)
    key = Key(slot, count + 2, None, field.nullable)
    values = _rebuilt(i, fields, head)
    codes = {level: n + 1 for n, level in enumerate(field.levels)}
    column = sample.iloc[:, i]
    missing = column.isna().to_numpy()
    given = column.astype(object).tolist()
    rows = [count + 1 if gone else codes.get(v, 0) for v, gone in zip(given, missing, strict=True)]
    return Table(key, values, np.zeros(count + 2, bool), np.asarray(rows, np.int64))


def _rebuilt(i: int, fields: Sequence[Field], head: Head) -> Array:
    """The values that the python engine would pass to the model for an unseen level, each level, and a missing one."""
    codes = np.zeros((len(fields[i].levels) + 2, len(fields)))
    codes[:, i] = [UNSEEN, *range(len(fields[i].levels)), np.nan]
    texts: dict[str, list[str | None]] = {f.name: [""] * len(codes) for f in fields if f.kind == "text"}
    frame = Coder(Signature(fields=tuple(fields), head=head)).frame(Coded(codes, texts))
    values: Array = np.empty(len(codes), object)
    values[:] = frame.iloc[:, i].astype(object).tolist()
    return values


def _ordered(model: Any, columns: Columns, sample: pd.DataFrame) -> Columns:
    """Columns in the order in which the model was fitted; and as a bare array where it was fitted on one."""
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        places = {name: i for i, name in enumerate(sample.columns)}
        if all(n in places for n in names) and list(names) != list(sample.columns):
            return columns.take([places[n] for n in names])
        return columns
    if hasattr(model, "n_features_in_"):
        return columns.same(columns.columns, columns.sample.to_numpy())
    return columns
