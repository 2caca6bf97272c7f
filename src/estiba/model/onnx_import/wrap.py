"""A user's own ONNX file as a model of ours: coded float64 rows `x` in, float64 answers `y` out, its graph between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from estiba.core.errors import BadProject, EstibaError
from estiba.model.coding.coder import Matrix
from estiba.model.onnx_import.inspect_graph import (
    NUMBERS,
    WHOLE,
    Input,
    Output,
    bare,
    inputs_of,
    output_of,
    read,
    spread,
)
from estiba.model.onnx_import.several_outputs import joined
from estiba.model.onnx_import.wrapping_nodes import MISSING_TEXT, build
from estiba.model.schema.infer import infer
from estiba.model.schema.signature import Field, Head

if TYPE_CHECKING:
    import pandas as pd

_PROBES = 64

_ROUNDING = 1e-4
"""Largest distance of a probability from 0 to 1 that float32 sums over many trees may leave."""


def wrap(
    model: bytes,
    sample: pd.DataFrame | None = None,
    names: Sequence[str] | None = None,
    chosen: Mapping[str, str] = MappingProxyType({}),
) -> tuple[bytes, Head, tuple[Field, ...]]:
    """A graph that the onnx engine runs, around the graph of any ONNX model for tables.

    It may take one matrix or several columns of numbers, booleans and strings, and answer a label with probabilities or
    scores (as a tensor or behind a ZipMap), an outlier score, or values.

    Args:
        model: the file's bytes, without data kept beside it.
        sample: rows that it was trained on; needed where it takes strings. Its columns give the fields their names,
            matched by the graph's own names or else by position.
        names: of the fields in the order of the graph's inputs, where they should be others.
        chosen: by name in an answer, the outputs of numbers to answer with; by default all.

    Returns:
        The new file; what its answer means; one field per column, in the order of the graph's inputs.

    Raises:
        EstibaError: the graph has no form that can be served, and why. BadProject: the sample does not fit it.
    """
    proto = read(model)
    inputs = inputs_of(proto, len(names) if names else None if sample is None else sample.shape[1])
    columns = _names(inputs, sample, names)
    frame = _synthetic(inputs, columns) if sample is None else _select(sample, columns, inputs)
    proto, parts = joined(proto, chosen)
    output = output_of(proto)
    fields = _fields(frame, inputs, seen=sample is not None)
    labels, raw = _run(proto, inputs, output, _typical(frame))
    if parts:
        head = _several(model, parts, _feeds(inputs, _typical(frame)), len(_typical(frame)))
    else:
        head = _head(labels, raw, output)
    return build(proto, inputs, output, (head, fields, raw.shape[1])), head, fields


def _several(model: bytes, parts: Mapping[str, str], feeds: dict[str, Any], rows: int) -> Head:
    """The columns of several outputs as values, named by their outputs."""
    from estiba.model.engines.onnx import session

    names: list[str] = []
    for name, answer in zip(parts, session(model).run(list(parts.values()), feeds), strict=True):
        width = answer.size // rows
        names += [name] if width == 1 else [f"{name}_{i}" for i in range(width)]
    return Head(kind="values", names=tuple(names))


def ask(model: bytes, frame: pd.DataFrame, head: Head, chosen: Mapping[str, str] = MappingProxyType({})) -> Matrix:
    """Return the answers of the unchanged file, with which the proof of `wrap` compares.

    Args:
        frame: rows with one column per field, in the order of the fields that `wrap` gave.
        chosen: as `wrap`.

    Returns:
        float64, shape (rows, head.width).
    """
    from estiba.model.engines.onnx import session

    proto = read(model)
    inputs = inputs_of(proto, frame.shape[1])
    proto, parts = joined(proto, chosen)
    if parts:
        answers = session(model).run(list(parts.values()), _feeds(inputs, frame))
        return np.concatenate([np.asarray(each, np.float64).reshape(len(frame), -1) for each in answers], axis=1)
    output = output_of(proto)
    shown = session(model).run([output.shown], _feeds(inputs, frame))[0]
    if isinstance(shown, list):
        shown = [[row[c] for c in head.classes] for row in shown]
    return _answer(np.asarray(shown, np.float64).reshape(len(frame), -1), head)


def _answer(raw: Matrix, head: Head) -> Matrix:
    """Two columns of scores as their half difference, which is the score itself where one mirrors the other.

    Probabilities that float32 sums put just outside of 0 to 1 are clipped.
    """
    if head.kind == "probabilities":
        raw = np.clip(raw, 0.0, 1.0)
    if head.kind == "scores" and head.width == 1 and raw.shape[1] == 2:
        return (raw[:, 1:] - raw[:, :1]) / 2
    return np.concatenate([1 - raw, raw], axis=1) if head.width == 2 and raw.shape[1] == 1 else raw


def _names(inputs: Sequence[Input], sample: pd.DataFrame | None, names: Sequence[str] | None) -> list[str]:
    count = sum(part.width for part in inputs)
    own = [name for part in inputs for name in _own_names(part, len(inputs))]
    given = [str(c) for c in names or (() if sample is None else sample.columns)] or own
    if names is None and set(own) <= set(given):
        return own
    if len(given) != count:
        raise BadProject(
            f"The ONNX model takes {count} columns, and {len(given)} were given: {', '.join(given[:20])}.",
            hint=f"Its own names for them are: {', '.join(own[:20])}.",
        )
    return given


def _own_names(part: Input, inputs: int) -> list[str]:
    if part.width == 1:
        return [part.name]
    return [f"x{i}" if inputs == 1 else f"{part.name}_{i}" for i in range(part.width)]


def _select(sample: pd.DataFrame, columns: list[str], inputs: Sequence[Input]) -> pd.DataFrame:
    """The sample's columns in the order of the fields, with the types that the graph takes."""
    import pandas as pd

    named = sample.set_axis([str(c) for c in sample.columns], axis=1)
    frame = named[columns] if set(columns) <= set(named.columns) else named.set_axis(columns, axis=1)
    made = {name: _typed(frame[name], part) for name, part in zip(columns, spread(inputs), strict=True)}
    return pd.DataFrame(made).reset_index(drop=True)


def _typed(column: pd.Series[Any], part: Input) -> pd.Series[Any]:
    if part.type == "string":
        return column
    if column.dtype.name == "category" and column.cat.categories.dtype.kind in "iuf":
        column = column.astype(np.float64)
    if part.type in (*WHOLE, "bool") and column.dtype.kind == "f":
        if not bool((column == column.round()).all()):
            raise BadProject(
                f"The ONNX input {part.name!r} is {part.type}; the sample's {column.name!r} is not all whole numbers.",
                hint="A missing value is no whole number either.",
            )
        return column.astype(np.int64)
    return column


def _synthetic(inputs: Sequence[Input], columns: list[str]) -> pd.DataFrame:
    """Rows to try a graph with when there is no sample; they show its types and nothing else."""
    import pandas as pd

    random = np.random.default_rng(0)
    values: dict[str, Any] = {}
    for name, part in zip(columns, spread(inputs), strict=True):
        if part.type == "string" and not part.levels:
            raise EstibaError(
                f"The ONNX input {part.name!r} takes strings, and the file does not list which.",
                hint="Pass a sample of rows that the model was trained on.",
            )
        if part.type == "string":
            values[name] = [part.levels[i % len(part.levels)] for i in range(_PROBES)]
        elif part.type in NUMBERS:
            values[name] = random.normal(size=_PROBES)
        else:
            values[name] = random.integers(0, 2, _PROBES).astype(bool if part.type == "bool" else np.int64)
    return pd.DataFrame(values)


def _typical(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows spread over a sample, and at least two, so that a graph with a fixed batch shows itself."""
    if not len(frame):
        raise BadProject("The sample has no rows.", hint="Pass rows that the model was trained on.")
    rows = np.linspace(0, len(frame) - 1, min(max(len(frame), 2), 1000)).astype(int)
    return frame.iloc[rows].reset_index(drop=True)


def _fields(frame: pd.DataFrame, inputs: Sequence[Input], *, seen: bool) -> tuple[Field, ...]:
    """One field per column. `seen`: the rows are real, and so are their ranges and examples."""
    inferred = infer(object(), frame, Head(kind="values", names=("value",))).fields
    fields = tuple(_field(field, part) for field, part in zip(inferred, spread(inputs), strict=True))
    return fields if seen else tuple(msgspec.structs.replace(field, observed=None, example=None) for field in fields)


def _field(field: Field, part: Input) -> Field:
    """The field of a column, inferred from the sample and limited to values that the graph accepts."""
    if part.type == "string":
        return _string_field(field, part)
    if field.kind not in ("number", "integer", "boolean"):
        raise BadProject(
            f"The ONNX input {part.name!r} takes numbers; the sample's {field.name!r} is {field.kind}.",
            hint="Encode it as it was encoded in training, or export the whole pipeline.",
        )
    if part.type in NUMBERS:
        return field
    if field.nullable:
        raise BadProject(f"The ONNX input {part.name!r} is {part.type}, and {field.name!r} is missing in the sample.")
    if part.type == "bool":
        return msgspec.structs.replace(field, kind="boolean", observed=None, example=bool(field.example), dtype="bool")
    return field


def _string_field(field: Field, part: Input) -> Field:
    if field.kind == "text" and not part.levels:
        raise BadProject(
            f"The field {field.name!r} is free text, which the onnx engine does not take.",
            hint="If it has few values, pass a sample in which they repeat.",
        )
    if field.kind not in ("category", "text") or not all(isinstance(level, str) for level in field.levels):
        raise BadProject(f"The ONNX input {part.name!r} takes strings; the sample's {field.name!r} is {field.kind}.")
    levels = (*part.levels, *(level for level in field.levels if level not in part.levels))
    return msgspec.structs.replace(field, kind="category", levels=levels, unseen="other" if part.forgiving else "error")


def _run(proto: Any, inputs: Sequence[Input], output: Output, frame: pd.DataFrame) -> tuple[list[Any] | None, Matrix]:
    """Labels (None where there are none) and raw scores, shape (rows, columns), of the graph itself."""
    from estiba.model.engines.onnx import session

    wanted = [output.scores, *([output.label] if output.label else [])]
    try:
        results = session(bare(proto, output).SerializeToString()).run(wanted, _feeds(inputs, frame))
        raw = np.asarray(results[0], np.float64).reshape(len(frame), -1)
    except EstibaError:
        raise
    except Exception as error:  # ONNX Runtime's types, or a shape that does not hold the rows
        raise EstibaError(
            f"The ONNX model fails on {len(frame)} rows: {error}",
            hint="Does it take any number of rows? Export it with an open first dimension.",
        ) from error
    return (np.ravel(results[1]).tolist() if output.label else None), raw


def _feeds(inputs: Sequence[Input], frame: pd.DataFrame) -> dict[str, Any]:
    feeds: dict[str, Any] = {}
    position = 0
    for part in inputs:
        columns = frame.iloc[:, position : position + part.width]
        position += part.width
        if part.type == "string":
            values = columns.astype(object).where(columns.notna(), MISSING_TEXT).to_numpy(dtype=object)
        else:
            values = columns.to_numpy(dtype=np.float64, na_value=np.nan).astype(
                {"float": "float32", "double": "float64"}.get(part.type, part.type)
            )
        feeds[part.name] = values[:, 0] if part.flat else values
    return feeds


def _head(labels: list[Any] | None, raw: Matrix, output: Output) -> Head:
    """The head of a graph, inferred from its answers to rows: each label must follow from the numbers of its row."""
    width = raw.shape[1]
    if labels is None:
        if _are_shares(raw):
            return Head(kind="probabilities", classes=tuple(range(width)))
        return Head(kind="values", names=("value",) if width == 1 else tuple(f"y_{i}" for i in range(width)))
    if width == 1:
        signs = [1 if score >= 0 else -1 for score in raw[:, 0].tolist()]
        if signs == labels and "prob" not in output.shown:
            return Head(kind="outlier", classes=(-1, 1))
        if _are_probabilities(raw):
            head = _classifier(labels, np.concatenate([1 - raw, raw], axis=1), output)
            if head is not None:
                return head
    head = _classifier(labels, raw, output)
    if head is None:
        raise EstibaError(
            f"The labels of the ONNX model do not follow from the numbers of its output {output.shown!r}.",
            hint="Export it with the probabilities or scores of every class, in the order of the classes.",
        )
    return head


def _classifier(labels: list[Any], raw: Matrix, output: Output) -> Head | None:
    """The head with the first list of classes that gives each row its label; None where no list does."""
    count = max(raw.shape[1], 2)
    chosen = (raw[:, 0] > 0).astype(int) if raw.shape[1] == 1 else np.argmax(raw, axis=1)
    for classes in (*output.classes, tuple(range(count))):
        if len(classes) == count and [classes[i] for i in chosen.tolist()] == labels:
            return Head(kind="probabilities" if _are_shares(raw) else "scores", classes=classes)
    return None


def _are_shares(raw: Matrix) -> bool:
    return raw.shape[1] > 1 and _are_probabilities(raw) and bool(np.allclose(raw.sum(axis=1), 1, atol=1e-4))


def _are_probabilities(raw: Matrix) -> bool:
    """Tell whether all numbers are from 0 to 1 but for rounding: a float32 forest may say 1.0000001 and -1e-7."""
    return bool(((raw >= -_ROUNDING) & (raw <= 1 + _ROUNDING)).all())
