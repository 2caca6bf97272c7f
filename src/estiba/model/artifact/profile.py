"""The training profile of a model: the distribution of each field and output, and background rows.

Drift is computed against the distributions, and explanations against the background rows. Everything is in coded form
(see `estiba.model.schema.signature`), so that it can be compared with the coded rows of a request as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.core.errors import BadArtifact
from estiba.model.artifact.artifact import Artifact
from estiba.model.coding.coder import Coded, Matrix
from estiba.model.coding.predictions import positions
from estiba.model.schema.signature import UNSEEN, Field, Head, NamedOutput, Signature

FILE = "profile.json"

SCHEMA = 1
"""The newest form of `profile.json` that this Estiba reads, and the one that it writes."""

MAX_FIELD_ROWS = 100_000
"""Rows from which the distributions of fields are taken; more are thinned out evenly."""

MAX_OUTPUT_ROWS = 10_000
"""Rows for whose outputs the model is asked."""

MIN_BINS, MAX_BINS, BINS_OF_ALL_FIELDS = 5, 20, 2_000
"""Bins of one field, and about how many all fields share: a model with 400 fields has 5 bins for each."""

MIN_LEVELS, MAX_LEVELS, LEVELS_OF_ALL_FIELDS = 10, 100, 2_000
"""Levels of one category field that are counted one by one, and about how many all category fields share."""

MIN_BACKGROUND_ROWS, MAX_BACKGROUND_ROWS, BACKGROUND_VALUES = 10, 100, 5_000
"""Background rows, and about how many values they hold in all."""

MAX_TEXT_CHARACTERS = 200
"""Longer texts are cut in background rows."""

MAX_OUTPUT_COLUMNS = 20
"""Classes or targets whose outputs have a distribution of their own: those that are predicted most often."""

MAX_DISTINCT_NUMBERS, MIN_ROWS_OF_A_NUMBER = 20, 5
"""A column with at most so many distinct numbers, each in so many rows on average, is counted number by number."""

OUTPUT_SLACK = 1e-6
"""Distance of edges from the outputs that they are made of, relative above 1: engines may differ in the last digit."""

RowSource = Literal["holdout", "sample"]
Predict = Callable[[Coded], Matrix]
Column = npt.NDArray[np.float64]


class Numbers(msgspec.Struct, frozen=True, kw_only=True, tag_field="form", tag="numbers"):
    """The distribution of numbers (of a text field: of its lengths in characters).

    Args:
        missing: rows without a value.
        edges: rising numbers, quantiles of the reference rows. Bin i holds `edges[i - 1] <= value < edges[i]`, so a
            value's bin is the number of edges that are not above it. A value that many rows share has a bin of its own.
        counts: rows by bin, one more than edges; the first and the last bin are open.
        minimum, maximum, mean, sd: of the values that are there, None without any; `sd` divides by their number.
    """

    missing: int
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    sd: float | None = None

    @property
    def constant(self) -> bool:
        return self.minimum is not None and self.minimum == self.maximum


class Levels(msgspec.Struct, frozen=True, kw_only=True, tag_field="form", tag="levels"):
    """The distribution of a category, a boolean, a label, or a number that has few values.

    Args:
        missing: rows without a value.
        values: rising codes: positions of levels or classes in the signature, 0 and 1, or the numbers themselves.
        counts: rows by value.
        other: rows with a value that is not in `values`, because there are too many.
        unseen: rows with a level that the signature does not have.
    """

    missing: int
    values: tuple[float, ...]
    counts: tuple[int, ...]
    other: int = 0
    unseen: int = 0

    @property
    def constant(self) -> bool:
        return sum(count > 0 for count in (*self.counts, self.other, self.unseen)) == 1


Distribution = Numbers | Levels


class OutputProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of the model's answers to the reference rows.

    Args:
        rows: how many were asked.
        labels: of a classifier, the labels as positions in the head's classes; None otherwise.
        columns: by class or target, the raw answers; of two classes only the positive one's, which says both.
        outputs: of a model with several outputs that are not all values, by name; the other members are empty then.
    """

    rows: int
    labels: Levels | None
    columns: dict[str, Numbers]
    outputs: dict[str, OutputProfile] = {}


class Background(msgspec.Struct, frozen=True, kw_only=True):
    """Some reference rows, or rows composed in their place: the coded row, None where missing, and texts by field."""

    rows: tuple[tuple[float | None, ...], ...]
    texts: dict[str, tuple[str | None, ...]] = {}

    @property
    def coded(self) -> Coded:
        matrix = np.array([[math.nan if v is None else v for v in row] for row in self.rows], np.float64)
        return Coded(matrix, {name: list(texts) for name, texts in self.texts.items()})


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The profile of the rows that a model was trained on, or of held-out ones.

    Args:
        source: `holdout` for rows that the model was not trained on, `sample` for those that it was packed with, which
            flatter its outputs.
        rows: how many the distributions of `fields` are taken from.
        fields: by field name, in the order of the signature.
    """

    schema: int = SCHEMA
    source: RowSource
    rows: int
    fields: dict[str, Distribution]
    outputs: OutputProfile
    background: Background

    @property
    def constant_fields(self) -> tuple[str, ...]:
        """The fields that have the same value in every reference row that has one."""
        return tuple(name for name, field in self.fields.items() if field.constant)


def build(
    signature: Signature, reference: Coded, predict: Predict, source: RowSource, *, background: Coded | None = None
) -> Profile:
    """The profile of some coded rows, at least one; the same rows and answers give the same profile.

    Args:
        background: rows out of which the background rows are chosen; by default the reference rows themselves.
    """
    rows = _thinned(reference, MAX_FIELD_ROWS)
    asked = _thinned(reference, MAX_OUTPUT_ROWS)
    return Profile(
        source=source,
        rows=len(rows),
        fields=distributions(signature.fields, rows),
        outputs=_outputs(signature, predict(asked)),
        background=_background(reference if background is None else background, len(signature.fields)),
    )


def encode(profile: Profile) -> bytes:
    """The bytes of `profile.json`."""
    return msgspec.json.encode(profile) + b"\n"


def read(artifact: Artifact) -> Profile | None:
    """The profile of an artifact; None where it was packed before there were profiles.

    Raises:
        BadArtifact: the file is not a profile, or one of a newer Estiba.
    """
    if all(entry.path != FILE for entry in artifact.manifest.files):
        return None
    path = artifact.file(FILE)
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=_Form).schema
        if schema > SCHEMA:
            hint = "Install a newer version of Estiba, from where you got this one."
            raise BadArtifact(f"{path} was written by a newer Estiba (form {schema}, known: {SCHEMA}).", hint=hint)
        return msgspec.json.decode(content, type=Profile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadArtifact(f"{path} cannot be read as a profile: {error}", hint="Pack the model again.") from error


class _Form(msgspec.Struct):
    schema: int


def _thinned(rows: Coded, most: int) -> Coded:
    if len(rows) <= most:
        return rows
    return rows.take(np.unique(np.linspace(0, len(rows) - 1, most).astype(int)))


def _share(least: int, most: int, total: int, parts: int) -> int:
    """The share of one part in a total, within limits."""
    return max(least, min(most, total // max(1, parts)))


def distributions(fields: tuple[Field, ...], rows: Coded) -> dict[str, Distribution]:
    """The distribution of each field in some coded rows, by field name."""
    categories = sum(field.kind == "category" for field in fields)
    bins = _share(MIN_BINS, MAX_BINS, BINS_OF_ALL_FIELDS, len(fields))
    levels = _share(MIN_LEVELS, MAX_LEVELS, LEVELS_OF_ALL_FIELDS, categories)
    profiles: dict[str, Distribution] = {}
    for i, field in enumerate(fields):
        column = rows.matrix[:, i]
        if field.kind == "category":
            profiles[field.name] = _codes(column, len(field.levels), levels)
        elif field.kind == "boolean":
            profiles[field.name] = _codes(column, 2, levels)
        elif field.kind == "text":
            lengths = [math.nan if text is None else float(len(text)) for text in rows.texts[field.name]]
            profiles[field.name] = _numbers(np.array(lengths), bins, whole=True)
        elif field.kind == "timestamp":
            profiles[field.name] = _numbers(column, bins)
        else:
            profiles[field.name] = _few(column) or _numbers(column, bins, whole=field.kind == "integer")
    return profiles


def _codes(column: Column, size: int, most: int) -> Levels:
    """Count codes from 0 to `size` - 1: all of them, or the most frequent and the rest together."""
    present = column[~np.isnan(column)]
    seen = present[present != UNSEEN].astype(np.int64)
    counts = np.bincount(seen, minlength=size)
    # A stable sort of the negated counts: of two levels with equal counts, the first in the signature is kept.
    kept = np.sort(np.argsort(-counts, kind="stable")[:most])
    return Levels(
        missing=len(column) - len(present),
        values=tuple(kept.astype(float).tolist()),
        counts=tuple(counts[kept].tolist()),
        other=int(counts.sum() - counts[kept].sum()),
        unseen=len(present) - len(seen),
    )


def _few(column: Column) -> Levels | None:
    """The counts of a column that has few distinct numbers, None for any other."""
    present = column[~np.isnan(column)]
    values, counts = np.unique(present, return_counts=True)
    if not len(values) or len(values) > MAX_DISTINCT_NUMBERS or len(values) * MIN_ROWS_OF_A_NUMBER > len(present):
        return None
    return Levels(missing=len(column) - len(present), values=tuple(values.tolist()), counts=tuple(counts.tolist()))


def _numbers(column: Column, bins: int, *, whole: bool = False, slack: float = 0.0) -> Numbers:
    """The distribution of a column in bins of about equal counts.

    Args:
        whole: every number is an integer, so that the end of a bin of one number is the next integer.
        slack: how far edges stay away from the numbers that they are made of, relative above 1.
    """
    present = np.sort(column[~np.isnan(column)])
    missing = len(column) - len(present)
    if not len(present):
        return Numbers(missing=missing, edges=(), counts=(0,))
    edges = _edges(present, bins, whole, slack)
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    mean, sd = _moments(present)
    return Numbers(
        missing=missing,
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        minimum=float(present[0]),
        maximum=float(present[-1]),
        mean=mean,
        sd=sd,
    )


def _edges(present: Column, bins: int, whole: bool, slack: float) -> Column:
    """Quantiles of sorted numbers. One that several quantiles meet gets an edge on either side."""
    positions = np.arange(1, bins) * len(present) // bins
    quantiles, met = np.unique(present[positions], return_counts=True)
    shared = quantiles[met > 1]
    with np.errstate(over="ignore"):
        if slack:
            lower = quantiles - slack * np.maximum(1, np.abs(quantiles))
            upper = shared + slack * np.maximum(1, np.abs(shared))
        else:
            lower, upper = quantiles, shared + 1 if whole else np.nextafter(shared, math.inf)
    edges: Column = np.unique(np.concatenate([lower, upper]))
    return edges[np.isfinite(edges)]


def _moments(present: Column) -> tuple[float | None, float | None]:
    """Mean and standard deviation, from exact sums so that machines agree; None where a float64 is too small."""
    try:
        mean = math.fsum(present.tolist()) / len(present)
        with np.errstate(over="ignore"):
            squares = ((present - mean) ** 2).tolist()
        sd = math.sqrt(math.fsum(squares) / len(present))
    except OverflowError:
        return None, None
    return mean, sd if math.isfinite(sd) else None


def _outputs(signature: Signature, raw: Matrix) -> OutputProfile:
    head = signature.head
    if head.kind == "several":
        chosen = signature.each[:MAX_OUTPUT_COLUMNS]
        parts = {output.name: _outputs(output.signature, raw[:, output.start : output.stop]) for output in chosen}
        return OutputProfile(rows=len(raw), labels=None, columns={}, outputs=parts)
    counted = _labels(signature, raw) if head.classes else None
    return OutputProfile(
        rows=len(raw),
        labels=counted,
        columns={
            name: _numbers(np.where(np.isfinite(raw[:, i]), raw[:, i], np.nan), MAX_BINS, slack=OUTPUT_SLACK)
            for i, name in output_columns(head, signature.positive, counted)
        },
    )


def _labels(signature: Signature, raw: Matrix) -> Levels:
    codes = positions(NamedOutput("", 0, signature), raw).astype(float)
    codes[~np.isfinite(raw).all(axis=1)] = np.nan
    return _codes(codes, len(signature.head.classes), MAX_LEVELS)


def output_columns(head: Head, positive: int, counted: Levels | None) -> list[tuple[int, str]]:
    """Position and name of the columns of an answer that have a distribution."""
    if head.columns == 0:
        return []
    if head.columns == 1:
        return [(0, head.names[0] if head.names else "score")]
    if len(head.classes) == 2:
        return [(positive, str(head.classes[positive]))]
    names: tuple[Any, ...] = head.names or head.classes
    order = list(range(len(names)))
    if counted is not None:
        frequency = dict(zip(counted.values, counted.counts, strict=True))
        order.sort(key=lambda i: -frequency.get(float(i), 0))
    return [(i, str(names[i])) for i in sorted(order[:MAX_OUTPUT_COLUMNS])]


def _background(reference: Coded, width: int) -> Background:
    chosen = _thinned(reference, _share(MIN_BACKGROUND_ROWS, MAX_BACKGROUND_ROWS, BACKGROUND_VALUES, width))
    return Background(
        rows=tuple(tuple(None if v != v else v for v in row) for row in chosen.matrix.tolist()),
        texts={
            name: tuple(None if text is None else text[:MAX_TEXT_CHARACTERS] for text in texts)
            for name, texts in chosen.texts.items()
        },
    )
