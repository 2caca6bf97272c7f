"""Report drift of a model: its versions, their last windows and the distributions behind them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Literal

import msgspec

from estiba.monitoring import store
from estiba.monitoring.comparison import Statistic, smallest_shift
from estiba.monitoring.layout import Counts, Part, Share, share
from estiba.monitoring.sentences import Side, sentences
from estiba.monitoring.silence import WEEK_HOURS, is_silent
from estiba.monitoring.store import HOUR_MICROSECONDS, Version
from estiba.monitoring.windows import PartResult, Reference, WindowResult
from estiba.state.database import Database, Transaction

State = Literal["ok", "suspected", "drift", "collecting", "too few rows"]

MAX_HISTORY = 500
"""Windows of a version that a report lists; of more, the newest."""

ALPHA = 0.01


class Distribution(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part in the reference or in a window. `bins` are shares of the rows with a value, in the order of its bins."""

    rows: int
    bins: tuple[float, ...]
    missing: float
    unseen: float
    outside: float
    mean: float | None = None


class PartReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A field or an output.

    Args:
        kind: `number`, `text` (its length), `timestamp`, `levels`, `output` or `label`.
        state: `drift` is reported, `suspected` was seen in one window only.
        severity: `notice` or `warning` of a drift.
        since: begin of its first window, ISO 8601.
        sentences: for people, by language.
        edges: of the bins, one fewer than these. labels: of the bins of levels; the last bin is all others.
    """

    name: str
    kind: str
    state: Literal["ok", "suspected", "drift"]
    sentences: dict[str, str]
    statistics: tuple[Statistic, ...]
    reference: Distribution
    severity: str = ""
    since: str = ""
    window: Distribution | None = None
    edges: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


class WindowReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """A window.

    Args:
        design_effect: how many of its rows count as an independent one.
        compared: False where it had too few rows.
        detected: fields and outputs that drift. flagged: those that this window shows.
        values: by field and statistic.
    """

    begin: str
    end: str
    rows: int
    compared: bool
    detected: tuple[str, ...]
    flagged: tuple[str, ...]
    design_effect: float = 1.0
    dropped: int = 0
    values: dict[str, dict[str, float]] = {}


class ReferenceReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The source of the reference: `holdout`, `sample`, `live` (the first rows that were served) or `adopted`."""

    rows: int
    source: str
    output_source: str
    at: str
    by: str = ""


class VersionReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Drift of a version.

    Args:
        waiting_rows: rows of the window that is not closed yet.
        smallest_shift: the smallest shift of a number that a window of the last one's size shows.
        fields: by how much they drift, the most first.
        history: windows, the oldest first.
    """

    version: str
    digest: str
    state: State
    waiting_rows: int
    fields: tuple[PartReport, ...]
    history: tuple[WindowReport, ...]
    reference: ReferenceReport | None = None
    window: WindowReport | None = None
    waiting_since: str = ""
    smallest_shift: float | None = None


class Silence(msgspec.Struct, frozen=True):
    """Rows of a model. `is_silent`: none in the last hour, where the same hour a week ago had 100 or more."""

    is_silent: bool
    rows_last_hour: int
    rows_week_ago: int


class DriftReport(msgspec.Struct, frozen=True):
    """Drift of a model, the versions with the newest rows first."""

    model: str
    versions: tuple[VersionReport, ...]
    silence: Silence


def report(database: Database, model: str, *, since: float, now: float | None = None) -> DriftReport:
    """Report the drift of a model.

    Args:
        since: how far back its history goes, in seconds.
        now: in seconds since 1970; the time of the call by default.
    """
    at = int((time.time() if now is None else now) * 1e6)
    with database.transaction(write=False) as reading:
        waiting = {each.version: each for each in store.waiting(reading) if each.version.model == model}
        versions = [*waiting, *(each for each in _known(reading, model) if each not in waiting)]
        reports = [_version(reading, each, waiting.get(each), at - int(since * 1e6)) for each in versions]
        hours = store.hours(reading, at // HOUR_MICROSECONDS - WEEK_HOURS - 2).get(model, {})
    hour = at // HOUR_MICROSECONDS
    rows, before = hours.get(hour - 1, 0), hours.get(hour - 1 - WEEK_HOURS, 0)
    silence = Silence(is_silent(hours, hour), rows, before)
    return DriftReport(model, tuple(sorted(reports, key=_newest, reverse=True)), silence)


def models(database: Database) -> list[str]:
    """The names of the models whose rows were counted."""
    with database.transaction(write=False) as reading:
        lines = reading.execute("SELECT DISTINCT model FROM drift_reference ORDER BY model")
        return [name for (name,) in lines]


def _known(reading: Transaction, model: str) -> list[Version]:
    lines = reading.execute("SELECT digest, version, model FROM drift_reference WHERE model = ?", (model,))
    return [Version(*line) for line in lines]


def _newest(version: VersionReport) -> str:
    return max(version.waiting_since, version.window.end if version.window else "")


def _version(reading: Transaction, version: Version, waiting: store.Waiting | None, since: int) -> VersionReport:
    reference = store.read_reference(reading, version)
    rows, first = (waiting.rows, shown_time(waiting.first)) if waiting else (0, "")
    about = VersionReport(version.version, version.digest, "collecting", rows, (), (), waiting_since=first)
    if reference is None:
        return about
    about = msgspec.structs.replace(about, reference=_reference(reference))
    lines = reading.execute(
        "SELECT result FROM drift_window WHERE digest = ? AND version = ? AND end_at >= ? ORDER BY end_at DESC LIMIT ?",
        (version.digest, version.version, since, MAX_HISTORY),
    )
    history = tuple(window_report(store.decode(result)) for (result,) in reversed(lines))
    last = reading.execute(
        "SELECT result, counts FROM drift_window WHERE digest = ? AND version = ? ORDER BY end_at DESC LIMIT 1",
        (version.digest, version.version),
    )
    if not last:
        return about
    result = store.decode(last[0][0])
    counts = store.unpack(bytes(last[0][1]), len(reference.parts)).cells[0]
    return msgspec.structs.replace(described(about, reference, result, counts), history=history)


def described(about: VersionReport, reference: Reference, result: WindowResult, counts: Counts) -> VersionReport:
    """The report of a version with its last window."""
    effective = max(1.0, result.rows / result.design_effect)
    shift = smallest_shift(ALPHA, sum(len(p.statistics) for p in result.parts.values()), reference.rows or 1, effective)
    parts = [_part(part, reference, result, counts) for part in reference.parts]
    order = sorted(parts, key=lambda part: (_STATES.index(part.state), -_largest(part)))
    return msgspec.structs.replace(
        about,
        state=_state(result),
        reference=_reference(reference),
        window=window_report(result),
        smallest_shift=shift if result.compared else None,
        fields=tuple(order),
    )


def _largest(part: PartReport) -> float:
    return max((each.value for each in part.statistics), default=0.0)


_STATES = ("drift", "suspected", "ok")


def _state(result: WindowResult) -> State:
    parts = result.parts.values()
    if any(part.detected for part in parts):
        return "drift"
    if not result.compared:
        return "too few rows"
    return "suspected" if any(part.flagged for part in parts) else "ok"


def _part(part: Part, reference: Reference, result: WindowResult, counts: Counts) -> PartReport:
    own = result.parts.get(part.name, PartResult())
    mean = dict(zip((each.name for each in reference.parts), reference.means, strict=True))[part.name]
    known, now = Side(share(part, reference.vector), mean), Side(share(part, counts), own.mean)
    return PartReport(
        name=part.name,
        kind=part.kind,
        state="drift" if own.detected else "suspected" if own.flagged else "ok",
        sentences=sentences(part, own, known, now, result.end),
        statistics=own.statistics,
        reference=_distribution(known),
        severity=own.severity,
        since=shown_time(own.since) if own.since else "",
        window=_distribution(now),
        edges=part.edges,
        labels=part.labels,
    )


def _distribution(side: Side) -> Distribution:
    own: Share = side.share
    rows, valued = max(1, own.rows), max(1, own.valued)
    bins = tuple(round(count / valued, 6) for count in own.bins.tolist())
    return Distribution(own.rows, bins, own.missing / rows, own.unseen / rows, own.outside / rows, side.mean)


def window_report(result: WindowResult) -> WindowReport:
    return WindowReport(
        shown_time(result.begin),
        shown_time(result.end),
        result.rows,
        result.compared,
        result.detected,
        tuple(name for name, part in result.parts.items() if part.flagged),
        round(result.design_effect, 3),
        result.dropped,
        {
            name: {each.name: round(each.value, 4) for each in part.statistics}
            for name, part in result.parts.items()
            if part.statistics
        },
    )


def _reference(reference: Reference) -> ReferenceReport:
    at = shown_time(reference.at)
    return ReferenceReport(reference.rows, reference.source, reference.output_source, at, reference.by)


def shown_time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="seconds")
