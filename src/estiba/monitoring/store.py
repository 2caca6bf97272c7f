"""Keep counts, windows and references of drift in the state store."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from estiba.monitoring.layout import Counted, Part
from estiba.monitoring.windows import Gathered, Reference, WindowResult
from estiba.state.database import Database, Transaction

HOUR_MICROSECONDS = 3_600_000_000
KEEP_HOURS = 24 * 15
"""Hours of row counts that are kept: silence compares with the same hour a week ago."""


class Version(NamedTuple):
    """A version of a model, as all tables name it."""

    digest: str
    version: str
    model: str


class Slices(NamedTuple):
    """Counts of a worker, ready to be kept. `at` is the time of the last row."""

    version: Version
    at: int
    rows: int
    dropped: int
    counted: Counted


class Waiting(NamedTuple):
    """A version with rows that belong to no window yet, and the times of the first and the last of them."""

    version: Version
    rows: int
    first: int
    last: int


def pack(counted: Counted) -> bytes:
    """Encode counts: the number of slices, the sums and the cells."""
    sums = np.ascontiguousarray(counted.sums, np.float64)
    cells = np.ascontiguousarray(counted.cells, np.int32)
    return zlib.compress(len(cells).to_bytes(4, "little") + sums.tobytes() + cells.tobytes(), 1)


def unpack(content: bytes, parts: int) -> Counted:
    raw = zlib.decompress(content)
    groups = int.from_bytes(raw[:4], "little")
    end = 4 + 8 * groups * parts
    sums = np.frombuffer(raw[4:end], np.float64).reshape(groups, parts)
    return Counted(np.frombuffer(raw[end:], np.int32).reshape(groups, -1).astype(np.int64), sums)


def read_reference(reading: Transaction, version: Version) -> Reference | None:
    """The reference of a version; None where there is none yet."""
    lines = reading.execute(
        "SELECT reference FROM drift_reference WHERE digest = ? AND version = ?", (version.digest, version.version)
    )
    return msgspec.json.decode(lines[0][0], type=Reference) if lines else None


def write_reference(writing: Transaction, version: Version, reference: Reference, *, replace: bool = False) -> None:
    """Keep a reference, unless there is one; `replace` it."""
    action = "UPDATE SET reference = excluded.reference" if replace else "NOTHING"
    writing.execute(
        "INSERT INTO drift_reference (digest, version, model, reference) VALUES (?, ?, ?, ?)"
        f" ON CONFLICT (digest, version) DO {action}",
        (*version, msgspec.json.encode(reference).decode()),
    )


def write_slices(database: Database, slices: Iterable[Slices]) -> None:
    """Add counts of rows, all of them or none; raises EstibaError."""
    with database.transaction() as writing:
        for each in slices:
            writing.execute(
                "INSERT INTO drift_slice (digest, version, model, at, count, dropped, counts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*each.version, each.at, each.rows, each.dropped, pack(each.counted)),
            )
            writing.execute(
                "INSERT INTO drift_hour (model, hour, count) VALUES (?, ?, ?)"
                " ON CONFLICT (model, hour) DO UPDATE SET count = drift_hour.count + excluded.count",
                (each.version.model, each.at // HOUR_MICROSECONDS, each.rows),
            )


def waiting(reading: Transaction) -> list[Waiting]:
    """Versions whose rows wait for a window."""
    lines = reading.execute(
        "SELECT digest, version, model, sum(count), min(at), max(at) FROM drift_slice GROUP BY digest, version, model"
    )
    return [Waiting(Version(d, v, m), int(rows), int(first), int(last)) for d, v, m, rows, first, last in lines]


def gather(reading: Transaction, version: Version, parts: Sequence[Part], *, begin: int, end: int) -> Gathered | None:
    """The rows of a version that wait for a window, up to `end`; None without any."""
    lines = reading.execute(
        "SELECT dropped, counts FROM drift_slice WHERE digest = ? AND version = ? AND at <= ? ORDER BY at",
        (version.digest, version.version, end),
    )
    if not lines:
        return None
    counted = [unpack(bytes(counts), len(parts)) for _, counts in lines]
    cells = np.concatenate([each.cells for each in counted])
    sums = np.concatenate([each.sums for each in counted])
    return Gathered(begin, end, Counted(cells, sums), sum(int(dropped) for dropped, _ in lines))


def write_window(writing: Transaction, version: Version, result: WindowResult, window: Gathered, keep: int) -> None:
    """Keep a closed window, remove its slices, and windows that are too old."""
    total = Counted(window.total[None, :], window.slices.sums.sum(axis=0)[None, :])
    content = zlib.compress(msgspec.json.encode(result), 1)
    writing.execute(
        "INSERT INTO drift_window (digest, version, model, end_at, result, counts) VALUES (?, ?, ?, ?, ?, ?)",
        (*version, window.end, content, pack(total)),
    )
    own = (version.digest, version.version)
    writing.execute("DELETE FROM drift_slice WHERE digest = ? AND version = ? AND at <= ?", (*own, window.end))
    oldest = writing.execute(
        "SELECT end_at FROM drift_window WHERE digest = ? AND version = ? ORDER BY end_at DESC LIMIT 1 OFFSET ?",
        (*own, keep),
    )
    if oldest:
        writing.execute(
            "DELETE FROM drift_window WHERE digest = ? AND version = ? AND end_at <= ?", (*own, oldest[0][0])
        )


def last_window(reading: Transaction, version: Version) -> WindowResult | None:
    """The newest closed window of a version."""
    lines = reading.execute(
        "SELECT result FROM drift_window WHERE digest = ? AND version = ? ORDER BY end_at DESC LIMIT 1",
        (version.digest, version.version),
    )
    return decode(lines[0][0]) if lines else None


def decode(content: bytes) -> WindowResult:
    return msgspec.json.decode(zlib.decompress(bytes(content)), type=WindowResult)


def newest(reading: Transaction) -> dict[Version, WindowResult]:
    """The newest closed window of every version."""
    lines = reading.execute(
        "SELECT w.digest, w.version, w.model, w.result FROM drift_window w JOIN (SELECT digest, version, max(end_at)"
        " AS last_at FROM drift_window GROUP BY digest, version) n"
        " ON w.digest = n.digest AND w.version = n.version AND w.end_at = n.last_at"
    )
    return {Version(d, v, m): decode(result) for d, v, m, result in lines}


def hours(reading: Transaction, since: int) -> dict[str, dict[int, int]]:
    """Rows by model and hour, from an hour on."""
    found: dict[str, dict[int, int]] = {}
    for model, hour, count in reading.execute("SELECT model, hour, count FROM drift_hour WHERE hour >= ?", (since,)):
        found.setdefault(model, {})[int(hour)] = int(count)
    return found


def take_lease(database: Database, holder: str, *, now: int, until: int) -> bool:
    """Take or extend the right to close windows; False while another server has it."""
    with database.transaction() as writing:
        writing.execute(
            "INSERT INTO drift_lease (name, holder, until) VALUES ('windows', ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " holder = excluded.holder, until = excluded.until"
            " WHERE drift_lease.holder = excluded.holder OR drift_lease.until < ?",
            (holder, until, now),
        )
        ((current,),) = writing.execute("SELECT holder FROM drift_lease WHERE name = 'windows'")
    return bool(current == holder)


def remove_old(database: Database, *, now: int, slices_before: int) -> None:
    """Remove hours that nothing compares with, and rows of versions that never filled a window."""
    with database.transaction() as writing:
        writing.execute("DELETE FROM drift_hour WHERE hour < ?", (now // HOUR_MICROSECONDS - KEEP_HOURS,))
        writing.execute("DELETE FROM drift_slice WHERE at < ?", (slices_before,))
