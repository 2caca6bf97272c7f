"""Measure how right a model was, from the labels that became known for its predictions."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np

from estiba.core.errors import BadRequest
from estiba.gateway.answer_form import AnswerForm
from estiba.state.database import Database, Transaction

MAX_LABELS = 200_000
"""Labels that are measured; of more, the newest predictions are."""

MAX_COUNTED_ROWS = 1_000_000
"""Logged rows of one window that are counted; there may be more."""

MAX_WINDOWS = 400
CONFIDENCE_95 = 1.959964
SMALLEST_PROBABILITY = 1e-15
"""Smaller probabilities count as this one in the logarithmic loss, as scikit-learn does."""


class ClassQuality(msgspec.Struct, frozen=True):
    """Quality for one class. `precision` is None where it was never predicted, `recall` where it never occurred."""

    name: str
    labels: int
    predicted: int
    precision: float | None
    recall: float | None


class VersionQuality(msgspec.Struct, frozen=True, omit_defaults=True):
    """Quality of one version in one window; classifiers have the first members, models of values the last.

    Args:
        labels: number of predictions that have a label.
        accuracy: share of them that were right, and the interval that holds the true share in 95 of 100 cases (Wilson).
        positive: the class that `auc` and `brier` are about. brier: mean squared error of its probability.
        auc: probability that a row of the positive class has a higher probability than another row.
        mae, rmse, bias: mean absolute error, root of the mean squared error, mean of prediction minus label.
    """

    version: str
    labels: int
    accuracy: float | None = None
    accuracy_interval: tuple[float, float] | None = None
    classes: tuple[ClassQuality, ...] = ()
    positive: str = ""
    auc: float | None = None
    brier: float | None = None
    log_loss: float | None = None
    mae: float | None = None
    rmse: float | None = None
    bias: float | None = None


class Window(msgspec.Struct, frozen=True):
    """A span of time, by when predictions were made.

    Args:
        begin, end: ISO 8601, in UTC.
        logged: predictions of the model in the log, at most `MAX_COUNTED_ROWS`.
        versions: those that have labels.
    """

    begin: str
    end: str
    logged: int
    labels: int
    versions: tuple[VersionQuality, ...]


class Quality(msgspec.Struct, frozen=True):
    """Quality of a model by window, the oldest first. `truncated`: there were more than `MAX_LABELS` labels."""

    model: str
    windows: tuple[Window, ...]
    truncated: bool


class _Labelled(NamedTuple):
    """A prediction with its label. `at` is in microseconds since 1970."""

    at: int
    version: str
    digest: str
    label: Any
    predicted: Any
    probability: float | None


def quality(database: Database, model: str, *, since: float, window: float, now: float | None = None) -> Quality:
    """Measure the quality of a model in windows that end now.

    Args:
        database: the log of predictions.
        since: how far back, in seconds. window: length of a window, in seconds.
        now: in seconds since 1970; the time of the call by default.

    Raises:
        BadRequest: there would be too many windows.
    """
    count = max(math.ceil(since / window), 1)
    if count > MAX_WINDOWS:
        raise BadRequest(f"That would be {count:,} windows.", hint=f"Ask for longer windows, at most {MAX_WINDOWS}.")
    end = time.time() if now is None else now
    edges = [int((end - window * back) * 1e6) for back in range(count, -1, -1)]
    with database.transaction(write=False) as reading:
        labelled = _labelled(reading, model, edges)
        logged = [_count(reading, model, *edge) for edge in pairwise(edges)]
        forms = _forms(reading, model)
    truncated = len(labelled) > MAX_LABELS
    inside: list[list[_Labelled]] = [[] for _ in logged]
    for each in labelled[:MAX_LABELS]:
        inside[bisect_right(edges, each.at) - 1].append(each)
    windows = tuple(
        Window(_shown(begin), _shown(stop), rows, len(own), tuple(_by_version(own, forms)))
        for (begin, stop), rows, own in zip(pairwise(edges), logged, inside, strict=True)
    )
    return Quality(model, windows, truncated)


def _labelled(reading: Transaction, model: str, edges: Sequence[int]) -> list[_Labelled]:
    """Predictions with labels, the newest first."""
    statement = (
        "SELECT predicted_at, version, digest, label, predicted, probability FROM feedback"
        " WHERE model = ? AND newest = 1 AND predicted_at >= ? AND predicted_at < ?"
        " ORDER BY predicted_at DESC LIMIT ?"
    )
    lines = reading.execute(statement, (model, edges[0], edges[-1], MAX_LABELS + 1))
    decode = msgspec.json.decode
    return [_Labelled(int(at), v, d, decode(label), decode(said), p) for at, v, d, label, said, p in lines]


def _count(reading: Transaction, model: str, begin: int, end: int) -> int:
    where = "model = ? AND at >= ? AND at < ? AND variant <> 'shadow'"
    rows = f"SELECT 1 FROM prediction WHERE {where} LIMIT {MAX_COUNTED_ROWS}"
    return int(reading.execute(f"SELECT count(*) FROM ({rows}) AS counted", (model, begin, end))[0][0])


def _forms(reading: Transaction, model: str) -> dict[tuple[str, str], AnswerForm]:
    """The form of the answers of each version, by version and digest."""
    lines = reading.execute("SELECT version, digest, answer FROM deployment WHERE model = ? AND answer <> ''", (model,))
    return {(version, digest): msgspec.json.decode(form, type=AnswerForm) for version, digest, form in lines}


def _by_version(rows: Sequence[_Labelled], forms: dict[tuple[str, str], AnswerForm]) -> Iterable[VersionQuality]:
    by_version: defaultdict[tuple[str, str], list[_Labelled]] = defaultdict(list)
    for each in rows:
        by_version[each.version, each.digest].append(each)
    for key, own in sorted(by_version.items()):
        form = forms.get(key)
        if form is not None:
            yield _of_values(key[0], own) if form.kind == "value" else _of_classes(key[0], own, form)


def _of_values(version: str, rows: Sequence[_Labelled]) -> VersionQuality:
    known = [each for each in rows if each.predicted is not None]  # a value that is not finite is null in an answer
    if not known:
        return VersionQuality(version, len(rows))
    errors = np.array([each.predicted - each.label for each in known], np.float64)
    return VersionQuality(
        version,
        len(rows),
        mae=float(np.abs(errors).mean()),
        rmse=float(np.sqrt(np.square(errors).mean())),
        bias=float(errors.mean()),
    )


def _of_classes(version: str, rows: Sequence[_Labelled], form: AnswerForm) -> VersionQuality:
    pairs = Counter((each.label, each.predicted) for each in rows)
    count, right = len(rows), sum(number for (label, predicted), number in pairs.items() if label == predicted)
    return VersionQuality(
        version,
        count,
        accuracy=right / count,
        accuracy_interval=_wilson(right, count),
        classes=tuple(_of_class(name, pairs) for name in form.classes),
        **_of_probabilities(rows, form),
    )


def _of_class(name: Any, pairs: Mapping[tuple[Any, Any], int]) -> ClassQuality:
    """Quality for one class, from the number of rows by label and predicted class."""
    labels = sum(number for (label, _), number in pairs.items() if label == name)
    predicted = sum(number for (_, said), number in pairs.items() if said == name)
    both = pairs.get((name, name), 0)
    return ClassQuality(
        str(name), labels, predicted, both / predicted if predicted else None, both / labels if labels else None
    )


def _of_probabilities(rows: Sequence[_Labelled], form: AnswerForm) -> dict[str, Any]:
    """Quality of the probabilities of the positive class; empty without them."""
    known = [each for each in rows if each.probability is not None]
    if len(form.classes) != 2 or not known:
        return {}
    given = np.array([each.probability for each in known], np.float64)
    positive = np.array([str(each.label) == form.positive for each in known])
    kept = np.clip(given, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    losses = -np.log(np.where(positive, kept, 1 - kept))
    brier = float(np.square(given - positive).mean())
    return {"positive": form.positive, "brier": brier, "log_loss": float(losses.mean()), "auc": _auc(given, positive)}


def _auc(given: np.ndarray[Any, Any], positive: np.ndarray[Any, Any]) -> float | None:
    """Area under the curve, by ranks (Mann-Whitney); equal probabilities share theirs. None if a class is missing."""
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return None
    _, inverse, counts = np.unique(given, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, square = right / count, CONFIDENCE_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = CONFIDENCE_95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _shown(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
