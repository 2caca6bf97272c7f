"""Write answered rows to the log of predictions, from a thread, so that no answer waits for it."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from estiba.core.errors import EstibaError
from estiba.gateway.answer_form import answer_form
from estiba.gateway.options import LogOptions
from estiba.model.coding.coder import Coded, Matrix
from estiba.model.inference.load import Model
from estiba.serving.exchange import Exchange, Part
from estiba.serving.pipeline import Batch
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.telemetry.sink import Sink
from estiba.state.database import Database, LazyDatabase
from estiba.state.store import open_log

DELAY_SECONDS = 0.1
"""Time from a batch to its writing: what the death of a worker may lose."""

MAX_WAITING_ROWS = 50_000
"""Rows that may wait for the log; further ones are dropped and counted."""

ROWS_AT_ONCE = 2_000
"""Rows of one transaction, so that other workers of an SQLite file wait for a moment only."""

RETRY_SECONDS = 1.0
"""Time before a log that could not be written is tried again."""

SHADOW = "shadow"
"""The variant of rows that were copied for a candidate whose answers nobody gets."""

_INSERT_DEPLOYMENT = (
    "INSERT INTO deployment (digest, version, model, fields, answer) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (digest, version) DO UPDATE SET answer = excluded.answer"
)


class _Part(NamedTuple):
    """The rows of one exchange in a batch. `first` is the number of the first one within its request.

    `positions` are the numbers of all, where they do not follow each other.
    """

    request: str
    rows: int
    first: int
    caller: str
    trace: str
    is_logged: bool
    variant: str
    positions: Sequence[int] = ()


class _Entry(NamedTuple):
    """A batch that waits to be written."""

    model: Model
    coded: Coded
    raw: Matrix
    parts: tuple[_Part, ...]
    at: float
    ms: float
    is_cached: bool


class PredictionLog:
    """The log of one worker. `observe` is called on the event loop, everything else happens in a thread.

    Every row is counted as offered, and later as written, dropped (there was no room) or failed (it cannot be kept).
    The difference is what a worker took with it when it died.
    """

    def __init__(self, url: str, options: LogOptions, metrics: Metrics) -> None:
        """Open nothing yet.

        Args:
            url: of the state store.
        """
        self._url = url
        self._options = options
        self._offered, self._written, self._dropped, self._failed = (
            metrics.slot("estiba_log_rows_total", outcome) for outcome in ("offered", "written", "dropped", "failed")
        )
        self._failing = metrics.slot("estiba_log_failing")
        self._added = self._taken = 0  # rows, each changed by one thread only
        self._large: dict[tuple[str, str], int] = {}  # rows seen of requests that run as several batches, by variant
        self._database = LazyDatabase(self._open)
        self._known: set[tuple[str, str]] = set()
        self._try_at = 0.0
        self._sink = Sink[_Entry](
            "prediction-log", self._drain, max_items=MAX_WAITING_ROWS, delay=DELAY_SECONDS, dropped=self._dropped
        )

    def observe(self, batch: Batch) -> None:
        """Take a batch, or drop it where too many rows wait."""
        parts = self._parts(batch)
        rows = sum(part.rows for part in parts if part.is_logged)
        if not rows:
            return
        self._offered.add(rows)
        if self._added - self._taken + rows > MAX_WAITING_ROWS:
            self._dropped.add(rows)
            return
        self._added += rows
        ms = (batch.ended_at - batch.began_at) * 1000
        self._sink.offer(_Entry(batch.model, batch.coded, batch.raw, parts, time.time(), ms, batch.is_cached))

    def close(self) -> None:
        """Write what waits, within a second."""
        self._sink.close()

    def _parts(self, batch: Batch) -> tuple[_Part, ...]:
        if len(batch.exchanges) == 1 and batch.exchanges[0].count != len(batch.coded):
            return (self._slice(batch.exchanges[0], len(batch.coded), batch.is_shadow),)
        return tuple(self._part(exchange, exchange.count, 0, batch.is_shadow) for exchange in batch.exchanges)

    def _slice(self, exchange: Exchange, count: int, is_shadow: bool) -> _Part:
        """A slice of a large request."""
        key = (exchange.id, SHADOW if is_shadow else "")
        first = self._large.pop(key, 0)
        if first + count < exchange.count:
            self._large[key] = first + count
        return self._part(exchange, count, first, is_shadow)

    def _part(self, exchange: Exchange, count: int, first: int, is_shadow: bool) -> _Part:
        # Drawn by the id, so that it is the same for all slices of a request.
        is_logged = self._options.sample >= 1.0 or random.Random(exchange.id).random() < self._options.sample
        variant = SHADOW if is_shadow else exchange.variant
        positions = exchange.positions if isinstance(exchange, Part) else ()
        return _Part(exchange.id, count, first, exchange.caller, exchange.trace_id, is_logged, variant, positions)

    # In the thread

    def _drain(self, entries: deque[_Entry], closing: threading.Event) -> None:
        if not closing.is_set() and time.monotonic() < self._try_at:
            return
        while entries:
            taken: list[_Entry] = []
            rows = 0
            for entry in entries:
                if taken and rows + len(entry.coded) > ROWS_AT_ONCE:
                    break
                taken.append(entry)
                rows += len(entry.coded)
            logged = sum(part.rows for entry in taken for part in entry.parts if part.is_logged)
            try:
                self._write(taken, [line for entry in taken for line in self._lines(entry)])
            except EstibaError:
                self._failing.set(1)
                self._try_at = time.monotonic() + RETRY_SECONDS
                self._database.close()
                return
            except Exception:  # a value that cannot be kept must not hold up all others
                self._failed.add(logged)
                self._database.close()
            else:
                self._written.add(logged)
                self._failing.set(0)
            for _ in taken:
                entries.popleft()
            self._taken += logged

    def _write(self, taken: Sequence[_Entry], lines: Sequence[tuple[object, ...]]) -> None:
        with self._database.get().transaction() as writing:
            for model in {(entry.model.digest, entry.model.version): entry.model for entry in taken}.values():
                key = (model.digest, model.version)
                if key not in self._known:
                    names, form = model.signature.names, answer_form(model.signature)
                    row = (*key, model.name, *(msgspec.json.encode(each).decode() for each in (names, form)))
                    writing.execute(_INSERT_DEPLOYMENT, row)
            writing.insert("prediction", lines)
        self._known |= {(entry.model.digest, entry.model.version) for entry in taken}

    def _open(self) -> Database:
        self._known = set()
        return open_log(self._url)

    def _lines(self, entry: _Entry) -> list[tuple[object, ...]]:
        """The rows of a batch as the table has them."""
        model = entry.model
        rows = model.coder.values(entry.coded)
        answers = model.predictions.rows(entry.raw)
        hidden = [i for i, name in enumerate(model.signature.names) if name in self._options.redact]
        at = int(entry.at * 1e6)
        places = [(part, number) for part in entry.parts for number in range(part.rows)]
        lines: list[tuple[object, ...]] = []
        for (part, number), row, answer in zip(places, rows, answers, strict=True):
            if not part.is_logged:
                continue
            values = list(row)
            for i in hidden:
                values[i] = None
            about = (model.name, model.version, model.digest, part.caller, part.trace, entry.ms)
            packed = (msgspec.msgpack.encode(values), msgspec.msgpack.encode(answer))
            position = part.positions[number] if part.positions else part.first + number
            lines.append((at, part.request, position, *about, *packed, part.variant, int(entry.is_cached)))
        return lines
