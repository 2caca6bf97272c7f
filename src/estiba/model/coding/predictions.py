"""Show an engine's answers as predictions, as the signature's outputs define them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.coding.coder import Matrix, Warned
from estiba.model.coding.kernel import compiled
from estiba.model.schema.rows import NOT_FINITE, Prediction
from estiba.model.schema.signature import Head, NamedOutput, Signature

Read = Callable[[Prediction], Any]


class Predictions:
    """Predictions of one model. Created once per loaded model; safe to share between threads."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._parts = _parts(signature)
        self._columns = tuple((output.flat, output.start, output.stop) for output in signature.each)
        self._compiled = compiled()

    def rows(self, raw: Matrix) -> list[Prediction]:
        """One object per row. A number that is not finite becomes null, as JSON has none; a label is never null."""
        return self.with_warnings(raw)[0]

    def with_warnings(self, raw: Matrix) -> tuple[list[Prediction], Sequence[Warned]]:
        """One object per row, and a warning for each output that is null."""
        parts = self._parts
        if self._compiled is not None:
            odd: list[int] = []
            shown = self._compiled.show(np.ascontiguousarray(raw, np.float64), raw.shape[1], parts, odd)
            return shown, _nulls(shown, odd) if odd else ()
        shown = [{part[0]: _value(part, row) for part in parts} for row in raw.tolist()]
        return shown, _nulls(shown, np.flatnonzero(~np.isfinite(raw).all(axis=1)).tolist())

    def columns(self, raw: Matrix) -> dict[str, npt.NDArray[Any]]:
        """The same by column, for files: probabilities become `probabilities.CLASS`. What is not finite is NaN.

        With several outputs, parts are called `OUTPUT.PART`.
        """
        columns: dict[str, npt.NDArray[Any]] = {}
        for signature, start, stop in self._columns:
            columns |= _columns(signature, raw[:, start:stop])
        return columns


def readers(signature: Signature) -> dict[str, Read]:
    """Functions that take the value of a part out of a prediction, by the name of the part: `OUTPUT.PART`."""
    if signature.is_tensors:
        return {tensor.name: itemgetter(tensor.name) for tensor in signature.head.tensors}
    functions: dict[str, Read] = {}
    for output in signature.each:
        parts = [part[0] for part in _of_one(output.signature)]
        if output.is_plain:
            functions[output.name] = itemgetter(output.name)
        elif output.name:
            functions |= {f"{output.name}.{part}": _read_inner(output.name, part) for part in parts}
        else:
            functions |= {part: itemgetter(part) for part in parts}
    return functions | {name: itemgetter(name) for name in signature.keep}


def _read_inner(output: str, part: str) -> Read:
    return lambda prediction: prediction[output][part]


def _columns(signature: Signature, raw: Matrix) -> dict[str, npt.NDArray[Any]]:
    """Columns of a single output."""
    outputs, head, positive = signature.outputs, signature.head, signature.positive
    classes = [str(c) for c in head.classes]
    columns: dict[str, npt.NDArray[Any]] = {}
    if head.classes and signature.label_name:
        columns[signature.label_name] = labels(head, raw, outputs.threshold, positive)
    raw = np.where(np.isfinite(raw), raw, np.nan)[:, : head.columns]
    if head.kind == "probabilities":
        if outputs.probability:
            columns[outputs.probability] = raw[:, positive]
        if outputs.probabilities:
            columns |= {f"{outputs.probabilities}.{c}": raw[:, i] for i, c in enumerate(classes)}
    elif head.kind == "values":
        columns[outputs.value] = raw[:, 0]
    elif outputs.score and head.columns:
        names = tuple(f"{outputs.score}.{c}" for c in classes) if raw.shape[1] > 1 else (outputs.score,)
        columns |= {name: raw[:, i] for i, name in enumerate(names)}
    for name, band in outputs.bands.items():
        number = raw[:, positive] if head.kind == "probabilities" else raw[:, 0]
        steps = np.array([*band.labels, None], dtype=object)
        columns[name] = steps[np.where(np.isnan(number), -1, np.searchsorted(band.edges, number, side="right"))]
    return columns


def positions(output: NamedOutput, answers: Matrix) -> npt.NDArray[np.int_]:
    """The label of an output as a position among its classes, for each row of the answers of the whole model."""
    single = output.signature
    return _chosen(single.head, answers[:, output.start : output.stop], single.outputs.threshold, single.positive)


def with_kept(kept: Mapping[str, Sequence[Any]], predictions: Sequence[Prediction]) -> list[Prediction]:
    """Predictions with the values of their rows that are handed through, in front."""
    rows = zip(*kept.values(), strict=True)
    return [{**dict(zip(kept, values, strict=True)), **shown} for values, shown in zip(rows, predictions, strict=True)]


def labels(head: Head, raw: Matrix, threshold: float | None = None, positive: int = 1) -> npt.NDArray[Any]:
    """The class of each row, shape (rows,), as the estimator's own `predict` would say unless a threshold is given.

    A number that is not finite is compared as NumPy does: the first NaN is the largest number, and none is above it.

    Args:
        head: of a single output.
        raw: its columns.
    """
    return np.take(np.array(head.classes, dtype=object), _chosen(head, raw, threshold, positive))


def _chosen(head: Head, raw: Matrix, threshold: float | None, positive: int) -> npt.NDArray[np.int_]:
    if head.says_label:
        return raw[:, -1].astype(int)
    if head.kind == "outlier":
        return (raw[:, 0] >= 0).astype(int)
    if raw.shape[1] == 1:
        return (raw[:, 0] > 0).astype(int)
    if threshold is not None and len(head.classes) == 2:
        return np.where(raw[:, positive] >= threshold, positive, 1 - positive)
    chosen: npt.NDArray[np.int_] = np.argmax(raw, axis=1)
    return chosen


NUMBER, NUMBERS, FIRST_LARGEST, AT_LEAST, ABOVE, FROM, BAND, AT, GROUP = range(9)

Part = tuple[Any, ...]
"""A name, one of these kinds, and its parameters, in the form that native/rows.c takes."""


def _parts(signature: Signature) -> tuple[Part, ...]:
    if signature.is_single:
        return tuple(_of_one(signature))
    return tuple(_placed(output) for output in signature.each)


def _placed(output: NamedOutput) -> Part:
    """The one part of a prediction that shows one of several outputs."""
    parts = tuple(_of_one(output.signature))
    if len(parts) > 1:
        return output.name, GROUP, output.start, parts
    if parts[0][1] == NUMBER:
        return output.name, NUMBER, output.start + parts[0][2]
    return output.name, AT, output.start, parts[0]


def _of_one(signature: Signature) -> Iterator[Part]:
    """Parts of a single output, whose columns are counted from 0."""
    kind = signature.head.kind
    if kind == "probabilities":
        yield from _probabilities(signature)
    elif kind == "values":
        yield signature.outputs.value, NUMBER, 0
        yield from _bands(signature, 0)
    else:
        yield from _scores(signature)


def _probabilities(signature: Signature) -> Iterator[Part]:
    outputs, classes, positive = signature.outputs, signature.head.classes, signature.positive
    name = signature.label_name
    if name and signature.head.labelled:
        yield _own_label(signature)
    elif name and outputs.threshold is not None and len(classes) == 2:
        limit = float(outputs.threshold)
        yield name, AT_LEAST, positive, limit, classes[positive], classes[1 - positive]
    elif name:
        yield name, FIRST_LARGEST, tuple(classes)
    if outputs.probability:
        yield outputs.probability, NUMBER, positive
    if outputs.probabilities:
        yield outputs.probabilities, NUMBERS, tuple(map(str, classes))
    yield from _bands(signature, positive)


def _scores(signature: Signature) -> Iterator[Part]:
    outputs, head, name = signature.outputs, signature.head, signature.label_name
    single = head.columns == 1
    if name and head.says_label:
        yield _own_label(signature)
    elif name and single:
        yield name, FROM if head.kind == "outlier" else ABOVE, 0.0, head.classes[1], head.classes[0]
    elif name:
        yield name, FIRST_LARGEST, tuple(head.classes)
    if outputs.score and head.columns:
        yield (outputs.score, NUMBER, 0) if single else (outputs.score, NUMBERS, tuple(map(str, head.classes)))


def _own_label(signature: Signature) -> Part:
    """The label by its position in the last column."""
    classes = signature.head.classes
    edges = tuple(position + 0.5 for position in range(len(classes) - 1))
    return signature.label_name, BAND, signature.head.columns, edges, tuple(classes)


def _bands(signature: Signature, column: int) -> Iterator[Part]:
    for name, band in signature.outputs.bands.items():
        yield name, BAND, column, tuple(map(float, band.edges)), tuple(band.labels)


def _value(part: Part, row: list[float]) -> Any:
    """The value that a part shows for a row."""
    match part[1:]:
        case (0, column):
            return _finite(row[column])
        case (1, names):
            return dict(zip(names, map(_finite, row), strict=False))
        case (2, labels):
            return labels[int(np.argmax(row[: len(labels)]))]
        case (3, column, limit, yes, no):
            return yes if row[column] >= limit else no
        case (4 | 5 as kind, limit, yes, no):
            return yes if row[0] > limit or (kind == FROM and row[0] == limit) else no
        case (7, start, inner):
            return _value(inner, row[start:])
        case (8, start, inner):
            return {each[0]: _value(each, row[start:]) for each in inner}
        case (_, column, edges, words):
            return None if (value := _finite(row[column])) is None else words[bisect_right(edges, value)]


def _nulls(shown: list[Prediction], rows: Iterable[int]) -> list[Warned]:
    """Warnings about the outputs of these rows that are null."""
    return [Warned(NOT_FINITE, row, name) for row in rows for name, value in shown[row].items() if _has_null(value)]


def _has_null(value: Any) -> bool:
    return any(map(_has_null, value.values())) if isinstance(value, dict) else value is None


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None
