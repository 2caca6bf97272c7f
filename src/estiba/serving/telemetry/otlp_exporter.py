"""Export finished requests as OpenTelemetry spans over OTLP, in a thread."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import estiba
from estiba.core.log import Log
from estiba.serving.telemetry.access_log import template
from estiba.serving.telemetry.metrics import Slot
from estiba.serving.telemetry.sink import Sink
from estiba.serving.telemetry.tracing import MAX_SPANS, RequestRecord, Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

REST_SECONDS = 9.0
"""Pause for each second of CPU time that spans took: they get at most a tenth of a processor."""

OPEN_SECONDS = 3.0
"""Time that a server which ends waits for the import of OpenTelemetry."""

POLL_SECONDS = 0.1
"""Interval of checks for a full batch."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})


class Exporter:
    """Sends records of requests as spans. Those that the collector does not take, or too late, are lost and counted."""

    def __init__(self, settings: Settings, dropped: Slot, lost: Slot, log: Log) -> None:
        """Start the export thread. It imports OpenTelemetry itself so that startup is not delayed."""
        self._settings = settings
        self._lost = lost
        self._log = log
        self._failing = False
        self._opened = threading.Event()
        self._exporter: Any = None
        self._max_records = max(1, settings.batch // MAX_SPANS)
        self._first_at = 0.0
        self._sink = Sink[RequestRecord](
            "telemetry",
            self._drain,
            max_items=max(1, settings.queue // MAX_SPANS),
            delay=min(settings.delay, POLL_SECONDS),
            dropped=dropped,
            prepare=self._open,
        )
        self._sink.start()
        self.offer = self._sink.offer

    def close(self) -> None:
        """Send what is left, if that takes no longer than a second once the library is imported."""
        self._opened.wait(OPEN_SECONDS)
        if not self._sink.close() and self._exporter is not None:
            self._exporter.shutdown()  # ends its waiting for another try

    def _drain(self, records: deque[RequestRecord], closing: threading.Event) -> None:
        """Send a batch once it is full or old enough; send everything when the sink closes."""
        if closing.is_set():
            while records:
                self._send_some(records, self._resource)
            self._exporter.shutdown()
            return
        now = time.monotonic()
        self._first_at = self._first_at or now
        if len(records) >= self._max_records or now >= self._first_at + self._settings.delay:
            self._first_at = 0.0
            closing.wait(REST_SECONDS * self._send_some(records, self._resource))

    def _open(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource

        # Failures are logged once, by this server's own log, and counted.
        library = logging.getLogger("opentelemetry")
        library.addHandler(logging.NullHandler())
        library.propagate = False
        endpoint = self._settings.endpoint
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces") if endpoint else OTLPSpanExporter()
        ours: dict[str, str | int] = {
            "service.name": "estiba",
            "service.version": estiba.__version__,
            "service.instance.id": str(uuid.uuid4()),
            "process.pid": os.getpid(),
        }
        self._resource = Resource(ours).merge(OTELResourceDetector().detect())
        self._opened.set()

    def _send_some(self, records: deque[RequestRecord], resource: Resource) -> float:
        """Send one batch; return the CPU seconds that it took."""
        began = time.thread_time()
        batch: list[RequestRecord] = []
        with suppress(IndexError):
            while len(batch) * MAX_SPANS < self._settings.batch:
                batch.append(records.popleft())
        try:
            batch_spans = [span for record in batch for span in spans(record, resource)]
            failure = "" if self._exporter.export(batch_spans).name == "SUCCESS" else "the collector did not take them"
        except Exception as error:  # failures of the exporter must not affect the server
            failure = f"{type(error).__name__}: {error}"
        if failure:
            self._lost.add(len(batch))
        if failure and not self._failing:
            self._log.warning("spans are lost", reason=failure)
        self._failing = bool(failure)
        return time.thread_time() - began


def spans(record: RequestRecord, resource: Resource) -> Iterator[ReadableSpan]:
    """The spans of a request: its own, and one for each step that it reached."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

    trace = record.trace
    number, flags = int(trace.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
    state = TraceState.from_header([trace.state]) if trace.state else TraceState()
    scope = InstrumentationScope("estiba", estiba.__version__)

    def at(moment: float) -> int:
        return round((moment + record.offset) * 1e9)

    def context(span_id: str, *, remote: bool = False) -> SpanContext:
        return SpanContext(number, int(span_id, 16), remote, flags, state)

    own = context(trace.span_id)
    method = record.method if record.method in _METHODS else "_OTHER"
    route = record.route or template(record.path)
    attributes = {
        "http.request.method": method,
        "url.scheme": "http",
        "http.route": route,
        "http.response.status_code": record.status,
        **({"error.type": str(record.status)} if record.status >= 500 else {}),
        **{name: value for name, value in record.about.items() if value},
    }
    yield ReadableSpan(
        f"{method} {route}",
        own,
        context(trace.parent, remote=True) if trace.parent else None,
        resource,
        attributes,
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if record.status >= 500 else StatusCode.UNSET),
        start_time=at(record.arrived),
        end_time=at(record.finished),
        instrumentation_scope=scope,
    )
    for step, (name, start, end) in enumerate(_steps(record), 1):
        inner = context(f"{(int(trace.span_id, 16) + step) % (1 << 64) or step:016x}")
        yield ReadableSpan(
            name, inner, own, resource, start_time=at(start), end_time=at(end), instrumentation_scope=scope
        )


def _steps(record: RequestRecord) -> Iterator[tuple[str, float, float]]:
    trace = record.trace
    if "estiba.model.name" not in record.about:
        return
    yield "validate", record.arrived, trace.decoded_at or record.finished
    if trace.decoded_at:
        yield "queue", trace.decoded_at, trace.began_at or record.finished
    if trace.began_at:
        yield "model.predict", trace.began_at, trace.ended_at
        yield "encode", trace.ended_at, record.finished
