"""Counters of limits in memory that all workers of a server share, so that a limit holds over all of them.

The file `limits.memory` has one record for each limited key or model. A worker changes records under a lock of the
system (flock), which ends with its process: the death of a worker blocks nobody. How many requests a worker holds is
also in a file of its own, locked for its life. So the requests of a dead worker are known, and are subtracted as soon
as they would count against another. Rates are counted on the monotonic clock, which no change of the time of day moves.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from estiba.core.errors import EstibaError

MAX_RECORDS = 65_536
"""Keys and models with limits that one server can count."""

DAY_SECONDS = 86_400
CHECK_SECONDS = 0.05
"""Interval of looks for requests of dead workers, while requests are refused for others that are being answered."""

IDLE_NANOSECONDS = 60 * 10**9
"""Time after which a record that no policy names may be given to another key."""

_TAT, _ROWS, _DAY, _HELD, _WIDTH = 2, 3, 4, 5, 6  # the first two numbers of a record are the hash of its subject


class Meter(NamedTuple):
    """The limits of a key or a model, compiled.

    Args:
        at: position of its record.
        interval: nanoseconds between two requests at the rate; 0 for no rate.
        tolerance: nanoseconds that requests may be early, as the burst allows.
        concurrent, rows: limits; 0 for none.
        name: `key` or `model`.
        subject: name of the record, such as `key:ada`.
        whom: the subject, as messages name it.
    """

    at: int
    interval: int
    tolerance: int
    concurrent: int
    rows: int
    name: str
    subject: str
    whom: str

    def shared(self, servers: int) -> Meter:
        """One server's part of these limits, where so many servers count apart."""
        interval = self.interval * servers
        return self._replace(
            interval=interval,
            tolerance=max(self.tolerance, interval),
            concurrent=self.concurrent and max(1, self.concurrent // servers),
            rows=self.rows and max(1, self.rows // servers),
        )


class Refusal(NamedTuple):
    """A limit that is exceeded.

    Args:
        kind: `rate`, `concurrent` or `rows`.
        wait: nanoseconds until it may be met.
        left: rows of today that are left.
    """

    meter: Meter
    kind: str
    wait: int
    left: int = 0


Left = list[int]
"""The remainder of each limit after a request: for each meter nanoseconds of its tolerance, requests at a time, and
rows, as far as it has these limits."""


class LimitMemory:
    """The records of one server, as one worker sees them. Only `at_of` may be called by other threads than its own."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Open or create the memory.

        Args:
            folder: shared by the workers.
            clock: the time of day, which days are counted by.

        Raises:
            EstibaError: there is no room for it.
        """
        self._folder = folder
        self._clock = clock
        try:
            self._open_files()
        except OSError as error:
            raise EstibaError(f"The counters of limits cannot be kept in {folder}: {error.strerror}.") from None
        self._known: dict[str, int] = {}
        self._checked_at = 0.0

    def _open_files(self) -> None:
        folder = self._folder
        self._file = _open(folder / "limits.memory", 8 * _WIDTH * MAX_RECORDS)
        self._map = mmap.mmap(self._file, 0)
        self._cells = memoryview(self._map).cast("q")
        self._table = np.frombuffer(self._map, dtype=np.int64).reshape(-1, _WIDTH)
        self._own_path = folder / f"limits-{os.getpid()}.held"
        own = folder / f"limits-{os.getpid()}.new"
        self._own_file = _open(own, 8 * MAX_RECORDS)
        fcntl.flock(self._own_file, fcntl.LOCK_EX)
        own.rename(self._own_path)
        self._own = memoryview(mmap.mmap(self._own_file, 0)).cast("q")

    def close(self) -> None:
        """Give the worker's own file back."""
        self._own_path.unlink(missing_ok=True)

    # Records

    def at_of(self, subjects: Iterable[str]) -> dict[str, int]:
        """The position of each subject's record, the same in every worker; raises EstibaError if there are too many."""
        wanted = {subject: _identity(subject) for subject in subjects}
        lock = _open(self._folder / "limits.names", 0)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = {subject: self._known.get(subject, -1) for subject in wanted}
            if any(at < 0 or tuple(self._cells[at : at + 2]) != wanted[s] for s, at in known.items()):
                known = self._assign(wanted)
        finally:
            os.close(lock)
        self._known = known
        return known

    def _assign(self, wanted: dict[str, tuple[int, int]]) -> dict[str, int]:
        (used,) = np.nonzero(self._table[:, 0] | self._table[:, 1])
        at_of = {(int(self._table[i, 0]), int(self._table[i, 1])): int(i) * _WIDTH for i in used}
        missing = [identity for identity in wanted.values() if identity not in at_of]
        free = self._free(set(used.tolist()), {at_of[i] // _WIDTH for i in wanted.values() if i in at_of}, len(missing))
        if len(free) < len(missing):
            raise EstibaError(f"There are more than {MAX_RECORDS} keys and models with limits.")
        for identity, position in zip(missing, free, strict=False):
            at = position * _WIDTH
            self._cells[at + _TAT] = self._cells[at + _ROWS] = self._cells[at + _DAY] = 0
            self._cells[at], self._cells[at + 1] = identity
            at_of[identity] = at
        return {subject: at_of[identity] for subject, identity in wanted.items()}

    def _free(self, used: set[int], kept: set[int], count: int) -> list[int]:
        """Positions of records that are free; then of those of keys that are gone and were not used lately."""
        free: list[int] = []
        for position in range(MAX_RECORDS):
            if len(free) == count:
                return free
            if position not in used:
                free.append(position)
        today, before = self._today(), time.monotonic_ns() - IDLE_NANOSECONDS
        for position in sorted(used - kept):
            tat, day, held = (int(self._table[position, column]) for column in (_TAT, _DAY, _HELD))
            if tat < before and day < today and held == 0:
                free.append(position)
        return free[:count]

    # Requests

    def admit(self, meters: Sequence[Meter]) -> Left | Refusal:
        """Count a request, if every meter allows it; else none counts it."""
        verdict = self._admit(meters)
        if verdict.__class__ is Refusal and verdict.kind == "concurrent" and self._may_check():
            self._drop_dead()
            verdict = self._admit(meters)
        return verdict

    def _admit(self, meters: Sequence[Meter]) -> Left | Refusal:
        cells, file = self._cells, self._file
        left: list[int] = []
        changes: list[tuple[int, int]] = []
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            now = time.monotonic_ns()
            for meter in meters:
                at, interval, tolerance, concurrent, rows, *_ = meter
                if interval:
                    tat = cells[at + _TAT]
                    if tat < now:
                        tat = now
                    elif tat > now + tolerance:  # an earlier, other limit allowed that
                        tat = cells[at + _TAT] = now + tolerance
                    tat += interval
                    spare = now + tolerance - tat
                    if spare < 0:
                        return Refusal(meter, "rate", -spare)
                    changes.append((at + _TAT, tat))
                    left.append(spare)
                if concurrent:
                    more = concurrent - cells[at + _HELD]
                    if more <= 0:
                        return Refusal(meter, "concurrent", 10**9)
                    left.append(more - 1)
                if rows:
                    more = rows - self._rows(at)
                    if more <= 0:
                        return Refusal(meter, "rows", self._until_midnight())
                    left.append(more)
            self._count(meters, changes)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
        return left

    def _count(self, meters: Sequence[Meter], changes: Sequence[tuple[int, int]]) -> None:
        for position, tat in changes:
            self._cells[position] = tat
        for meter in meters:
            if meter.concurrent:
                self._hold(meter.at, 1)

    def charge(self, meters: Sequence[Meter], rows: int) -> Refusal | None:
        """Count the rows of a request, if every meter allows them; else none counts them."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            for meter in meters:
                left = meter.rows - self._rows(meter.at)
                if rows > left:
                    return Refusal(meter, "rows", self._until_midnight(), max(0, left))
            for meter in meters:
                self._cells[meter.at + _ROWS] += rows
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return None

    def hold(self, positions: Iterable[int], count: int) -> None:
        """Count requests that are being answered, or no longer are (-1)."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            for at in positions:
                self._hold(at, count)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _hold(self, at: int, count: int) -> None:
        self._own[at // _WIDTH] += count
        self._cells[at + _HELD] += count

    def _rows(self, at: int) -> int:
        """The rows of today. A clock that was set back does not give any of them back."""
        cells, today = self._cells, self._today()
        if cells[at + _DAY] != today:
            if cells[at + _DAY] < today:
                cells[at + _ROWS] = 0
            cells[at + _DAY] = today
        return cells[at + _ROWS]

    def _today(self) -> int:
        return int(self._clock()) // DAY_SECONDS

    def _until_midnight(self) -> int:
        return (DAY_SECONDS - int(self._clock()) % DAY_SECONDS) * 10**9

    # Dead workers

    def _may_check(self) -> bool:
        now = time.monotonic()
        if now < self._checked_at + CHECK_SECONDS:
            return False
        self._checked_at = now
        return True

    def _drop_dead(self) -> None:
        """Count the requests of live workers anew, and forget those of dead ones."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            total = np.array(self._own)
            for path in self._folder.glob("limits-*.held"):
                if path != self._own_path:
                    total += _held(path)
            self._table[:, _HELD] = total
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


def _held(path: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The requests that another worker holds, by position; none if it is dead, whose file is then removed."""
    nothing = np.zeros(MAX_RECORDS, dtype=np.int64)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return nothing
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        content = os.pread(file, 8 * MAX_RECORDS, 0)
        return np.frombuffer(content, dtype=np.int64)
    else:
        path.unlink(missing_ok=True)
        return nothing
    finally:
        os.close(file)


def _open(path: Path, size: int) -> int:
    """A descriptor of a file of at least that size, whose space is taken: memory without it would end the process."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if size and os.fstat(file).st_size < size:
        _allocate(file, size)
    return file


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS
        os.ftruncate(file, size)


def _identity(subject: str) -> tuple[int, int]:
    digest = blake2b(subject.encode(), digest_size=16).digest()
    first, second = int.from_bytes(digest[:8], signed=True), int.from_bytes(digest[8:], signed=True)
    return first or 1, second
