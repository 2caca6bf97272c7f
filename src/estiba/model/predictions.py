"""Predictions: an engine's answer, shown as the signature's outputs say."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from estiba.model.coding import Matrix
from estiba.model.rows import Prediction
from estiba.model.signature import Head, Label, Signature


class Predictions:
    """Made once per loaded model; safe to share between threads."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self._one = _one_row(signature)

    def rows(self, raw: Matrix) -> list[Prediction]:
        """One object per row. A number that is not finite becomes null: JSON has no NaN."""
        one = self._one
        if not np.isfinite(raw).all():
            return [one([v if v - v == 0 else None for v in row]) for row in raw.tolist()]
        return [one(row) for row in raw.tolist()]

    def columns(self, raw: Matrix) -> dict[str, npt.NDArray[Any]]:
        """The same by column, for files: probabilities become `probabilities.CLASS`. What is not finite is NaN."""
        outputs, head, positive = self.signature.outputs, self.signature.head, self.signature.positive
        raw = np.where(np.isfinite(raw), raw, np.nan)
        classes = [str(c) for c in head.classes]
        columns: dict[str, npt.NDArray[Any]] = {}
        if head.classes and outputs.label:
            chosen = labels(head, raw, outputs.threshold, positive)
            chosen[np.isnan(raw).any(axis=1)] = None
            columns[outputs.label] = chosen
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
            words = np.array([*band.labels, None], dtype=object)
            columns[name] = words[np.where(np.isnan(number), -1, np.searchsorted(band.edges, number, side="right"))]
        return columns


def labels(head: Head, raw: Matrix, threshold: float | None = None, positive: int = 1) -> npt.NDArray[Any]:
    """The class of each row, shape (rows,), as the estimator's own `predict` would say unless a threshold is given."""
    classes: npt.NDArray[Any] = np.array(head.classes, dtype=object)
    if head.kind == "outlier":
        chosen = (raw[:, 0] >= 0).astype(int)
    elif raw.shape[1] == 1:
        chosen = (raw[:, 0] > 0).astype(int)
    elif threshold is not None and len(classes) == 2:
        chosen = np.where(raw[:, positive] >= threshold, positive, 1 - positive)
    else:
        chosen = np.argmax(raw, axis=1)
    return np.take(classes, chosen)


def _one_row(signature: Signature) -> Callable[[list[Any]], Prediction]:
    kind = signature.head.kind
    if kind == "probabilities":
        return _probabilities(signature)
    return _values(signature) if kind == "values" else _scores(signature)


def _probabilities(signature: Signature) -> Callable[[list[Any]], Prediction]:
    outputs, classes, positive = signature.outputs, signature.head.classes, signature.positive
    keys = tuple(str(c) for c in classes)
    choose = _chooser(classes, positive, outputs.threshold)
    bands = _bands(signature)

    def one(row: list[Any]) -> Prediction:
        shown: Prediction = {}
        if outputs.label:
            shown[outputs.label] = choose(row)
        if outputs.probability:
            shown[outputs.probability] = row[positive]
        if outputs.probabilities:
            shown[outputs.probabilities] = dict(zip(keys, row, strict=True))
        for name, band in bands:
            shown[name] = band(row[positive])
        return shown

    return one


def _chooser(classes: tuple[Label, ...], positive: int, threshold: float | None) -> Callable[[list[Any]], Label | None]:
    if threshold is not None and len(classes) == 2:
        yes, no = classes[positive], classes[1 - positive]
        return lambda row: None if row[positive] is None else yes if row[positive] >= threshold else no
    return lambda row: None if None in row else classes[row.index(max(row))]


def _scores(signature: Signature) -> Callable[[list[Any]], Prediction]:
    outputs, head = signature.outputs, signature.head
    classes = head.classes

    def one(row: list[Any]) -> Prediction:
        label: Label | None
        if None in row:
            label = None
        elif len(row) == 1:
            label = classes[int(row[0] >= 0 if head.kind == "outlier" else row[0] > 0)]
        else:
            label = classes[row.index(max(row))]
        shown: Prediction = {outputs.label: label} if outputs.label else {}
        if outputs.score:
            shown[outputs.score] = row[0] if len(row) == 1 else dict(zip(map(str, classes), row, strict=True))
        return shown

    return one


def _values(signature: Signature) -> Callable[[list[Any]], Prediction]:
    names = signature.head.names if len(signature.head.names) > 1 else (signature.outputs.value,)
    bands = _bands(signature)

    def one(row: list[Any]) -> Prediction:
        shown: Prediction = dict(zip(names, row, strict=True))
        for name, band in bands:
            shown[name] = band(row[0])
        return shown

    return one


def _bands(signature: Signature) -> tuple[tuple[str, Callable[[float | None], str | None]], ...]:
    def worded(edges: tuple[float, ...], words: tuple[str, ...]) -> Callable[[float | None], str | None]:
        return lambda value: None if value is None else words[bisect_right(edges, value)]

    return tuple((name, worded(band.edges, band.labels)) for name, band in signature.outputs.bands.items())
