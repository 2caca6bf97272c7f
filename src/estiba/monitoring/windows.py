"""Decide on drift from window to window: reported after two in a row, and resolved after two quiet ones."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from estiba.model.artifact.profile import Profile
from estiba.model.schema.signature import Signature
from estiba.monitoring.comparison import GROUPS, Statistic, compare
from estiba.monitoring.layout import Counted, Counts, Part, parts_of, share
from estiba.monitoring.options import DriftOptions

IN_A_ROW = 2
"""Windows that must show a drift before it is reported, and must be quiet before it is resolved."""

HYSTERESIS = 0.8
"""A drift is over once the effect is below this part of its floor."""

WARNING_EFFECT = 0.2
"""Effects from here on are warnings, smaller ones notices."""

Source = Literal["holdout", "sample", "live", "adopted"]


class Reference(msgspec.Struct, frozen=True):
    """The distributions that windows are compared with.

    Args:
        source: of the fields: held-out rows, the sample that the model was packed with, the first rows that were
            served, or a window that somebody adopted.
        output_source: of the outputs. A model's answers to rows that it was trained on are sharper than its answers to
            others, so those of a `sample` are replaced by the first window that is served; `pending` until then.
        counts: of all parts. means: by part.
        at: when it was kept here, in microseconds since 1970. by: who adopted it.
    """

    parts: tuple[Part, ...]
    counts: tuple[int, ...]
    means: tuple[float | None, ...]
    source: Source
    output_source: Source | Literal["pending"]
    at: int = 0
    by: str = ""

    @property
    def vector(self) -> Counts:
        return np.array(self.counts, np.int64)

    @property
    def rows(self) -> int:
        """Rows that its fields are counted from."""
        vector = self.vector
        return max((share(part, vector).rows for part in self.parts if not part.is_output), default=0)


def reference_of(profile: Profile, signature: Signature, at: int, *, live: bool = False) -> Reference:
    """The reference of a profile; `live`: of one that was made of the first rows that were served."""
    parts, counts, means = parts_of(profile, signature)
    source: Source = "live" if live else profile.source
    output: Source | Literal["pending"] = "pending" if source == "sample" else source
    return Reference(parts, tuple(counts.tolist()), tuple(means), source, output, at)


class PartResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part in one window.

    Args:
        flagged: this window shows a drift. detected: the windows before it did too, so it is reported.
        since: begin of the first window of the drift, in microseconds since 1970; 0 without one.
        above, below: windows in a row that were flagged, and that were quiet while it is detected.
        effect: the largest significant effect; 0 without one.
    """

    statistics: tuple[Statistic, ...] = ()
    mean: float | None = None
    flagged: bool = False
    detected: bool = False
    since: int = 0
    above: int = 0
    below: int = 0
    effect: float = 0.0

    @property
    def severity(self) -> str:
        """`warning` for a large effect, `notice` for a small one; empty while there is no drift."""
        if not self.detected:
            return ""
        return "warning" if max(self.effect, self.largest) > WARNING_EFFECT else "notice"

    @property
    def largest(self) -> float:
        return max((each.value for each in self.statistics), default=0.0)


class WindowResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A window that is closed. Times are in microseconds since 1970.

    Args:
        parts: by name.
        compared: False where it had too few rows, or no reference.
        dropped: rows that were not counted, as there was no room for them.
    """

    begin: int
    end: int
    rows: int
    parts: dict[str, PartResult]
    compared: bool = True
    design_effect: float = 1.0
    dropped: int = 0

    @property
    def detected(self) -> tuple[str, ...]:
        return tuple(name for name, part in self.parts.items() if part.detected)


class Gathered(NamedTuple):
    """The rows of a window: counts of slices in the order of time."""

    begin: int
    end: int
    slices: Counted
    dropped: int = 0

    @property
    def total(self) -> Counts:
        total: Counts = self.slices.cells.sum(axis=0)
        return total

    def rows(self, parts: tuple[Part, ...]) -> int:
        total = self.total
        return max((share(part, total).rows for part in parts), default=0)


def judge(
    window: Gathered,
    reference: Reference,
    before: WindowResult | None,
    options: DriftOptions,
    ignored: tuple[str, ...] = (),
) -> WindowResult:
    """Compare a window with the reference, and carry on what the windows before it have shown."""
    parts, known = reference.parts, {} if before is None else before.parts
    rows = window.rows(parts)
    means = _means(window, parts)
    few = rows < options.min_rows
    judged = tuple(part for part in parts if not (part.is_output and reference.output_source == "pending"))
    compared = compare(judged, reference.vector, grouped(window.slices.cells, parts), options)
    results = {}
    for part in parts:
        old = known.get(part.name, PartResult())
        if few:
            results[part.name] = msgspec.structs.replace(old, mean=means[part.name], flagged=False)
        else:
            own = compared.statistics.get(part.name, ())
            new = PartResult(own, means[part.name])
            results[part.name] = new if part.name in ignored else _follow(old, new, window.begin, options.alpha)
    return WindowResult(window.begin, window.end, rows, results, not few, compared.design_effect, window.dropped)


def _follow(old: PartResult, new: PartResult, begin: int, alpha: float) -> PartResult:
    """The state of a part after a window."""
    exceeding = [each.value for each in new.statistics if each.exceeds(alpha)]
    flagged = bool(exceeding)
    above = old.above + 1 if flagged else 0
    quiet = all(each.is_quiet(alpha, HYSTERESIS) for each in new.statistics)
    below = old.below + 1 if old.detected and quiet else 0
    detected = (old.detected and below < IN_A_ROW) or above >= IN_A_ROW
    since = old.since if old.since and (old.detected or flagged) else begin if flagged else 0
    return msgspec.structs.replace(
        new,
        flagged=flagged,
        detected=detected,
        since=since if flagged or detected else 0,
        above=above,
        below=below,
        effect=max(exceeding, default=0.0),
    )


def grouped(cells: Counts, parts: tuple[Part, ...]) -> Counts:
    """Put consecutive slices together, to at most GROUPS groups of about as many rows."""
    if len(cells) <= GROUPS:
        return cells
    part = parts[0]
    rows = cells[:, part.start : part.start + part.size - 1].sum(axis=1)
    ends = np.cumsum(rows)
    group = np.minimum((ends - rows / 2) * GROUPS // max(1, ends[-1]), GROUPS - 1).astype(int)
    together = np.zeros((GROUPS, cells.shape[1]), np.int64)
    np.add.at(together, group, cells)
    return together[together.any(axis=1)]


def _means(window: Gathered, parts: tuple[Part, ...]) -> dict[str, float | None]:
    """The mean of each part in a window; None for categories."""
    total, sums = window.total, window.slices.sums.sum(axis=0)
    found: dict[str, float | None] = {}
    for part, value in zip(parts, sums.tolist(), strict=True):
        valued = share(part, total).valued
        found[part.name] = value / valued if part.is_numeric and valued and math.isfinite(value) else None
    return found


def adopted(
    reference: Reference, window: Gathered, *, source: Source, at: int, by: str = "", outputs_only: bool = False
) -> Reference:
    """The reference with the counts of a window in place of its own, for all parts or for the outputs."""
    counts, total, means = reference.vector, window.total, _means(window, reference.parts)
    chosen = [part for part in reference.parts if part.is_output or not outputs_only]
    for part in chosen:
        counts[part.start : part.start + part.size] = total[part.start : part.start + part.size]
    names = {part.name for part in chosen}
    new = tuple(
        means[part.name] if part.name in names else old
        for part, old in zip(reference.parts, reference.means, strict=True)
    )
    return msgspec.structs.replace(
        reference,
        counts=tuple(counts.tolist()),
        means=new,
        source=reference.source if outputs_only else source,
        output_source=source,
        at=at,
        by=by,
    )
