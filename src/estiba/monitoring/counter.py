"""Count the rows of a worker for drift, in a thread, so that no answer waits for it.

The event loop appends coded rows and answers to a bounded queue. The thread folds them into counts a few times a
second, and adds the counts to the state store every few seconds. What does not fit is dropped and counted; what a
worker had not written when it died is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from estiba.core.errors import EstibaError
from estiba.core.log import Log
from estiba.model.artifact import profile
from estiba.model.coding.coder import Coded, Matrix
from estiba.model.inference.load import Model
from estiba.monitoring import store
from estiba.monitoring.gauges import Gauges
from estiba.monitoring.layout import Counted, Layout
from estiba.monitoring.options import DriftOptions
from estiba.monitoring.store import Slices, Version
from estiba.monitoring.windows import Reference, reference_of
from estiba.serving.pipeline import Batch
from estiba.serving.telemetry.metrics import Metrics, Slot
from estiba.state.database import LazyDatabase
from estiba.state.store import open_monitoring

FOLD_SECONDS = 0.25
"""Interval of counting: how long rows wait in memory."""

GAUGE_SECONDS = 10.0
"""Interval of reading what the windows have shown, for the metrics."""

MAX_WAITING_VALUES = 4_000_000
"""Values of rows and answers that may wait; 32 MB. Further rows are dropped and counted."""

VALUES_OF_A_TEXT = VALUES_OF_A_BATCH = 100
"""Values that a text, and the objects around the rows of one batch, count as."""

ROWS_AT_ONCE = 4_096
BATCHES_AT_ONCE = 256
"""Rows and batches that are joined in one call, so that the thread keeps the interpreter lock for a moment only."""

SLICES_AT_ONCE = 4
"""Slices that one writing keeps apart."""

LIVE_ROWS = 1_000
"""First rows that become the reference of a model that has no profile."""


class _Rows(NamedTuple):
    """Rows of one version that wait to be counted."""

    model: Model
    coded: Coded
    raw: Matrix


class _Tally:
    """The counts of one version, as the thread knows it. `layout` is None until there is a reference."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.version = Version(model.digest, model.version, model.name)
        self.layout: Layout | None = None
        self.reference: Reference | None = None
        """Of the profile, until it is kept in the store."""
        self.slices: list[Counted] = []
        self.rows = self.dropped = 0
        self.open_rows = 0
        self.first: list[_Rows] = []
        """The first rows of a model without a profile, until there are enough for a reference."""

    @property
    def first_rows(self) -> int:
        return sum(len(each.coded) for each in self.first)

    def add(self, rows: _Rows, size: int) -> None:
        """Count rows, in slices of about `size`."""
        assert self.layout is not None
        count = len(rows.coded)
        group = (self.open_rows + np.arange(count)) // size
        counted = self.layout.count(rows.coded, rows.raw, group, int(group[-1]) + 1)
        parts = [Counted(counted.cells[i : i + 1], counted.sums[i : i + 1]) for i in range(len(counted.cells))]
        if self.open_rows and self.slices:
            self.slices[-1] = self.slices[-1] + parts.pop(0)
        self.slices += parts
        self.rows += count
        self.open_rows = (self.open_rows + count) % size
        if len(self.slices) > 4 * SLICES_AT_ONCE:
            self.slices = _joined(self.slices, 2 * SLICES_AT_ONCE)
            self.open_rows = 0

    def take(self, at: int) -> Slices:
        """Return the counts since the last time."""
        joined = _joined(self.slices, SLICES_AT_ONCE)
        counted = Counted(np.concatenate([c.cells for c in joined]), np.concatenate([c.sums for c in joined]))
        return Slices(self.version, at, self.rows, self.dropped, counted)

    def clear(self) -> None:
        self.slices, self.rows, self.dropped, self.open_rows = [], 0, 0, 0


def _size(coded: Coded, raw: Matrix) -> int:
    """Values that rows and their answers count as, while they wait."""
    return VALUES_OF_A_BATCH + coded.matrix.size + raw.size + VALUES_OF_A_TEXT * len(coded.texts) * len(raw)


class DriftCounter:
    """Counts for one worker. `observe` is called on the event loop, everything else happens in a thread."""

    def __init__(self, url: str, options: DriftOptions, metrics: Metrics) -> None:
        """Open nothing yet.

        Args:
            url: of the state store.
        """
        self._options = options
        self._metrics = metrics
        self._log = Log()
        self._reason = ""
        self._database = LazyDatabase(lambda: open_monitoring(url))
        self._gauges = Gauges(metrics)
        self._items: deque[_Rows] = deque()
        self._added = self._taken = 0  # values, each changed by one thread only
        self._tallies: dict[tuple[str, str], _Tally | None] = {}  # by digest and version
        self._slots: dict[str, tuple[Slot, ...]] = {}  # by model; none of one that is not counted
        self._dropped: dict[Version, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._flush_seconds = flush_seconds(options)

    def start(self) -> None:
        """Start the thread; on the event loop."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name="drift", daemon=True)
            self._thread.start()

    def observe(self, batch: Batch) -> None:
        """Take a batch, or drop it where too many rows wait. Copies for a candidate are not counted."""
        if batch.is_shadow:
            return
        model, coded, raw = batch.model, batch.coded, batch.raw
        slots = self._slots.get(model.name)
        if slots is None:
            slots = self._slots[model.name] = self._open_slots(model)
        if not slots:
            return
        size = _size(coded, raw)
        if self._added - self._taken + size > MAX_WAITING_VALUES:
            slots[1].add(len(raw))
            version = Version(model.digest, model.version, model.name)
            self._dropped[version] = self._dropped.get(version, 0) + len(raw)
            return
        slots[0].add(len(raw))
        self._added += size
        self._items.append(_Rows(model, coded, raw))

    def close(self) -> None:
        """Count and write what waits, within a second."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _open_slots(self, model: Model) -> tuple[Slot, ...]:
        """The counters of a model, counted and dropped rows; none for one that is not counted."""
        self.start()
        if model.signature.is_tensors or not self._options.counts(model.name):
            return ()
        return tuple(self._metrics.slot("estiba_drift_rows_total", model.name, each) for each in ("counted", "dropped"))

    # In the thread

    def _run(self) -> None:
        flushed = shown = time.monotonic()
        while not self._closing.wait(FOLD_SECONDS):
            now = time.monotonic()
            self._guarded(self._fold)
            if now >= flushed + self._flush_seconds:
                flushed = now
                self._guarded(self._flush)
            if now >= shown + min(GAUGE_SECONDS, 2 * self._flush_seconds):
                shown = now
                self._guarded(self._show)
        self._guarded(self._fold)
        self._guarded(self._flush)
        self._database.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do a step. A store that cannot be used is tried again; a fault in counting must not end the thread."""
        try:
            step()
        except Exception as error:
            self._database.close()
            reason = error.message if isinstance(error, EstibaError) else f"{type(error).__name__}: {error}"
            if reason != self._reason:
                self._log.warning("drift cannot be counted now; rows may be missing from windows", reason=reason)
            self._reason = reason

    def _fold(self) -> None:
        while self._items:
            taken: list[_Rows] = []
            rows = 0
            while self._items and len(taken) < BATCHES_AT_ONCE and rows < ROWS_AT_ONCE:
                item = self._items[0]
                if taken and item.model is not taken[0].model:
                    break
                taken.append(self._items.popleft())
                rows += len(item.raw)
            self._taken += sum(_size(item.coded, item.raw) for item in taken)
            self._count(_join(taken))

    def _count(self, rows: _Rows) -> None:
        model = rows.model
        key = (model.digest, model.version)
        if key not in self._tallies:
            self._tallies[key] = self._known(model)
        tally = self._tallies[key]
        if tally is None:
            return
        if tally.layout is not None:
            tally.add(rows, max(1, self._options.rows_of(model.name) // 20))
        elif tally.first_rows < 4 * LIVE_ROWS:
            tally.first.append(rows)
        else:
            tally.dropped += len(rows.coded)

    def _known(self, model: Model) -> _Tally | None:
        """The tally of a version that answers for the first time; None where its profile cannot be read."""
        tally = _Tally(model)
        try:
            if model.profile is not None:
                at = time.time_ns() // 1000
                tally.reference = reference_of(model.profile, model.signature, at)
                tally.layout = Layout(tally.reference.parts, model.signature)
        except EstibaError as error:
            about = {"model": model.name, "version": model.version}
            self._log.warning("drift of this version is not counted", **about, reason=error.message)
            return None
        return tally

    def _flush(self) -> None:
        """Add what was counted to the store."""
        at = time.time_ns() // 1000
        tallies = [tally for tally in self._tallies.values() if tally is not None and (tally.rows or tally.first)]
        for tally in tallies:
            tally.dropped += self._dropped.pop(tally.version, 0)
            if tally.layout is None or tally.reference is not None:
                self._settle_reference(tally)
        counted = [tally for tally in tallies if tally.rows]
        if counted:
            store.write_slices(self._database.get(), [tally.take(at) for tally in counted])
            for tally in counted:
                tally.clear()
        self._reason = ""

    def _settle_reference(self, tally: _Tally) -> None:
        """Keep the reference of a version in the store; of one without a profile use what is there, or make it."""
        with self._database.get().transaction() as writing:
            reference = store.read_reference(writing, tally.version)
            if reference is None:
                reference = tally.reference or _live_reference(tally)
                if reference is not None:
                    store.write_reference(writing, tally.version, reference)
        tally.reference = None
        if reference is not None and tally.layout is None:
            tally.layout = Layout(reference.parts, tally.model.signature)
            first, tally.first = _join(tally.first), []
            tally.add(first, max(1, self._options.rows_of(tally.model.name) // 20))

    def _show(self) -> None:
        """Read what the windows have shown, and show it in the metrics."""
        database = self._database.get()
        now = time.time_ns() // 1000
        with database.transaction(write=False) as reading:
            windows = store.newest(reading)
            hours = store.hours(reading, now // store.HOUR_MICROSECONDS - 24 * 7 - 2)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the worker ends
                self._loop.call_soon_threadsafe(self._gauges.show, windows, hours, now)


def flush_seconds(options: DriftOptions) -> float:
    """Time between two writings of a worker: so that a window has slices enough for its design effect."""
    return max(FOLD_SECONDS, min(5.0, options.minutes * 60 / 20))


def _live_reference(tally: _Tally) -> Reference | None:
    """The reference of the first rows; None while there are too few of them."""
    if tally.first_rows < LIVE_ROWS:
        return None
    rows, signature = _join(tally.first), tally.model.signature
    made = profile.build(signature, rows.coded, lambda asked: rows.raw[: len(asked)], "holdout")
    return reference_of(made, signature, time.time_ns() // 1000, live=True)


def _join(taken: Sequence[_Rows]) -> _Rows:
    if len(taken) == 1:
        return taken[0]
    texts = {name: [text for each in taken for text in each.coded.texts[name]] for name in taken[0].coded.texts}
    matrix = np.concatenate([each.coded.matrix for each in taken])
    return _Rows(taken[0].model, Coded(matrix, texts), np.concatenate([each.raw for each in taken]))


def _joined(slices: Sequence[Counted], most: int) -> list[Counted]:
    """Add consecutive slices up, to at most `most`."""
    if len(slices) <= most:
        return list(slices)
    ends = [len(slices) * (i + 1) // most for i in range(most)]
    starts = [0, *ends[:-1]]
    return [
        Counted(
            sum((c.cells for c in slices[a:b][1:]), slices[a].cells),
            sum((c.sums for c in slices[a:b][1:]), slices[a].sums),
        )
        for a, b in zip(starts, ends, strict=True)
    ]
