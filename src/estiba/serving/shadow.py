"""Ask a candidate what was asked of the versions that answer, afterwards and in a thread, and never send its answers.

Batches are copied once their answers are computed, into a bounded queue. Nothing waits for the candidate: what does not
fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence

from estiba.core.log import Log
from estiba.model.coding.coder import Coded
from estiba.model.inference.load import Model
from estiba.serving.batcher import join
from estiba.serving.catalog import Deployment
from estiba.serving.exchange import Exchange
from estiba.serving.pipeline import Batch, Guard
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.telemetry.sink import Sink

MAX_WAITING_ROWS = 10_000
"""Rows that may wait for the candidate."""

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Bodies of requests that may wait for the candidate."""

MAX_WAITING_BATCHES = 10_000

ROWS_AT_ONCE = 64
"""Rows of one run, so that the thread keeps the interpreter lock from the event loop for a moment only."""

DELAY_SECONDS = 0.01
"""Time for further requests to come before a run."""


class Shadow:
    """The copies for one candidate."""

    def __init__(self, deployment: Deployment, metrics: Metrics, log: Log) -> None:
        """Start nothing yet: the thread starts with the first copy."""
        self.deployment = deployment
        self.model = model = deployment.model
        self._guard, self._log, self._reason = Guard(log), log, ""
        about = (model.name, model.version)
        slots = [metrics.slot("estiba_shadow_rows_total", *about, each) for each in ("answered", "failed", "dropped")]
        self._answered, self._failed, self._dropped = slots
        self._seconds = metrics.histogram("estiba_shadow_duration_seconds", *about)
        self._waiting_rows = self._waiting_bytes = 0  # changed on the event loop only
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sink: Sink[Batch] = Sink(
            "shadow", self._drain, max_items=MAX_WAITING_BATCHES, delay=DELAY_SECONDS, dropped=self._dropped
        )

    def observe(self, batch: Batch) -> None:
        """Copy a batch that another version has answered. On the event loop."""
        rows, size = len(batch.coded), _bytes(batch.exchanges)
        if self._waiting_rows + rows > MAX_WAITING_ROWS or self._waiting_bytes + size > MAX_WAITING_BYTES:
            self._dropped.add(rows)
            return
        self._waiting_rows += rows
        self._waiting_bytes += size
        self._loop = self._loop or asyncio.get_running_loop()
        self._sink.offer(batch)

    def close(self) -> None:
        """End the thread, once it has run what waits or a second has passed; does not wait for it."""
        threading.Thread(target=self._sink.close, name="shadow-end", daemon=True).start()

    # In the thread

    def _drain(self, waiting: deque[Batch], closing: threading.Event) -> None:
        while waiting and not closing.is_set():
            taken = [waiting.popleft()]
            rows = len(taken[0].coded)
            while waiting and rows + len(waiting[0].coded) <= ROWS_AT_ONCE and _joins(taken[-1], waiting[0]):
                rows += len(waiting[0].coded)
                taken.append(waiting.popleft())
            self._run(taken)

    def _run(self, taken: Sequence[Batch]) -> None:
        exchanges = tuple(exchange for batch in taken for exchange in batch.exchanges)
        began_at, error, answered = time.perf_counter(), "", None
        try:
            coded = join([self._coded(batch.model, batch.coded) for batch in taken])
            raw = self.model.answer(coded)
            ended_at = time.perf_counter()
            answered = Batch(self.model, exchanges, coded, raw, began_at, ended_at, is_shadow=True)
        except Exception as failure:  # whatever the candidate does, the versions that answer go on
            error = f"{type(failure).__name__}: {failure}"
        rows = sum(len(batch.coded) for batch in taken)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, exchanges, rows, answered, error)

    def _coded(self, model: Model, coded: Coded) -> Coded:
        """The rows as the candidate codes them."""
        if model.signature.fields == self.model.signature.fields:
            return coded
        return self.model.coder.check(model.coder.rows(coded))

    # On the event loop again

    def _settle(self, exchanges: Sequence[Exchange], rows: int, answered: Batch | None, error: str) -> None:
        """Count a run, and show it to the policies."""
        self._waiting_rows -= rows
        self._waiting_bytes -= _bytes(exchanges)
        if answered is None:
            self._failed.add(rows)
            if error != self._reason:
                about = {"model": self.model.name, "version": self.model.version}
                self._log.warning("the shadow cannot answer; callers do not notice", **about, reason=error)
        else:
            self._answered.add(rows)
            self._seconds.observe(answered.ended_at - answered.began_at)
            self._guard.observe(self.deployment.batcher.pipeline, answered)
        self._reason = error


def _bytes(exchanges: Sequence[Exchange]) -> int:
    return sum(len(exchange.request.body) for exchange in exchanges)


def _joins(one: Batch, other: Batch) -> bool:
    """Return True if both hold whole requests for one version: slices of a large request stay apart."""
    return one.model is other.model and all(
        sum(exchange.count for exchange in batch.exchanges) == len(batch.coded) for batch in (one, other)
    )
