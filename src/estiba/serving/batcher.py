"""Run the requests that arrive in the same turn of the event loop as one batch, without waiting for more.

A flush is scheduled behind everything that is ready to be read. So batches grow under load, and a single request goes
to the model at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from estiba.core.errors import BadInput, EstibaError, Unavailable
from estiba.core.log import Log
from estiba.model.coding.coder import Coded, Matrix, Warned
from estiba.model.inference.load import Model
from estiba.model.schema.rows import Prediction
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.http.deadline import Expired
from estiba.serving.pipeline import Batch, Cache, Guard, Pipeline
from estiba.serving.telemetry.metrics import Metrics

MAX_BATCH_ROWS = 256
"""Rows in one batch, unless a single request has more. Larger batches gain no speed and delay the requests in them."""

SLICE_ROWS = 500
"""Rows of a large request that are processed at a time, to bound how long its thread holds the interpreter lock."""


class ModelFailed(EstibaError):
    """The model itself raised an error. The caller gets the request's id; the log has the details."""

    status = 500


class Run(NamedTuple):
    """A finished run of the model, to be counted and observed on the event loop."""

    rows: int
    seconds: float
    warnings: tuple[Warned, ...]
    batches: tuple[Batch, ...]


class Batcher:
    """The queue of one loaded model. Lives on one event loop.

    A python engine, which may hold the interpreter lock for long, runs in a thread, one batch at a time; requests that
    arrive meanwhile form the next batch.

    Attributes:
        pipeline: the policies in force; replaced when the configuration changes.
    """

    def __init__(self, model: Model, metrics: Metrics, max_queued_rows: int, log: Log) -> None:
        self.model = model
        self.pipeline = Pipeline()
        self._guard = Guard(log)
        self._max_queued_rows = max_queued_rows
        self._queue: deque[Exchange] = deque()
        self._rows = 0
        self._runs: deque[Run] = deque()
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

    def submit(self, exchange: Exchange) -> None:
        """Queue a decoded exchange. It is completed on the event loop, never from within this call.

        Raises:
            Unavailable: too many rows wait already.
        """
        count = exchange.count
        if self._rows + count > self._max_queued_rows and self._rows:
            raise Unavailable(f"The model {self.model.name} has {self._rows} rows waiting already.")
        self._queue.append(exchange)
        self._rows += count
        self._queued.add(count)
        if not self._scheduled:
            self._scheduled = True
            self._loop = self._loop or asyncio.get_running_loop()
            self._loop.call_soon(self._flush)

    def ask(self, cache: Cache, exchange: Exchange) -> None:
        """Let the cache answer a decoded exchange; the model does where the cache fails. Raises as `submit`."""
        if not self._guard.ask(cache, exchange, self):
            self.submit(exchange)

    def reuse(self, exchange: Exchange, coded: Coded, raw: Matrix) -> None:
        """Count and observe rows whose answers were known. Only on the event loop."""
        for warning in coded.warnings:
            self._unseen[warning.field].add()
        if self.pipeline.observe:
            now = time.perf_counter()
            self._guard.observe(self.pipeline, Batch(self.model, (exchange,), coded, raw, now, now, is_cached=True))

    def run_large(self, exchange: Exchange) -> Answer:
        """Run one exchange in a thread, in slices between which other threads get the interpreter lock.

        `settle` is to be called afterwards, on the event loop.

        Raises:
            ModelFailed: the model's answer has another number of rows.
        """
        coded = exchange.coded
        predictions: list[Prediction] = []
        warnings: list[Warned] = []
        nulls: list[Warned] = []
        batches: list[Batch] = []
        first = last = seconds = 0.0
        for part in self._slices(exchange):
            started = time.perf_counter()
            raw = self.model.answer(part)
            last = time.perf_counter()
            first, seconds = first or started, seconds + last - started
            warnings += [Warned(w.code, w.row + len(predictions), w.field) for w in part.warnings]
            shown, odd = self._predictions(part, raw)
            nulls += [Warned(w.code, w.row + len(predictions), w.field) for w in odd]
            predictions += shown
            if self.pipeline.observe:
                batches.append(Batch(self.model, (exchange,), part, raw, started, last))
        warnings += coded.warnings if coded is not None else ()
        self._runs.append(Run(len(predictions), seconds, tuple(warnings), tuple(batches)))
        return Answer(predictions, warnings + nulls, first, last)

    def settle(self) -> None:
        """Count and observe finished runs. Only on the event loop, as neither metrics nor observers have a lock."""
        while self._runs:
            rows, seconds, warnings, batches = self._runs.popleft()
            self._seconds.observe(seconds)
            self._sizes.observe(rows)
            self._total.add(rows)
            for warning in warnings:
                self._unseen[warning.field].add()
            for batch in batches:
                self._guard.observe(self.pipeline, batch)

    def close(self) -> None:
        """Stop the thread and the engine."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self.model.engine.close()

    def expire(self) -> None:
        """Refuse queued exchanges whose deadline has passed. Only on the event loop."""
        now = time.perf_counter()
        expired = [exchange for exchange in self._queue if exchange.deadline_at < now]
        if expired:
            self._queue = deque(exchange for exchange in self._queue if exchange.deadline_at >= now)
            self._refuse_expired(expired)

    def _refuse_expired(self, expired: list[Exchange]) -> None:
        rows = sum(exchange.count for exchange in expired)
        self._rows -= rows
        self._queued.add(-rows)
        for exchange in expired:
            exchange.refuse(Expired())

    def _take(self) -> tuple[list[Exchange], list[Exchange]]:
        """Exchanges for one batch, and those ahead of them that have expired."""
        taken: list[Exchange] = []
        expired: list[Exchange] = []
        rows, now = 0, time.perf_counter()
        while self._queue and (not taken or rows + self._queue[0].count <= MAX_BATCH_ROWS):
            exchange = self._queue.popleft()
            if exchange.deadline_at < now:
                expired.append(exchange)
            else:
                rows += exchange.count
                taken.append(exchange)
        self._rows -= rows
        self._queued.add(-rows)
        return taken, expired

    def _flush(self) -> None:
        exchanges, expired = self._take()
        if not exchanges:
            self._finish([], [])
        elif self._thread is None:
            self._finish(exchanges, self._answer(exchanges))
        else:
            self._start(exchanges, self._thread)
        if expired:
            self._refuse_expired(expired)

    def _start(self, exchanges: list[Exchange], thread: ThreadPoolExecutor) -> None:
        assert self._loop is not None
        future = self._loop.run_in_executor(thread, self._answer, exchanges)
        future.add_done_callback(lambda done: self._end_run(exchanges, done))

    def _end_run(self, exchanges: list[Exchange], done: asyncio.Future[list[Answer | EstibaError]]) -> None:
        """Complete a batch that ran in a thread. Whatever it raised, the batches behind it have to run."""
        if done.cancelled():
            return
        error = done.exception()
        self._finish(exchanges, done.result() if error is None else [_failure(error)] * len(exchanges))

    def _finish(self, exchanges: list[Exchange], answers: list[Answer | EstibaError]) -> None:
        self.settle()
        # Schedule the next batch first: it must not depend on whether completing this one fails.
        self._scheduled = bool(self._queue)
        if self._scheduled and self._loop is not None:
            self._loop.call_soon(self._flush)
        for exchange, answer in zip(exchanges, answers, strict=True):
            if isinstance(answer, Answer):
                exchange.endpoint.finish(exchange, answer)
            else:
                exchange.refuse(answer)

    def _answer(self, exchanges: list[Exchange]) -> list[Answer | EstibaError]:
        """Run one batch, in any thread: an answer or an error for each exchange."""
        try:
            coded = self._code(exchanges)
            answer = self._run(exchanges, coded)
        except Unavailable as error:
            return [error] * len(exchanges)
        except Exception as error:
            if len(exchanges) > 1:  # one request's rows must not make others fail
                return [self._answer([exchange])[0] for exchange in exchanges]
            # Steps in Python of a model's own may make of a row what the steps behind them do not take.
            return [error if isinstance(error, BadInput) else _failure(error)]
        return [answer] if len(exchanges) == 1 else _split(exchanges, answer)

    def _run(self, exchanges: list[Exchange], coded: Coded) -> Answer:
        began_at = time.perf_counter()
        raw = self.model.answer(coded)
        ended_at = time.perf_counter()
        observed = self.pipeline.observe
        batches = (Batch(self.model, tuple(exchanges), coded, raw, began_at, ended_at),) if observed else ()
        self._runs.append(Run(len(coded), ended_at - began_at, coded.warnings, batches))
        predictions, nulls = self._predictions(coded, raw)
        kept = None if self.pipeline.cache is None else raw
        return Answer(predictions, (*coded.warnings, *nulls) if nulls else coded.warnings, began_at, ended_at, kept)

    def _predictions(self, coded: Coded, raw: Matrix) -> tuple[list[Prediction], Sequence[Warned]]:
        if len(raw) != len(coded):
            raise ModelFailed(f"{len(coded)} rows were answered with {len(raw)}.")
        return self.model.predictions.with_warnings(raw)

    def _code(self, exchanges: list[Exchange]) -> Coded:
        coder = self.model.coder
        if len(exchanges) == 1:
            return exchanges[0].coded or coder.pack(exchanges[0].records)
        if all(exchange.coded is None for exchange in exchanges):
            return coder.pack([record for exchange in exchanges for record in exchange.records])
        return join([exchange.coded or coder.pack(exchange.records) for exchange in exchanges])

    def _slices(self, exchange: Exchange) -> Iterator[Coded]:
        """Slices of a large request's rows; records are coded slice by slice, with their warnings.

        A python engine runs in a process of its own and pays for every call, so it gets all rows at once.
        """
        coded, records = exchange.coded, exchange.records
        size = SLICE_ROWS if self._thread is None else max(1, exchange.count)
        if coded is None:
            for start in range(0, len(records), size):
                yield self.model.coder.pack(records[start : start + size])
        else:
            for start in range(0, len(coded), size):
                texts = {name: values[start : start + size] for name, values in coded.texts.items()}
                yield Coded(coded.matrix[start : start + size], texts)


def _failure(error: BaseException) -> ModelFailed:
    failure = ModelFailed(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _split(exchanges: list[Exchange], answer: Answer) -> list[Answer | EstibaError]:
    """Each exchange's part of a batch's answer."""
    predictions, warnings, began_at, ended_at, raw = answer
    answers: list[Answer | EstibaError] = []
    start = 0
    for exchange in exchanges:
        end = start + exchange.count
        own = [Warned(w.code, w.row - start, w.field) for w in warnings if start <= w.row < end] if warnings else ()
        kept = None if raw is None else raw[start:end]
        answers.append(Answer(predictions[start:end], own, began_at, ended_at, kept))
        start = end
    return answers


def join(parts: Sequence[Coded]) -> Coded:
    """Concatenate coded rows."""
    if len(parts) == 1:
        return parts[0]
    warnings: list[Warned] = []
    start = 0
    for part in parts:
        warnings += [Warned(w.code, w.row + start, w.field) for w in part.warnings]
        start += len(part)
    texts = {name: [v for part in parts for v in part.texts[name]] for name in parts[0].texts}
    return Coded(np.concatenate([part.matrix for part in parts]), texts, tuple(warnings))
