"""Choose golden rows, store them in an artifact with the original model's answers, and prove a model on them.

The same rows can be predicted again at any time: after conversion, when an image is built, when a server loads the
model, or after a library was upgraded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadArtifact, ParityError
from estiba.core.suggest import shortened
from estiba.model.artifact.artifact import Parity
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.coding.predictions import positions
from estiba.model.schema.signature import UNSEEN, Field, Scalar, Signature

TOLERANCE = 1e-6
"""Largest difference accepted by default, absolute below 1 and relative above."""

TYPICAL, EXTREME, LEVELS, THRESHOLDS = 64, 128, 192, 64
"""The largest number of golden rows of each kind."""

Predict = Callable[[Coded], Matrix]


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows as a caller sends them, and the raw answers of the original model: shape (rows, width), null for NaN."""

    records: list[dict[str, Scalar | None]]
    answers: list[list[float | None]]

    @property
    def matrix(self) -> Matrix:
        return np.array([[math.nan if v is None else v for v in row] for row in self.answers], np.float64)


def seal(coder: Coder, coded: Coded, answers: Matrix) -> bytes:
    """Golden rows and their answers as the bytes of `golden.json`."""
    shown: list[list[float | None]] = [[v if math.isfinite(v) else None for v in row] for row in answers.tolist()]
    return msgspec.json.encode(Golden(coder.rows(coded), shown))


def unseal(content: bytes) -> Golden:
    """Return the golden rows in the content of a file; raise BadArtifact if it has none."""
    try:
        golden = msgspec.json.decode(content, type=Golden)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadArtifact(f"The golden rows cannot be read: {shortened(str(error))}") from error
    if not golden.records:
        raise BadArtifact("There are no golden rows, so that the model cannot be proven.")
    if len({len(answer) for answer in golden.answers}) > 1:
        raise BadArtifact("The answers to the golden rows are of different lengths.")
    if len(golden.records) != len(golden.answers):
        raise BadArtifact(f"There are {len(golden.records)} golden rows but {len(golden.answers)} answers.")
    return golden


def choose(
    coder: Coder, sample: Coded, predict: Predict | None = None, apart: float = 0.0, pairs: int = THRESHOLDS
) -> Coded:
    """Golden rows out of a coded sample: typical, extreme, missing, every level, an unseen level, beside thresholds.

    Args:
        sample: coded training rows, at least one.
        predict: a fast model that shows where answers jump; without it no rows are placed beside thresholds.
        apart: how far from such a jump rows are placed, as a share of the way between two sample rows.
        pairs: how many such jumps are looked for.
    """
    fields, rows = coder.fields, len(sample)
    typical = np.unique(np.linspace(0, rows - 1, min(TYPICAL, rows)).astype(int))
    parts = [sample.take(typical), sample.take(_extremes(fields, sample.matrix))]
    parts.append(_varied(fields, sample, typical))
    if predict is not None:
        parts.append(_with_odd_texts(coder, sample))
        parts.append(beside_thresholds(fields, sample, predict, apart, pairs))
    return _unique(join([part for part in parts if len(part)]))


ALL_ROWS = 10_000
"""A sample of at most so many rows is proven whole: a conversion can be wrong on one row in two hundred."""

MISSING_ROWS = 10_000
"""Rows with a missing value that are proven of a larger sample, besides ALL_ROWS spread over it."""

RARE_ROWS = 20
"""Rows of each level that are proven of a larger sample: all of them where the level is rare."""


def proof_rows(fields: Sequence[Field], sample: Coded) -> npt.NDArray[np.int_]:
    """Positions of the sample rows on which the packed model is compared with the original.

    All of a sample of at most ALL_ROWS. Of a larger one ALL_ROWS spread evenly, and besides them the rows with a
    missing value (evenly spread where they are more than MISSING_ROWS, but for each field at least RARE_ROWS),
    RARE_ROWS of each level, and the smallest and largest value of each number.
    """
    count = len(sample)
    if count <= ALL_ROWS:
        return np.arange(count)
    missing = np.isnan(sample.matrix)
    parts = [_spread(np.arange(count), ALL_ROWS), _spread(np.flatnonzero(missing.any(axis=1)), MISSING_ROWS)]
    parts.append(_extremes(fields, sample.matrix))
    for i, field in enumerate(fields):
        parts.append(_spread(np.flatnonzero(missing[:, i]), RARE_ROWS))
        if field.kind == "category":
            parts.append(_some_of_each(sample.matrix[:, i], RARE_ROWS))
    return np.unique(np.concatenate(parts))


def _spread(rows: npt.NDArray[np.int_], count: int) -> npt.NDArray[np.int_]:
    """At most `count` of the rows, evenly spread."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))] if len(rows) else rows


def _some_of_each(codes: Matrix, count: int) -> npt.NDArray[np.int_]:
    """The first `count` rows of each code."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], codes[order][1:] != codes[order][:-1]]))
    place = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return order[place < count]


def _extremes(fields: Sequence[Field], matrix: Matrix) -> np.ndarray[Any, Any]:
    found: list[int] = []
    for i, field in enumerate(fields):
        column = matrix[:, i]
        if field.kind in ("number", "integer", "timestamp") and not np.isnan(column).all():
            found += [int(np.nanargmin(column)), int(np.nanargmax(column))]
    return np.unique(np.array(found[:EXTREME], dtype=int))


def _varied(fields: Sequence[Field], sample: Coded, bases: np.ndarray[Any, Any]) -> Coded:
    """Typical rows with one value changed: missing, each level, an unseen level, the ends of the allowed range."""
    changes: list[tuple[int, float]] = []
    for i, field in enumerate(fields):
        if field.nullable and field.kind != "text":
            changes.append((i, math.nan))
        if field.kind == "category":
            if field.unseen == "other":
                changes.append((i, UNSEEN))
            changes += [(i, float(code)) for code in range(min(len(field.levels), LEVELS // 2))]
        changes += [(i, float(end)) for end in (field.minimum, field.maximum) if end is not None]
    changes = [changes[n] for n in np.unique(np.linspace(0, len(changes) - 1, min(LEVELS, len(changes))).astype(int))]
    varied = sample.take(np.resize(bases, len(changes)))
    matrix = varied.matrix.copy()
    for row, (column, value) in enumerate(changes):
        matrix[row, column] = value
    return Coded(matrix, varied.texts)


NEAR = 1e-7
"""Distance from a jump of a model that decides between rounded numbers: at the jump itself, the last bit decides."""


ODD_TEXTS = (
    "", " ", "a", "A b C", "\x00 NUL\x00inside\x1f", "x" * 3000,
    "don't U.S.A. e-mail@x.org, word_with_underscore: 42!",
    "\u00c0\u00c9\u00ce \u00f1and\u00fa \u00c7a \u00df \ufb01n \u00e6\u0153",
    "e\u0301te\u0301 a\u030angstro\u0308m \u0301alone",
    "\u0130stanbul I\u0131 \u017fi \u212aelvin \u1e9e \u03a3\u03a3 \u01c5",
    "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469 \U0001d54f\U0001d7d9",
    "tab\tnew\nline\r\n  two  spaces\u00a0nbsp\u2003\u2003em\u3000wide\u0085 ",
    "\u65e5\u672c\u8a9e\u30c6\u30ad \ud55c\uad6d\uc5b4 \u0627\u0644\u0639\u0631",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "123 \u0661\u0662\u0663 \u00b2\u00b3 \u2177 \u00bd",
)  # fmt: skip
"""Texts on which two ways to split words and to strip accents would differ."""


def _with_odd_texts(coder: Coder, sample: Coded) -> Coded:
    """The first row with odd texts in each text field, with two texts of the sample in one, and in upper case."""
    parts = [sample.take(np.array([], dtype=int))]
    for _, name in coder.text_fields:
        own = [text for text in sample.texts[name][:8] if text]
        texts = [*ODD_TEXTS, *(text.upper() for text in own), " ".join(own)]
        limit = coder.signature.field(name).max_length
        rows = sample.take(np.zeros(len(texts), dtype=int))
        rows.matrix[:, coder.signature.names.index(name)] = 0.0
        parts.append(Coded(rows.matrix, {**rows.texts, name: [text[:limit] for text in texts]}))
    return join(parts)


def beside_thresholds(
    fields: Sequence[Field], sample: Coded, predict: Predict, apart: float = 0.0, count: int = THRESHOLDS
) -> Coded:
    """Pairs of rows on either side of a jump of the model, one float64 step (one unit for integers) apart.

    `apart` moves numbers further away from the jump, by that share of the way between the sample rows; `count` is how
    many pairs of sample rows are looked between.

    A tree compares a number with a threshold; rounded differently, the same row takes the other branch. Bisecting
    between two sample rows that differ in one column finds such a place in any model, whatever stands before its trees.
    """
    numeric = [i for i, f in enumerate(fields) if f.kind in ("number", "integer")]
    rows = len(sample)
    if not numeric or rows < 2:
        return sample.take(np.array([], dtype=int))
    step = max(1, rows // count)
    bases = np.array([(n * step) % rows for n in range(count)])
    others = np.array([(n * step + rows // 2 + n) % rows for n in range(count)])
    columns = np.array([numeric[n % len(numeric)] for n in range(count)])
    low, high = sample.take(bases), sample.take(bases)
    below, above = low.matrix.copy(), high.matrix.copy()
    lines = np.arange(count)
    above[lines, columns] = sample.matrix[others, columns]
    whole = np.array([fields[c].kind == "integer" for c in columns])
    away = np.where(whole, 0.0, apart * (above - below)[lines, columns])
    start = predict(Coded(below, low.texts))
    end = predict(Coded(above, high.texts))
    for _ in range(70):
        a, b = below[lines, columns], above[lines, columns]
        middle = a + (b - a) / 2
        middle = np.where(whole, np.floor(middle), middle)
        if bool(np.all((middle == a) | (middle == b) | np.isnan(middle))):
            break
        trial = below.copy()
        trial[lines, columns] = middle
        answer = predict(Coded(trial, low.texts))
        same = np.all(answer == start, axis=1)
        below[same, columns[same]] = middle[same]
        above[~same, columns[~same]], end[~same] = middle[~same], answer[~same]
    jumps = np.abs(end - start).max(axis=1) > 1e-9
    jumps &= np.isfinite(below[lines, columns]) & np.isfinite(above[lines, columns])
    below[lines, columns] -= away
    above[lines, columns] += away
    lowest, highest = (reduce(sample.matrix[:, columns], axis=0) for reduce in (np.fmin.reduce, np.fmax.reduce))
    for moved in (below[lines, columns], above[lines, columns]):  # no further than the sample goes: there may be bounds
        jumps &= (moved >= lowest) & (moved <= highest)
    kept = np.flatnonzero(jumps)
    return join([Coded(below[kept], low.take(kept).texts), Coded(above[kept], low.take(kept).texts)])


def compare(
    signature: Signature, expected: Matrix, got: Matrix, *, tolerance: float = TOLERANCE, note: str = ""
) -> tuple[Parity, int | None]:
    """The proof, and the position of the first row that breaks it (None where all hold).

    Args:
        expected, got: raw answers of the original and of the packed model, both (rows, width).
        tolerance: largest accepted difference, absolute below 1 and relative above.
    """
    both_nan = np.isnan(expected) & np.isnan(got)
    with np.errstate(invalid="ignore"):
        difference = np.where(both_nan | (expected == got), 0.0, np.abs(got - expected))
    scaled = difference / np.maximum(1.0, np.abs(np.where(both_nan, 1.0, expected)))
    numbers = _numbers(signature)
    broken = ~(scaled[:, [column for column, _ in numbers]] <= tolerance).all(axis=1)
    equal = total = 0
    for output in signature.each:
        if output.signature.head.classes:
            agrees = positions(output, expected) == positions(output, got)
            equal, total = equal + int(agrees.sum()), total + len(agrees)
            broken |= ~agrees
    worst = {name: float(np.max(difference[:, column], initial=0.0)) for column, name in numbers}
    parity = Parity(
        rows=len(expected),
        max_abs_error=worst,
        labels_equal=equal,
        labels_total=total,
        tolerance=tolerance,
        note=note,
    )
    return parity, int(np.argmax(broken)) if broken.any() else None


def _numbers(signature: Signature) -> list[tuple[int, str]]:
    """Columns of an answer that are numbers, and not the position of a label, with names for people."""
    found = []
    for output in signature.each:
        head = output.signature.head
        names = head.names or (tuple(str(c) for c in head.classes) if head.columns > 1 else ("score",) * head.columns)
        prefix = f"{output.name}." if output.name and not head.names else ""
        found += [(output.start + i, prefix + name) for i, name in enumerate(names)]
    return found


def prove(coder: Coder, golden: Golden, predict: Predict, tolerance: float) -> Parity:
    """Asks the golden rows again.

    Raises:
        ParityError: an answer differs; names the first such row and column, both answers and the difference.
    """
    coded = coder.check(golden.records)
    expected, got = golden.matrix, predict(coded)
    got = np.where(np.isfinite(got), got, np.nan)  # as the answers are sealed
    if got.shape != expected.shape:
        raise ParityError(f"The model answers with shape {got.shape}; its golden rows have {expected.shape}.")
    if got.shape[1] != coder.signature.head.width:
        width = coder.signature.head.width
        raise ParityError(f"The model answers with shape {got.shape}; its signature describes {width} columns.")
    parity, first = compare(coder.signature, expected, got, tolerance=tolerance)
    if first is not None:
        raise ParityError(_difference(coder.signature, golden, got, first, tolerance))
    return parity


def _difference(signature: Signature, golden: Golden, got: Matrix, row: int, tolerance: float) -> str:
    numbers = _numbers(signature)
    columns = [column for column, _ in numbers]
    expected, got = golden.matrix[row][columns], got[:, columns]
    if np.array_equal(expected, got[row], equal_nan=True):
        return (
            f"Golden row {row} has another label than in training: {msgspec.json.encode(golden.records[row]).decode()}"
        )
    column = int(np.nanargmax(np.abs(got[row] - expected))) if np.isfinite(got[row] - expected).any() else 0
    return (
        f"Golden row {row} is answered with {got[row][column]:.9g} for {numbers[column][1]!r}, and was answered with "
        f"{expected[column]:.9g} in training (tolerance {tolerance:g}). The row: "
        + msgspec.json.encode(golden.records[row]).decode()
    )


def join(parts: Sequence[Coded]) -> Coded:
    """Coded rows one after the other."""
    texts = {name: [v for part in parts for v in part.texts[name]] for name in parts[0].texts}
    return Coded(np.concatenate([part.matrix for part in parts]), texts)


def _unique(coded: Coded) -> Coded:
    """Without rows that are there already, in order of first appearance."""
    seen: set[bytes] = set()
    kept = []
    for i, row in enumerate(coded.matrix):
        key = row.tobytes() + repr([values[i] for values in coded.texts.values()]).encode()
        if key not in seen:
            seen.add(key)
            kept.append(i)
    return coded.take(np.array(kept, dtype=int))
