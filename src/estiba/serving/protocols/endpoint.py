"""The common part of all prediction protocols: one version of one model behind one protocol.

A protocol decodes requests, encodes answers and formats errors. Batching, threads for large bodies, metrics, traces and
the access log are the same for all.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, cast

from estiba.core.errors import BadInput, EstibaError, Problem, Unavailable
from estiba.core.log import Log
from estiba.core.suggest import shortened
from estiba.model.coding.predictions import with_kept
from estiba.serving.batcher import Batcher, ModelFailed
from estiba.serving.exchange import Answer, Exchange
from estiba.serving.http import deadline
from estiba.serving.http.buffered import Buffered
from estiba.serving.http.connection import CROWDED, LARGE_BYTES
from estiba.serving.http.request import Request
from estiba.serving.memory_share import LargeRequests
from estiba.serving.options import ServerOptions
from estiba.serving.pipeline import Ask, Forbidden, TooManyRequests, Unauthorized
from estiba.serving.protocols.body_parsing import ENCODINGS, EncodingNotSupported, NotAllowed, decompressed
from estiba.serving.protocols.repeated_keys import check_of
from estiba.serving.telemetry.access_log import AccessLog
from estiba.serving.telemetry.metrics import Histogram, Metrics, Slot
from estiba.serving.telemetry.tracing import Tracer

INLINE_BYTES = 64 * 1024
"""Largest body that is decoded on the event loop; larger ones go to a thread, so that small ones do not wait."""

JSON = b"content-type: application/json\r\n"

_ACCEPT_ENCODING = b"accept-encoding: %b\r\n" % ", ".join(ENCODINGS).encode()
_REASONS = {401: "unauthorized", 403: "forbidden", 429: "rate", 503: "full", 504: "deadline"}


class Shared(NamedTuple):
    """Objects that all models of a worker share, and the variant of a route whose requests an endpoint answers."""

    options: ServerOptions
    metrics: Metrics
    log: Log
    access: AccessLog
    executor: Executor
    buffered: Buffered
    large: LargeRequests
    tracer: Tracer | None = None
    variant: str = ""


class Failure(NamedTuple):
    """An error as a protocol formats it."""

    status: int
    detail: str
    kind: str = ""
    errors: Sequence[Problem] = ()
    policies: Sequence[str] = ()
    """Names of the limits that were exceeded."""


EncodedResponse = tuple[bytes, bytes]
"""Header lines, each ended by CRLF, and the body."""


class Endpoint(ABC):
    """One version of one model behind one protocol, and behind one variant of a route if it has one.

    Class attributes:
        protocol: its label in metrics.
        invalid: the status for rows that do not match the signature.
        allow: the methods that it takes, as in the Allow header.
        accept_query: the types of bodies that it takes, as in the Accept-Query header (RFC 10008).
    """

    protocol: ClassVar[str]
    invalid: ClassVar[int] = 422
    allow: ClassVar[bytes] = b"POST, QUERY"
    accept_query: bytes = b"application/json"

    def __init__(self, batcher: Batcher, shared: Shared) -> None:
        self.model = model = batcher.model
        self.batcher = batcher
        self.check_keys = check_of(len(model.signature.fields))
        self._shared = shared
        self.variant = shared.variant
        self._timeout = shared.options.request_timeout
        self._max_body = shared.options.http.max_body
        images = any(field.image is not None for field in model.signature.fields)
        self._inline_bytes = -1 if images else INLINE_BYTES  # a few bytes may be an image of millions of pixels
        self._in_flight = shared.metrics.slot("estiba_requests_in_flight", model.name)
        self._codes: dict[int, Slot] = {}
        for reason in ("full", "deadline"):  # present at 0, or Prometheus would not see the first of them as a rise
            shared.metrics.slot("estiba_rejected_total", model.name, reason)
        named = {"name": model.name, "version": model.version, "protocol": self.protocol}
        self._attributes: dict[str, Any] = {f"estiba.model.{key}": value for key, value in named.items()}
        self._keeps = bool(model.signature.keep)
        variant = b"x-model-variant: %b\r\n" % self.variant.encode() if self.variant else b""
        self._headers = b"x-model-version: %b\r\n%bx-request-id: " % (model.version.encode(), variant)

    # Made on first use, so that a protocol that is not used leaves no series in the metrics.

    @cached_property
    def _ok(self) -> Slot:
        return self._code(200)

    @cached_property
    def _seconds(self) -> Histogram:
        labels = (self.model.name, self.model.version, self.protocol)
        return self._shared.metrics.histogram("estiba_request_duration_seconds", *labels)

    # The protocol

    @abstractmethod
    def decode(self, exchange: Exchange) -> None:
        """Set `records` or `coded`, and `answer_options`, from the request. Called in any thread.

        Raises:
            EstibaError: the request is invalid.
        """

    @abstractmethod
    def encode(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        """Format an answer. Called in any thread."""

    @abstractmethod
    def problem(self, exchange: Exchange, failure: Failure) -> EncodedResponse:
        """Format an error."""

    def is_large(self, request: Request) -> bool:
        """Return True if decoding could block the event loop. A small compressed body may become large."""
        return len(request.body) > self._inline_bytes or request.content_encoding != b""

    # The same for all protocols

    def handle(self, exchange: Exchange) -> None:
        """Answer a prediction request, now or later, by one call of `connection.respond`."""
        self._in_flight.add()
        request = exchange.request
        try:
            exchange.deadline_at = deadline.deadline(request, self._timeout)
            if self.is_large(request):
                self._start_large(exchange)
                return
            self.decode(exchange)
            coded = exchange.coded
            exchange.count = len(exchange.records) if coded is None else len(coded)
            if exchange.trace is not None:
                exchange.trace.decoded_at = time.perf_counter()
            charge = self.batcher.pipeline.charge
            if charge is None:
                self._ask_model(exchange)
            else:
                charge(exchange, self._pass_charge)
        except Exception as error:
            self.refuse(exchange, error)

    def _ask_model(self, exchange: Exchange) -> None:
        """Answer a decoded exchange from the cache, or by the model."""
        cache = self.batcher.pipeline.cache
        if cache is None:
            self.batcher.submit(exchange)
        else:
            self.batcher.ask(cache, exchange)

    def _pass_charge(self, exchange: Exchange, error: EstibaError | None) -> None:
        try:
            if error is not None:
                raise error
            self._ask_model(exchange)
        except Exception as failure:
            self.refuse(exchange, failure)

    def finish(self, exchange: Exchange, answer: Answer) -> None:
        """Encode and send the answer."""
        if exchange.trace is not None:
            exchange.trace.began_at, exchange.trace.ended_at = answer.began_at, answer.ended_at
        try:
            response = self._encode_kept(exchange, answer) if self._keeps else self.encode(exchange, answer)
        except Exception as error:  # a label that JSON cannot hold must not make other requests of the batch fail
            self.refuse(exchange, error)
        else:
            self._respond(exchange, response, len(answer.predictions))

    def refuse(self, exchange: Exchange, error: BaseException) -> None:
        """Send the response to an exchange that failed after `handle`."""
        self._in_flight.add(-1)
        if isinstance(error, NotAllowed) and exchange.request.method == b"OPTIONS":
            self._show_methods(exchange)
        else:
            self.reject(exchange, error)

    def _show_methods(self, exchange: Exchange) -> None:
        """Answer a request for the methods of a path."""
        if exchange.release is not None:
            exchange.release()
        self._ok.add()
        self._count(exchange, 200, 0)
        head = b"%b%b%b\r\n" % (self._methods(), self._headers, exchange.id.encode())
        exchange.connection.respond(exchange.request, 200, head, b"")

    def _methods(self) -> bytes:
        """Header lines that say how this path is asked."""
        return b"allow: %b, OPTIONS\r\naccept-query: %b\r\n" % (self.allow, self.accept_query)

    def reject(self, exchange: Exchange, error: BaseException) -> None:
        """Send the response to an exchange that was not admitted, and so was never passed to `handle`."""
        if exchange.release is not None:
            exchange.release()
        failure = self._failure(exchange, error)
        status = failure.status
        self._code(status).add()
        self._count(exchange, status, 0)
        reason = _REASONS.get(status, "invalid" if status < 500 else "")
        if reason:
            self._shared.metrics.slot("estiba_rejected_total", self.model.name, reason).add()
        headers, body = self.problem(exchange, failure)
        more = self._error_headers(error, status) + exchange.policy_fields
        if exchange.trace is not None:
            more += b"traceresponse: %b\r\n" % exchange.trace.header
        head = b"%b%b%b\r\n%b" % (headers, self._headers, exchange.id.encode(), more)
        exchange.connection.respond(exchange.request, status, head, body)

    def _start_large(self, exchange: Exchange) -> None:
        """Decode, predict and encode in a thread; only the response comes back to the event loop."""
        buffered, size = self._shared.buffered, len(exchange.request.body)
        if not buffered.fits(size):
            raise Unavailable(CROWDED)
        buffered.held += size
        if (cache := self.batcher.pipeline.cache) is not None:
            cache.skip(exchange, self.model)
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._shared.executor, self._run_and_give_back, exchange, loop)
        future.add_done_callback(lambda done: self._finish_large(exchange, size, done))

    def _run_and_give_back(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> tuple[EncodedResponse, int]:
        try:
            return self._run_large(exchange, loop)
        finally:
            self._shared.large.give_back()

    def _run_large(self, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> tuple[EncodedResponse, int]:
        """The response and its number of rows."""
        request, large = exchange.request, self._shared.large
        deadline.check(exchange.deadline_at)
        if not large.fits(self._max_body if request.content_encoding else len(request.body)):
            raise Unavailable(CROWDED)
        if request.content_encoding:
            body = decompressed(request.body, request.content_encoding, self._max_body)
            exchange.request = request.with_body(body)
        self.decode(exchange)
        coded = exchange.coded
        exchange.count = len(exchange.records) if coded is None else len(coded)
        deadline.check(exchange.deadline_at)
        if exchange.trace is not None:
            exchange.trace.decoded_at = time.perf_counter()
        charge = self.batcher.pipeline.charge
        if charge is not None:
            _charge_from_thread(charge, exchange, loop)
        try:
            answer = self.batcher.run_large(exchange)
        except EstibaError:
            raise
        except Exception as error:
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        if exchange.trace is not None:
            exchange.trace.began_at, exchange.trace.ended_at = answer.began_at, answer.ended_at
        # The endpoint of the version that answered, where a field of the rows has decided which one it is.
        return cast(Endpoint, exchange.endpoint)._encoded(exchange, answer), len(answer.predictions)

    def _finish_large(self, exchange: Exchange, size: int, done: asyncio.Future[tuple[EncodedResponse, int]]) -> None:
        self._shared.buffered.held -= size
        self.batcher.settle()
        error = done.exception() if not done.cancelled() else Unavailable("The server is shutting down.")
        if error is None:
            cast(Endpoint, exchange.endpoint)._respond(exchange, *done.result())
        else:
            exchange.refuse(error)

    def _respond(self, exchange: Exchange, response: EncodedResponse, rows: int) -> None:
        headers, body = response
        if len(body) > LARGE_BYTES and not exchange.connection.has_room(len(body)):
            self.refuse(exchange, Unavailable(CROWDED))
            return
        self._in_flight.add(-1)
        self._ok.add()
        self._count(exchange, 200, rows)
        if exchange.release is not None:
            exchange.release()
        head = b"%b%b%b\r\n%b" % (headers, self._headers, exchange.id.encode(), exchange.policy_fields)
        if exchange.trace is not None:
            head += b"traceresponse: %b\r\n" % exchange.trace.header
        exchange.connection.respond(exchange.request, 200, head, body)

    def _encoded(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        return self._encode_kept(exchange, answer) if self._keeps else self.encode(exchange, answer)

    def _encode_kept(self, exchange: Exchange, answer: Answer) -> EncodedResponse:
        """Format an answer with the values that the request hands through, which no cache of answers has seen."""
        coded = exchange.coded
        kept = self.model.coder.kept(exchange.records) if coded is None else coded.kept
        return self.encode(exchange, answer._replace(predictions=with_kept(kept, answer.predictions)))

    def _count(self, exchange: Exchange, status: int, rows: int) -> None:
        """Record duration, span and access-log line."""
        seconds = time.perf_counter() - exchange.request.arrived_at
        self._seconds.observe(seconds)
        tracer, access = self._shared.tracer, self._shared.access
        if tracer is not None and exchange.trace is not None:
            tracer.end(exchange, status, seconds, about={**self._attributes, "estiba.rows": rows})
        if access.wants(status):
            about = {"model": self.model.name, "model_version": self.model.version, "protocol": self.protocol}
            access.add(exchange, status, seconds, rows=rows, **about)

    def _failure(self, exchange: Exchange, error: BaseException) -> Failure:
        if isinstance(error, BadInput):
            return Failure(self.invalid, "", errors=error.problems)
        if isinstance(error, EstibaError) and not isinstance(error, ModelFailed):
            policies = error.policies if isinstance(error, TooManyRequests) else ()
            text = f"{error.message} {error.hint}" if error.hint else error.message
            return Failure(error.status, shortened(text), policies=policies)
        kind = "model-failed" if isinstance(error, ModelFailed) else "internal"
        trace = {"trace_id": trace_id} if (trace_id := exchange.trace_id) else {}
        self._shared.log.error("request failed", error=error, request_id=exchange.id, model=self.model.name, **trace)
        return Failure(500, "The server's log has the error, under the request's id.", kind)

    def _error_headers(self, error: BaseException, status: int) -> bytes:
        """Header lines that belong to an error."""
        if isinstance(error, EncodingNotSupported):
            return _ACCEPT_ENCODING
        if isinstance(error, (Unauthorized, Forbidden)) and error.challenge:
            return b"www-authenticate: %b\r\n" % error.challenge.encode()
        if isinstance(error, TooManyRequests):
            return b"retry-after: %d\r\n" % error.retry_after
        if status == 405:
            return self._methods()
        return b"retry-after: 1\r\n" if status == 503 else b""

    def _code(self, status: int) -> Slot:
        if status not in self._codes:
            labels = (self.model.name, self.model.version, self.variant, self.protocol, str(status))
            self._codes[status] = self._shared.metrics.slot("estiba_requests_total", *labels)
        return self._codes[status]


def _charge_from_thread(charge: Ask, exchange: Exchange, loop: asyncio.AbstractEventLoop) -> None:
    """Ask a policy, which lives on the event loop, from another thread, and wait for it; raises its error."""
    asked: Future[None] = Future()

    def done(_: Exchange, error: EstibaError | None) -> None:
        if error is None:
            asked.set_result(None)
        else:
            asked.set_exception(error)

    def ask() -> None:
        try:
            charge(exchange, done)
        except Exception as error:
            asked.set_exception(error)

    loop.call_soon_threadsafe(ask)
    try:
        asked.result(max(0.001, exchange.deadline_at - time.perf_counter()))
    except TimeoutError:
        raise deadline.Expired from None


def request_id(request: Request) -> str:
    """The caller's X-Request-ID, if it is short and plain enough to be passed on; else empty."""
    value = request.request_id
    if 0 < len(value) <= 128 and all(0x21 <= byte <= 0x7E for byte in value):
        return value.decode()
    return ""
