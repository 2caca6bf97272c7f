"""Count coded rows and raw answers by the bins of a profile.

All counts of a model are one vector of integers, so that those of slices, workers and servers add up. Each part, a
field or an output, has its bins, and then three cells: missing, unseen, and outside the range of the reference. Rows
outside are in a bin too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.model.artifact.profile import Distribution, Levels, Numbers, OutputProfile, Profile, output_columns
from estiba.model.coding.coder import Coded, Matrix
from estiba.model.coding.predictions import positions
from estiba.model.schema.signature import UNSEEN, Field, NamedOutput, Signature

Counts = npt.NDArray[np.int64]
Sums = npt.NDArray[np.float64]

MISSING, UNSEEN_CELL, OUTSIDE, EXTRA_CELLS = 0, 1, 2, 3
"""Positions of the cells behind the bins of a part, and their number."""

Kind = Literal["number", "text", "timestamp", "levels", "output", "label"]


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A field or an output, and how its values are counted.

    Args:
        name: of the field; of an output `output:NAME`.
        kind: `text` counts lengths; `levels` are those of categories, booleans and numbers with few values.
        column: position in the coded rows; of outputs in the model's raw answers.
        edges: of bins, as `Numbers` has them. values: codes that have a bin of their own; the last bin has all others.
        labels: of `values`, for people.
        start: position of its first cell among all counts.
        minimum, maximum: of the reference; None where no value is outside.
        width: of a label: columns of the answer that it is taken from, from `column` on.
    """

    name: str
    kind: Kind
    column: int
    edges: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    start: int = 0
    minimum: float | None = None
    maximum: float | None = None
    width: int = 0
    is_numeric: bool = True

    @property
    def by_level(self) -> bool:
        """True if its bins are levels, without an order that matters."""
        return self.kind in ("levels", "label")

    @property
    def bins(self) -> int:
        return len(self.values if self.by_level else self.edges) + 1

    @property
    def size(self) -> int:
        """The number of its cells."""
        return self.bins + EXTRA_CELLS

    @property
    def is_output(self) -> bool:
        return self.kind in ("output", "label")


class Counted(NamedTuple):
    """Counts of some groups of rows: `cells` of shape (groups, cells), `sums` of values of shape (groups, parts)."""

    cells: Counts
    sums: Sums

    def __add__(self, other: object) -> Counted:
        assert isinstance(other, Counted)
        return Counted(self.cells + other.cells, self.sums + other.sums)


class Layout:
    """The parts of a model, and how its rows are counted."""

    def __init__(self, parts: tuple[Part, ...], signature: Signature | None = None) -> None:
        """Args: signature: needed to count rows, not to read counts."""
        self.parts = parts
        self._signature = signature
        self.size = sum(part.size for part in parts)
        self._starts = np.array([part.start for part in parts], np.int64)

    @cached_property
    def _outputs(self) -> dict[int, Signature]:
        """The signature of each output, by its first column."""
        assert self._signature is not None
        return {output.start: output.signature for output in self._signature.each}

    def count(self, coded: Coded, raw: Matrix | None, group: npt.NDArray[np.int64], groups: int) -> Counted:
        """Count rows.

        Args:
            raw: the answers; None counts fields only, as if no answer was given.
            group: of each row, 0 to `groups` - 1.
        """
        rows = len(coded)
        cells = np.empty((len(self.parts), rows), np.int64)
        outside = np.zeros((groups, len(self.parts)), np.int64)
        sums = np.zeros((groups, len(self.parts)))
        used = []
        for i, part in enumerate(self.parts):
            if part.is_output and raw is None:
                continue
            used.append(i)
            column = self._column(part, coded, raw)
            absent = np.isnan(column)
            cells[i] = _cells(part, column, absent)
            if part.is_numeric:
                sums[:, i] = np.bincount(group, np.where(absent, 0.0, column), groups)
            if part.minimum is not None and part.maximum is not None:
                beyond = (column < part.minimum) | (column > part.maximum)
                if beyond.any():
                    outside[:, i] = np.bincount(group[beyond], minlength=groups)
        chosen = cells[used] + self._starts[used, None] + group * self.size
        counted = np.bincount(chosen.ravel(), minlength=groups * self.size).reshape(groups, self.size)
        counted[:, [part.start + part.bins + OUTSIDE for part in self.parts]] = outside
        return Counted(counted, sums)

    def _column(self, part: Part, coded: Coded, raw: Matrix | None) -> npt.NDArray[np.float64]:
        if part.kind == "text":
            texts = coded.texts[part.name]
            return np.array([math.nan if text is None else float(len(text)) for text in texts])
        if not part.is_output:
            column: npt.NDArray[np.float64] = coded.matrix[:, part.column]
            return column
        assert raw is not None
        if part.kind == "output":
            values = raw[:, part.column]
            return np.where(np.isfinite(values), values, np.nan)
        own = raw[:, part.column : part.column + part.width]
        codes = positions(NamedOutput("", 0, self._outputs[part.column]), own).astype(float)
        codes[~np.isfinite(own).all(axis=1)] = np.nan
        return codes

    def zeros(self, groups: int = 1) -> Counted:
        return Counted(np.zeros((groups, self.size), np.int64), np.zeros((groups, len(self.parts))))


def _cells(part: Part, column: npt.NDArray[np.float64], absent: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The cell of each value within its part."""
    edges = np.array(part.edges)
    cells = _level_cells(part, column) if part.by_level else np.searchsorted(edges, column, side="right")
    cells[absent] = part.bins + MISSING
    return cells


def _level_cells(part: Part, column: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    values = np.array(part.values)
    if not len(values):
        cells = np.zeros(len(column), np.int64)
    else:
        cells = np.minimum(np.searchsorted(values, column), len(values) - 1)
        cells[values[cells] != column] = len(values)
    if not part.is_numeric:
        cells[column == UNSEEN] = part.bins + UNSEEN_CELL
    return cells


class Share(NamedTuple):
    """The counts of one part.

    Args:
        rows: all of them. bins: of rows with a value that is not unseen.
    """

    part: Part
    bins: Counts
    missing: int
    unseen: int
    outside: int

    @property
    def rows(self) -> int:
        return int(self.bins.sum()) + self.missing + self.unseen

    @property
    def valued(self) -> int:
        """Rows with a value that is counted in a bin."""
        return int(self.bins.sum())


def share(part: Part, counts: Counts) -> Share:
    """The counts of one part out of all."""
    end = part.start + part.bins
    missing, unseen, outside = (int(each) for each in counts[end : end + EXTRA_CELLS])
    return Share(part, counts[part.start : end], missing, unseen, outside)


# From a profile


def parts_of(profile: Profile, signature: Signature) -> tuple[tuple[Part, ...], Counts, list[float | None]]:
    """The parts of a model, the counts of its profile, and the mean of each part."""
    parts: list[Part] = []
    counts: list[int] = []
    means: list[float | None] = []
    for part, known in _described(profile, signature):
        parts.append(msgspec.structs.replace(part, start=len(counts)))
        unseen = other = 0
        if isinstance(known, Levels):
            unseen, other = known.unseen, known.other
            counts += [*known.counts, other]
        else:
            counts += known.counts
        counts += [known.missing, unseen, 0]
        means.append(_mean(part, known))
    return tuple(parts), np.array(counts, np.int64), means


def _mean(part: Part, known: Distribution) -> float | None:
    if isinstance(known, Numbers):
        return known.mean
    rows = sum(known.counts)
    if not part.is_numeric or not rows:
        return None
    return math.fsum(value * count for value, count in zip(known.values, known.counts, strict=True)) / rows


def _described(profile: Profile, signature: Signature) -> Iterator[tuple[Part, Distribution]]:
    for i, field in enumerate(signature.fields):
        known = profile.fields.get(field.name)
        if known is not None:
            yield _field(field, i, known), known
    for output in signature.each:
        own = profile.outputs.outputs.get(output.name) if signature.head.kind == "several" else profile.outputs
        if own is not None:
            yield from _output(output, own, signature)
        if signature.head.kind != "several":
            return


def _field(field: Field, column: int, known: Distribution) -> Part:
    if isinstance(known, Levels):
        labels = tuple(_level(field, value) for value in known.values)
        is_numeric = field.kind in ("number", "integer")
        return Part(field.name, "levels", column, values=known.values, labels=labels, is_numeric=is_numeric)
    kind: Kind = "text" if field.kind == "text" else "timestamp" if field.kind == "timestamp" else "number"
    return Part(field.name, kind, column, known.edges, minimum=known.minimum, maximum=known.maximum)


def _level(field: Field, value: float) -> str:
    if field.kind == "category":
        return str(field.levels[int(value)])
    if field.kind == "boolean":
        return str(bool(value)).lower()
    return f"{value:.15g}"


def _output(output: NamedOutput, own: OutputProfile, whole: Signature) -> Iterator[tuple[Part, Distribution]]:
    several = whole.head.kind == "several"
    signature = output.signature if several else whole
    start, before = (output.start, f"{output.name}.") if several else (0, "")
    head = signature.head
    if own.labels is not None:
        labels = tuple(str(head.classes[int(value)]) for value in own.labels.values)
        name = f"output:{before}{signature.label_name or 'label'}"
        width = head.width
        part = Part(name, "label", start, values=own.labels.values, labels=labels, width=width, is_numeric=False)
        yield part, own.labels
    for i, name in output_columns(head, signature.positive, own.labels):
        if name in own.columns:
            yield Part(f"output:{before}{name}", "output", start + i, own.columns[name].edges), own.columns[name]
