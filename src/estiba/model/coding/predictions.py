"""Show an engine's answers as predictions, as the signature's outputs define them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.coding.coder import Matrix, Warned
from estiba.model.coding.kernel import compiled
from estiba.model.schema.rows import NOT_FINITE, Prediction
from estiba.model.schema.signature import Head, Signature


class Predictions:
    """Predictions of one model. Created once per loaded model; safe to share between threads."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._parts = _parts(signature)
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
        """The same by column, for files: probabilities become `probabilities.CLASS`. What is not finite is NaN."""
        outputs, head, positive = self.signature.outputs, self.signature.head, self.signature.positive
        classes = [str(c) for c in head.classes]
        columns: dict[str, npt.NDArray[Any]] = {}
        if head.classes and outputs.label:
            columns[outputs.label] = labels(head, raw, outputs.threshold, positive)
        raw = np.where(np.isfinite(raw), raw, np.nan)[:, : head.columns]
        if head.kind == "probabilities":
            if outputs.probability:
                columns[outputs.probability] = raw[:, positive]
            if outputs.probabilities:
                columns |= {f"{outputs.probabilities}.{c}": raw[:, i] for i, c in enumerate(classes)}
        elif head.kind == "values":
            names = head.names if len(head.names) > 1 else (outputs.value,)
            columns |= {name: raw[:, i] for i, name in enumerate(names)}
        elif outputs.score:
            names = tuple(f"{outputs.score}.{c}" for c in classes) if raw.shape[1] > 1 else (outputs.score,)
            columns |= {name: raw[:, i] for i, name in enumerate(names)}
        number = raw[:, positive] if head.kind == "probabilities" else raw[:, 0]
        for name, band in outputs.bands.items():
            steps = np.array([*band.labels, None], dtype=object)
            columns[name] = steps[np.where(np.isnan(number), -1, np.searchsorted(band.edges, number, side="right"))]
        return columns


def with_kept(kept: Mapping[str, Sequence[Any]], predictions: Sequence[Prediction]) -> list[Prediction]:
    """Predictions with the values of their rows that are handed through, in front."""
    rows = zip(*kept.values(), strict=True)
    return [{**dict(zip(kept, values, strict=True)), **shown} for values, shown in zip(rows, predictions, strict=True)]


def labels(head: Head, raw: Matrix, threshold: float | None = None, positive: int = 1) -> npt.NDArray[Any]:
    """The class of each row, shape (rows,), as the estimator's own `predict` would say unless a threshold is given.

    A number that is not finite is compared as NumPy does: the first NaN is the largest number, and none is above it.
    """
    classes: npt.NDArray[Any] = np.array(head.classes, dtype=object)
    if head.labelled:
        chosen = raw[:, -1].astype(int)
    elif head.kind == "outlier":
        chosen = (raw[:, 0] >= 0).astype(int)
    elif raw.shape[1] == 1:
        chosen = (raw[:, 0] > 0).astype(int)
    elif threshold is not None and len(classes) == 2:
        chosen = np.where(raw[:, positive] >= threshold, positive, 1 - positive)
    else:
        chosen = np.argmax(raw, axis=1)
    return np.take(classes, chosen)


NUMBER, NUMBERS, FIRST_LARGEST, AT_LEAST, ABOVE, FROM, BAND = range(7)

Part = tuple[Any, ...]
"""A name, one of these kinds, and its parameters, in the form that native/rows.c takes."""


def _parts(signature: Signature) -> tuple[Part, ...]:
    kind = signature.head.kind
    made = {"probabilities": _probabilities, "values": _values}.get(kind, _scores)
    return tuple(made(signature))


def _probabilities(signature: Signature) -> Iterator[Part]:
    outputs, classes, positive = signature.outputs, signature.head.classes, signature.positive
    if outputs.label and signature.head.labelled:
        yield _own_label(signature)
    elif outputs.label and outputs.threshold is not None and len(classes) == 2:
        limit = float(outputs.threshold)
        yield outputs.label, AT_LEAST, positive, limit, classes[positive], classes[1 - positive]
    elif outputs.label:
        yield outputs.label, FIRST_LARGEST, tuple(classes)
    if outputs.probability:
        yield outputs.probability, NUMBER, positive
    if outputs.probabilities:
        yield outputs.probabilities, NUMBERS, tuple(map(str, classes))
    yield from _bands(signature, positive)


def _scores(signature: Signature) -> Iterator[Part]:
    outputs, head = signature.outputs, signature.head
    single = head.columns == 1
    if outputs.label and head.labelled:
        yield _own_label(signature)
    elif outputs.label and single:
        yield outputs.label, FROM if head.kind == "outlier" else ABOVE, 0.0, head.classes[1], head.classes[0]
    elif outputs.label:
        yield outputs.label, FIRST_LARGEST, tuple(head.classes)
    if outputs.score:
        yield (outputs.score, NUMBER, 0) if single else (outputs.score, NUMBERS, tuple(map(str, head.classes)))


def _own_label(signature: Signature) -> Part:
    """The label by its position in the last column."""
    classes = signature.head.classes
    edges = tuple(position + 0.5 for position in range(len(classes) - 1))
    return signature.outputs.label, BAND, signature.head.columns, edges, tuple(classes)


def _values(signature: Signature) -> Iterator[Part]:
    names = signature.head.names if len(signature.head.names) > 1 else (signature.outputs.value,)
    yield from ((name, NUMBER, i) for i, name in enumerate(names))
    yield from _bands(signature, 0)


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
        case (_, column, edges, words):
            return None if (value := _finite(row[column])) is None else words[bisect_right(edges, value)]


def _nulls(shown: list[Prediction], rows: Iterable[int]) -> list[Warned]:
    """Warnings about the outputs of these rows that are null."""
    return [
        Warned(NOT_FINITE, row, name)
        for row in rows
        for name, value in shown[row].items()
        if value is None or (isinstance(value, dict) and None in value.values())
    ]


def _finite(value: float) -> float | None:
    return value if value - value == 0 else None
