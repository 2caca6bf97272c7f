"""Batcher: many calls, one run of the model, and no wait.

Calls that arrive in the same turn of the event loop are answered as one batch: a flush is scheduled behind whatever
else is ready to be read. Under load batches grow by themselves; a lone call goes to the model at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from estiba.core.errors import EstibaError, Unavailable
from estiba.model.coding.coder import Coded, Matrix, Warned
from estiba.model.coding.record_type import Record
from estiba.model.inference.load import Model
from estiba.model.schema.rows import Prediction
from estiba.serving.http.deadline import Expired
from estiba.serving.telemetry.metrics import Metrics

MAX_ROWS = 256
"""Rows in one batch, unless a single call brings more: larger ones gain nothing and delay whoever waits."""


SLICE = 500
"""Rows of a larger call that are worked on at a time: what holds the interpreter's lock, holds it for that long."""


class ModelFailed(EstibaError):
    """The model itself raised. The caller learns an id; the log has the rest."""

    status = 500


Answered = tuple[Sequence[Prediction], Sequence[Warned], Exception | None]
Done = Callable[[Sequence[Prediction], Sequence[Warned], Exception | None], None]


class Call:
    """Rows that wait for a model: `records` of the coder's type, or rows that are coded already.

    After its `deadline`, on the clock of `time.perf_counter`, it never reaches the model.
    """

    __slots__ = ("coded", "count", "deadline", "done", "records")

    def __init__(self, records: Sequence[Record], coded: Coded | None, done: Done, deadline: float) -> None:
        self.records = records
        self.coded = coded
        self.count = len(records) if coded is None else len(coded)
        self.done = done
        self.deadline = deadline


class Batcher:
    """Answers calls to one model. Lives on one event loop.

    An engine that holds the interpreter lock for long (`python`) runs in a thread of its own, one batch at a time, and
    what arrives meanwhile is the next batch.
    """

    def __init__(self, model: Model, metrics: Metrics, max_queued_rows: int) -> None:
        self.model = model
        self._most = max_queued_rows
        self._calls: deque[Call] = deque()
        self._rows = 0
        self._ran: deque[tuple[int, float, tuple[Warned, ...]]] = deque()
        self.times = (0.0, 0.0)
        """When the batch whose calls are being answered began and ended in the model, by `time.perf_counter`."""
        self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ThreadPoolExecutor(1, model.name) if model.manifest.engine == "python" else None
        name, version = model.name, model.version
        self._seconds = metrics.histogram("estiba_predict_duration_seconds", name, version)
        self._sizes = metrics.histogram("estiba_batch_rows", name, version)
        self._total = metrics.slot("estiba_rows_total", name, version)
        self._queued = metrics.slot("estiba_queue_rows", name)
        self._unseen = {
            field.name: metrics.slot("estiba_unseen_category_total", name, field.name)
            for field in model.signature.fields
            if field.kind == "category" and field.unseen != "error"
        }

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return self._rows

    def submit(self, call: Call) -> None:
        """Takes a call; its `done` is called on the event loop, never from within this call.

        Raises:
            Unavailable: too many rows wait already.
        """
        if self._rows + call.count > self._most and self._rows:
            raise Unavailable(f"{self._rows} rows wait for {self.model.name} already.")
        self._calls.append(call)
        self._rows += call.count
        self._queued.add(call.count)
        if not self._scheduled:
            self._scheduled = True
            self._loop = self._loop or asyncio.get_running_loop()
            self._loop.call_soon(self._flush)

    def run(self, coded: Coded) -> tuple[list[Prediction], tuple[float, float]]:
        """Asks the model, in any thread, and says when that began and ended; `settle` counts it.

        Raises:
            ModelFailed: it answered another number of rows than it was asked.
        """
        started = time.perf_counter()
        raw = self.model.answer(coded)
        ended = time.perf_counter()
        self._ran.append((len(coded), ended - started, coded.warnings))
        return self._shown(coded, raw), (started, ended)

    def run_large(
        self, records: Sequence[Record], coded: Coded | None
    ) -> tuple[list[Prediction], list[Warned], tuple[float, float]]:
        """As `run`, for one call in slices that come one after the other; between them others get their turn."""
        predictions: list[Prediction] = []
        warnings: list[Warned] = []
        first = last = seconds = 0.0
        for part in self._slices(records, coded):
            started = time.perf_counter()
            raw = self.model.answer(part)
            last = time.perf_counter()
            first, seconds = first or started, seconds + last - started
            warnings += [Warned(w.code, w.row + len(predictions), w.field) for w in part.warnings]
            predictions += self._shown(part, raw)
        warnings += coded.warnings if coded is not None else ()
        self._ran.append((len(predictions), seconds, tuple(warnings)))
        return predictions, warnings, (first, last)

    def _shown(self, coded: Coded, raw: Matrix) -> list[Prediction]:
        if len(raw) != len(coded):
            raise ModelFailed(f"{len(coded)} rows were answered with {len(raw)}.")
        return self.model.predictions.rows(raw)

    def settle(self) -> None:
        """Counts what ran. On the event loop alone, as numbers in the metrics file have no lock."""
        while self._ran:
            rows, seconds, warnings = self._ran.popleft()
            self._seconds.observe(seconds)
            self._sizes.observe(rows)
            self._total.add(rows)
            for warned in warnings:
                self._unseen[warned.field].add()

    def _slices(self, records: Sequence[Record], coded: Coded | None) -> Iterator[Coded]:
        """The rows of a large call, a slice at a time; records are coded as they come, with their warnings.

        An engine in a process of its own holds no lock of this one, and pays for every call: it gets all at once.
        """
        size = SLICE if self._thread is None else max(1, len(records), len(coded) if coded is not None else 0)
        if coded is None:
            for start in range(0, len(records), size):
                yield self.model.coder.pack(records[start : start + size])
        else:
            for start in range(0, len(coded), size):
                texts = {name: values[start : start + size] for name, values in coded.texts.items()}
                yield Coded(coded.matrix[start : start + size], texts)

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self.model.engine.close()

    def expire(self) -> None:
        """Answers calls whose time is over while they wait. On the event loop."""
        now = time.perf_counter()
        late = [call for call in self._calls if call.deadline < now]
        if late:
            self._calls = deque(call for call in self._calls if call.deadline >= now)
            self._forget(late)

    def _forget(self, late: list[Call]) -> None:
        rows = sum(call.count for call in late)
        self._rows -= rows
        self._queued.add(-rows)
        for call in late:
            call.done((), (), Expired())

    def _take(self) -> tuple[list[Call], list[Call]]:
        """Calls for one batch, and those before them whose time is over."""
        taken: list[Call] = []
        late: list[Call] = []
        rows, now = 0, time.perf_counter()
        while self._calls and (not taken or rows + self._calls[0].count <= MAX_ROWS):
            call = self._calls.popleft()
            if call.deadline < now:
                late.append(call)
            else:
                rows += call.count
                taken.append(call)
        self._rows -= rows
        self._queued.add(-rows)
        return taken, late

    def _flush(self) -> None:
        calls, late = self._take()
        if not calls:
            self._finish([], [])
        elif self._thread is None:
            self._finish(calls, self._answer(calls))
        else:
            self._start(calls, self._thread)
        if late:
            self._forget(late)

    def _start(self, calls: list[Call], thread: ThreadPoolExecutor) -> None:
        assert self._loop is not None
        loop = self._loop
        future = loop.run_in_executor(thread, self._answer, calls)
        future.add_done_callback(lambda f: None if f.cancelled() else self._finish(calls, f.result()))

    def _finish(self, calls: list[Call], answers: list[Answered]) -> None:
        self.settle()
        # First of all the next batch, which must not hang on what becomes of this one.
        self._scheduled = bool(self._calls)
        if self._scheduled and self._loop is not None:
            self._loop.call_soon(self._flush)
        for call, answer in zip(calls, answers, strict=True):
            call.done(*answer)

    def _answer(self, calls: list[Call]) -> list[Answered]:
        try:
            coded = self._code(calls)
            predictions, self.times = self.run(coded)
        except Unavailable as error:
            return [((), (), error)] * len(calls)
        except Exception as error:
            if len(calls) > 1:  # one call's rows must not spoil another's
                return [self._answer([call])[0] for call in calls]
            failure = ModelFailed(f"{type(error).__name__}: {error}")
            failure.__cause__ = error
            return [((), (), failure)]
        if len(calls) == 1:
            return [(predictions, coded.warnings, None)]
        return _split(calls, predictions, coded.warnings)

    def _code(self, calls: list[Call]) -> Coded:
        coder = self.model.coder
        if len(calls) == 1:
            return calls[0].coded or coder.pack(calls[0].records)
        if all(call.coded is None for call in calls):
            return coder.pack([record for call in calls for record in call.records])
        return _join([call.coded or coder.pack(call.records) for call in calls])


def _split(calls: list[Call], predictions: list[Prediction], warnings: Sequence[Warned]) -> list[Answered]:
    answers: list[Answered] = []
    start = 0
    for call in calls:
        end = start + call.count
        own = [Warned(w.code, w.row - start, w.field) for w in warnings if start <= w.row < end] if warnings else ()
        answers.append((predictions[start:end], own, None))
        start = end
    return answers


def _join(parts: Sequence[Coded]) -> Coded:
    """Coded rows of several calls, one behind the other."""
    warnings: list[Warned] = []
    start = 0
    for part in parts:
        warnings += [Warned(w.code, w.row + start, w.field) for w in part.warnings]
        start += len(part)
    texts = {name: [v for part in parts for v in part.texts[name]] for name in parts[0].texts}
    return Coded(np.concatenate([part.matrix for part in parts]), texts, tuple(warnings))
