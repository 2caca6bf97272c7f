"""Endpoint: one version of one model behind one protocol. A protocol says how to decode, to encode and to complain;
batching, threads for large bodies, metrics and the log are the same for all."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from estiba.core.errors import BadInput, EstibaError, Problem, Unavailable
from estiba.core.ids import Ids
from estiba.core.log import Log
from estiba.model.coding.coder import Coded, Warned
from estiba.model.coding.record_type import Record
from estiba.model.inference.load import Model
from estiba.model.schema.rows import Prediction
from estiba.serving.batcher import Batcher, Call, ModelFailed
from estiba.serving.http import deadline
from estiba.serving.http.connection import Connection, Request
from estiba.serving.http.trace_context import trace_id
from estiba.serving.options import ServerOptions
from estiba.serving.protocols.body_parsing import ENCODINGS, EncodingNotSupported, decompressed
from estiba.serving.telemetry.access_log import AccessLog
from estiba.serving.telemetry.metrics import Histogram, Metrics, Slot
from estiba.serving.telemetry.tracing import Tracer

INLINE_BYTES = 64 * 1024
"""Bodies up to this size are decoded on the event loop; larger ones in a thread, so that small ones do not wait."""

MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Larger bodies that may wait for a thread; beyond this a call is refused at once."""

JSON = b"content-type: application/json\r\n"

_MORE_HEADERS = {503: b"retry-after: 1\r\n"}
_ACCEPT_ENCODING = b"accept-encoding: %b\r\n" % ", ".join(ENCODINGS).encode()
_REASONS = {503: "full", 504: "deadline"}


class Shared(NamedTuple):
    """What all models of a server share."""

    options: ServerOptions
    metrics: Metrics
    ids: Ids
    log: Log
    access: AccessLog
    executor: Executor
    tracer: Tracer | None = None


class Served:
    """One version of one model, and what its endpoints share."""

    def __init__(self, model: Model, shared: Shared) -> None:
        self.model = model
        self.batcher = Batcher(model, shared.metrics, shared.options.max_queued_rows)
        self.timeout = shared.options.request_timeout
        self.max_body = shared.options.http.max_body
        self.metrics = shared.metrics
        self.ids = shared.ids
        self.log = shared.log
        self.access = shared.access
        self.executor = shared.executor
        self.tracer = shared.tracer
        self.in_flight = shared.metrics.slot("estiba_requests_in_flight", model.name)
        self.waiting = 0
        """Bytes of bodies that wait for a thread."""


class Asked(NamedTuple):
    """A decoded request: `records` of the coder's type, or rows that are coded already; `how` is for `encode`."""

    records: Sequence[Record] = ()
    coded: Coded | None = None
    how: Any = None


class Failure(NamedTuple):
    """What went wrong with a request, before a protocol puts it in words."""

    status: int
    detail: str
    kind: str = ""
    errors: Sequence[Problem] = ()


Sent = tuple[bytes, bytes]
"""Header lines of an answer, each ended by CRLF, and its body."""


class Endpoint(ABC):
    """One version of one model, answering one protocol."""

    protocol: ClassVar[str]
    invalid: ClassVar[int] = 422
    """The status for rows that do not match the signature."""
    allow: ClassVar[bytes] = b"POST"
    """The methods that it takes."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.model = model = served.model
        self.batcher = served.batcher
        self._in_flight = served.in_flight
        self._tracer = served.tracer
        self._codes: dict[int, Slot] = {}
        for reason in _REASONS.values():  # there at 0, or Prometheus would not see the first of them as a rise
            served.metrics.slot("estiba_rejected_total", model.name, reason)
        named = {"name": model.name, "version": model.version, "protocol": self.protocol}
        self._attributes: dict[str, Any] = {f"estiba.model.{key}": value for key, value in named.items()}
        self._about = b"x-model-version: %b\r\nx-request-id: " % model.version.encode()

    # A protocol that nobody speaks leaves no series in the metrics.

    @cached_property
    def _ok(self) -> Slot:
        return self._code(200)

    @cached_property
    def _seconds(self) -> Histogram:
        labels = (self.model.name, self.model.version, self.protocol)
        return self.served.metrics.histogram("estiba_request_duration_seconds", *labels)

    # What a protocol says

    @abstractmethod
    def decode(self, request: Request) -> Asked:
        """What is asked. Called in any thread; raises EstibaError."""

    @abstractmethod
    def encode(self, request: Request, predictions: Sequence[Prediction], warnings: Sequence[Warned], how: Any) -> Sent:
        """The answer. Called in any thread."""

    @abstractmethod
    def problem(self, request: Request, failure: Failure) -> Sent:
        """The answer to a request that failed."""

    def is_large(self, request: Request) -> bool:
        """Whether it would hold up the event loop. A small body that is compressed may become large."""
        return len(request.body) > INLINE_BYTES or request.content_encoding != b""

    # What is the same for all

    def handle(self, connection: Connection, request: Request) -> None:
        """Answers a prediction request, now or later, by one call of `connection.respond`."""
        request.id = request_id(request) or self.served.ids.next()
        self._in_flight.add()
        if self._tracer is not None:
            self._tracer.begin(request)
        try:
            until = deadline.deadline(request, self.served.timeout)
            if self.is_large(request):
                self._large(connection, request, until)
            else:
                records, coded, how = self.decode(request)
                if request.trace is not None:
                    request.trace.decoded = time.perf_counter()
                self.batcher.submit(Call(records, coded, self._answerer(connection, request, how), until))
        except Exception as error:
            self._fail(connection, request, error)

    def _answerer(self, connection: Connection, request: Request, how: Any) -> Callable[..., None]:
        def done(predictions: Sequence[Prediction], warnings: Sequence[Warned], error: Exception | None) -> None:
            if request.trace is not None and error is None:
                request.trace.began, request.trace.ended = self.batcher.times
            if error is None:
                try:
                    sent = self.encode(request, predictions, warnings, how)
                except Exception as failure:  # a label that JSON does not know must not cost other calls their answers
                    error = failure
            if error is not None:
                self._fail(connection, request, error)
            else:
                self._succeed(connection, request, sent, len(predictions))

        return done

    def _large(self, connection: Connection, request: Request, until: float) -> None:
        """Decodes, predicts and encodes in a thread; only the answer comes back to the event loop."""
        size = len(request.body)
        if self.served.waiting + size > MAX_WAITING_BYTES and self.served.waiting:
            raise Unavailable("Too many large requests wait already.")
        self.served.waiting += size
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self.served.executor, self._work, request, until)
        future.add_done_callback(lambda done: self._finish_large(connection, request, size, done))

    def _work(self, request: Request, until: float) -> tuple[Sent, int]:
        """The answer, and of how many rows."""
        deadline.check(until)
        if request.content_encoding:
            request.body = decompressed(request.body, request.content_encoding, self.served.max_body)
        records, coded, how = self.decode(request)
        deadline.check(until)
        if request.trace is not None:
            request.trace.decoded = time.perf_counter()
        try:
            predictions, warnings, times = self.batcher.run_large(records, coded)
        except EstibaError:
            raise
        except Exception as error:
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        if request.trace is not None:
            request.trace.began, request.trace.ended = times
        return self.encode(request, predictions, warnings, how), len(predictions)

    def _finish_large(
        self, connection: Connection, request: Request, size: int, done: asyncio.Future[tuple[Sent, int]]
    ) -> None:
        self.served.waiting -= size
        self.batcher.settle()
        error = done.exception() if not done.cancelled() else Unavailable("The server is shutting down.")
        if error is None:
            self._succeed(connection, request, *done.result())
        else:
            self._fail(connection, request, error)

    def _succeed(self, connection: Connection, request: Request, sent: Sent, rows: int) -> None:
        self._ok.add()
        self._count(request, 200, rows)
        head = b"%b%b%b\r\n" % (sent[0], self._about, request.id.encode())
        if request.trace is not None:
            head += b"traceresponse: %b\r\n" % request.trace.header
        connection.respond(request, 200, head, sent[1])

    def _fail(self, connection: Connection, request: Request, error: BaseException) -> None:
        failure = self._failure(request, error)
        status = failure.status
        self._code(status).add()
        self._count(request, status, 0)
        reason = _REASONS.get(status, "invalid" if status < 500 else "")
        if reason:
            self.served.metrics.slot("estiba_rejected_total", self.model.name, reason).add()
        head, body = self.problem(request, failure)
        more = b"allow: %b\r\n" % self.allow if status == 405 else _MORE_HEADERS.get(status, b"")
        if isinstance(error, EncodingNotSupported):
            more = _ACCEPT_ENCODING
        if request.trace is not None:
            more += b"traceresponse: %b\r\n" % request.trace.header
        head = b"%b%b%b\r\n%b" % (head, self._about, request.id.encode(), more)
        connection.respond(request, status, head, body)

    def _count(self, request: Request, status: int, rows: int) -> None:
        seconds = time.perf_counter() - request.arrived
        self._seconds.observe(seconds)
        self._in_flight.add(-1)
        if self._tracer is not None and request.trace is not None:
            self._tracer.end(request, status, seconds, about={**self._attributes, "estiba.rows": rows})
        access = self.served.access
        if access.wants(status):
            about = {"model": self.model.name, "model_version": self.model.version, "protocol": self.protocol}
            access.add(request, status, seconds, rows=rows, **about)

    def _failure(self, request: Request, error: BaseException) -> Failure:
        if isinstance(error, BadInput):
            return Failure(self.invalid, "", errors=error.problems)
        if isinstance(error, EstibaError) and not isinstance(error, ModelFailed):
            return Failure(error.status, f"{error.message} {error.hint}" if error.hint else error.message)
        kind = "model-failed" if isinstance(error, ModelFailed) else "internal"
        trace = {"trace_id": given} if (given := trace_id(request)) else {}
        self.served.log.error("request failed", error=error, request_id=request.id, model=self.model.name, **trace)
        return Failure(500, "The log has the reason under the request's id.", kind)

    def _code(self, status: int) -> Slot:
        if status not in self._codes:
            labels = (self.model.name, self.model.version, "", self.protocol, str(status))
            self._codes[status] = self.served.metrics.slot("estiba_requests_total", *labels)
        return self._codes[status]


def request_id(request: Request) -> str:
    """The caller's X-Request-ID, if it is short and plain enough to be passed on; else empty."""
    said = request.header(b"x-request-id")
    if 0 < len(said) <= 128 and all(0x21 <= byte <= 0x7E for byte in said):
        return said.decode()
    return ""
