"""Compose rows from levels, quantiles and words, so that an artifact holds no row of the data that it was made of.

Each value of a composed row is drawn for itself, from the distribution of its field alone: the same that the profile
and the signature hold in any case. So such a row is about nobody.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

import numpy as np

from estiba.model.artifact.profile import MAX_TEXT_CHARACTERS, Distribution, Levels, Numbers
from estiba.model.coding.coder import Coded, Coder, Matrix
from estiba.model.schema.signature import Field, Scalar

ROWS = 2_048
"""Composed rows, out of which golden and background rows are chosen."""

THRESHOLD_PAIRS = 96
"""Pairs of composed rows between which a threshold is looked for: more than of sample rows, as fewer find one."""

FEW_ROWS = 5
"""A level, or a word of a text, in fewer rows of the sample is rare: it may point to a person."""

MIN_DIFFERENT_ROWS = 32
"""The least number of composed rows that differ from all of the sample: where they are fewer, all are taken."""

_DAY_SECONDS = 86_400.0
_MAX_WORDS, _MAX_TEXT_WORDS = 5_000, 100
_SPELLING = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett")
"""Words for texts that have no words in common."""

_WORD = re.compile(r"\S+")


def compose(coder: Coder, distributions: Mapping[str, Distribution], sample: Coded) -> Coded:
    """Rows whose values are drawn independently of each other; the same sample gives the same rows.

    Args:
        distributions: by field name, as the profile has them.
        sample: coded rows, for the units of numbers and the words of texts that several rows have.
    """
    matrix = np.empty((ROWS, len(coder.fields)))
    texts: dict[str, list[str | None]] = {}
    for i, field in enumerate(coder.fields):
        draw = Random(i)
        column = sample.matrix[:, i]
        known = distributions[field.name]
        if field.kind == "text":
            texts[field.name] = _texts(draw, sample.texts[field.name])
            matrix[:, i] = 0.0
        elif isinstance(known, Levels):
            matrix[:, i] = _codes(draw, field, known)
        else:
            matrix[:, i] = _numbers(draw, known, _grain(field, column[~np.isnan(column)]))
            for row, end in ((2 * i, known.minimum), (2 * i + 1, known.maximum)):
                matrix[row % ROWS, i] = math.nan if end is None else end
        if field.nullable and known.missing and len(column):
            gone = np.array([draw.random() for _ in range(ROWS)]) < min(known.missing / _count(known), 0.5)
            matrix[gone, i] = math.nan
            if field.kind == "text":
                texts[field.name] = [None if out else t for t, out in zip(texts[field.name], gone, strict=True)]
    return Coded(matrix, texts)


def _count(known: Distribution) -> int:
    """The rows of a distribution."""
    return known.missing + sum(known.counts) + (known.other + known.unseen if isinstance(known, Levels) else 0)


def _codes(draw: Random, field: Field, known: Levels) -> Matrix:
    """Codes or numbers by their shares in the sample."""
    values, weights = list(known.values), [float(count) for count in known.counts]
    if known.other:  # levels that the profile does not count one by one
        others = sorted(set(map(float, range(len(field.levels)))) - set(values))
        values, weights = values + others, weights + [known.other / len(others)] * len(others)
    return np.array(draw.choices(values, weights, k=ROWS) if any(weights) else [math.nan] * ROWS, np.float64)


def _grain(field: Field, present: Matrix) -> float:
    """The unit of which all values of a column are multiples: a day, 1, or none, which is 0."""
    if field.kind == "timestamp":
        return 1.0 if (present % _DAY_SECONDS).any() else _DAY_SECONDS
    return 1.0 if field.kind == "integer" or not (present % 1).any() else 0.0


def _numbers(draw: Random, known: Numbers, grain: float) -> Matrix:
    """Numbers between neighbouring quantiles, so that none of them is anybody's but by chance."""
    low, high = known.minimum, known.maximum
    if low is None or high is None:
        return np.full(ROWS, math.nan)
    ends = np.array([low, *known.edges, high])
    bins = np.array(draw.choices(range(len(known.counts)), [float(count) for count in known.counts], k=ROWS))
    below, above = ends[bins], ends[bins + 1]
    share = np.array([draw.random() for _ in range(ROWS)])
    drawn = below * (1 - share) + above * share
    if grain:
        drawn = np.floor(drawn / grain) * grain
    clipped: Matrix = np.clip(drawn, low, high)
    return clipped


def _texts(draw: Random, own: Sequence[str | None]) -> list[str | None]:
    """Texts of as many words as those of the sample, each word one that several texts have."""
    split = [_WORD.findall(text) for text in own if text is not None]
    counts = Counter(word for words in split for word in set(words))
    common = [word for word, count in counts.most_common(_MAX_WORDS) if count >= FEW_ROWS] or list(_SPELLING)
    lengths = [min(len(words), _MAX_TEXT_WORDS) for words in split] or [1]
    return [" ".join(draw.choices(common, k=draw.choice(lengths))) for _ in range(ROWS)]


def without_rows_of(sample: Coded, rows: Coded) -> Coded:
    """The rows that equal no row of the sample."""
    own = _keys_among(sample, rows)
    return rows.take(np.array([i for i, key in enumerate(_keys(rows)) if key not in own], int))


def _keys_among(sample: Coded, rows: Coded) -> set[bytes]:
    """Keys of those sample rows whose every value is in some of the rows."""
    possible = np.ones(len(sample), bool)
    for i in range(rows.matrix.shape[1]):
        asked, column = rows.matrix[:, i], sample.matrix[:, i]
        possible &= np.isin(column, asked) | (np.isnan(column) & np.isnan(asked).any())
    return set(_keys(sample.take(np.flatnonzero(possible))))


def _keys(rows: Coded) -> list[bytes]:
    """Bytes that are equal for equal rows."""
    matrix = np.where(np.isnan(rows.matrix), np.nan, rows.matrix + 0.0)
    return [
        row.tobytes() + repr([values[i] for values in rows.texts.values()]).encode() for i, row in enumerate(matrix)
    ]


def examples(coder: Coder, rows: Coded) -> dict[str, Scalar]:
    """An example of each field that is nobody's: the most frequent level, and a short number in the middle."""
    chosen: dict[str, Scalar] = {}
    for i, field in enumerate(coder.fields):
        column = rows.matrix[:, i]
        present = column[~np.isnan(column)]
        if not len(present):
            continue
        row = int(np.flatnonzero(~np.isnan(column))[0])
        if field.kind in ("category", "boolean"):
            row = int(np.argmax(column == np.bincount(present.astype(int)).argmax()))
        elif field.kind != "text":
            row = int(np.argsort(column)[len(present) // 2])
        value = coder.rows(rows.take(np.array([row])))[0][field.name]
        if isinstance(value, float):
            short = float(f"{value:.3g}")
            low, high = (-math.inf if field.minimum is None else field.minimum), field.maximum
            value = short if low <= short <= (math.inf if high is None else high) else value
        if value is not None:
            chosen[field.name] = (
                value[:MAX_TEXT_CHARACTERS] if isinstance(value, str) and field.kind == "text" else value
            )
    return chosen


def rare_levels(fields: Sequence[Field], sample: Coded, behind: str = "") -> str:
    """A sentence about levels that few rows have, which the artifact and the model name in any case; else empty.

    Args:
        behind: the step of a pipeline that made these fields; empty for the fields of the model.
    """
    rare: list[str] = []
    for i, field in enumerate(fields):
        if field.kind == "category":
            codes = sample.matrix[:, i]
            counts = np.bincount(codes[codes >= 0].astype(int), minlength=len(field.levels))
            rare += [
                f"{field.name} = {field.levels[code]!r}" for code in np.flatnonzero((counts > 0) & (counts < FEW_ROWS))
            ]
    if not rare:
        return ""
    more = f" and {len(rare) - 3} more" if len(rare) > 3 else ""
    where = f" behind the step {behind!r}" if behind else ""
    return (
        f"Fewer than {FEW_ROWS} rows of the sample have {', '.join(rare[:3])}{more}{where}: the signature and the "
        "model name these levels. If they point to people, merge rare levels before training."
    )
