"""OTLP: notes of finished requests become spans of OpenTelemetry, and leave for a collector, in a thread of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import estiba
from estiba.core.log import Log
from estiba.serving.telemetry.access_log import template
from estiba.serving.telemetry.metrics import Slot
from estiba.serving.telemetry.tracing import SPANS, Note, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

REST = 9.0
"""Seconds of rest for each second of the processor that spans took: they get a tenth of it, and no more."""

LAST = 1.0
"""Seconds that a server which ends gives its last spans."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"})


class Exporter:
    """Sends what a tracer notes. What a collector does not take, or too late, is lost and counted."""

    def __init__(self, tracer: Tracer, lost: Slot, log: Log) -> None:
        """Begins. The library is imported in the thread too: nobody waits for it."""
        self._tracer = tracer
        self._lost = lost
        self._log = log
        self._end = threading.Event()
        self._failing = False
        self._exporter: Any = None
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sends what is left, if it goes quickly."""
        self._end.set()
        self._thread.join(LAST)
        if self._thread.is_alive() and self._exporter is not None:
            self._exporter.shutdown()  # ends its waiting for another try

    def _run(self) -> None:
        resource = self._open()
        settings, notes = self._tracer.settings, self._tracer.notes
        often = min(settings.delay, 0.1)
        waited = 0.0
        while not self._end.wait(often):
            waited += often
            if notes and (waited >= settings.delay or len(notes) * SPANS >= settings.batch):
                waited = 0.0
                self._end.wait(REST * self._send_some(resource))
        while notes:
            self._send_some(resource)
        self._exporter.shutdown()

    def _open(self) -> Resource:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource

        # What goes wrong is said once, by this server's own log, and counted.
        library = logging.getLogger("opentelemetry")
        library.addHandler(logging.NullHandler())
        library.propagate = False
        endpoint = self._tracer.settings.endpoint
        self._exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces") if endpoint else OTLPSpanExporter()
        ours: dict[str, str | int] = {
            "service.name": "estiba",
            "service.version": estiba.__version__,
            "service.instance.id": str(uuid.uuid4()),
            "process.pid": os.getpid(),
        }
        return Resource(ours).merge(OTELResourceDetector().detect())

    def _send_some(self, resource: Resource) -> float:
        """Sends one batch; the seconds of the processor that it took."""
        began = time.thread_time()
        batch: list[Note] = []
        with suppress(IndexError):
            while len(batch) * SPANS < self._tracer.settings.batch:
                batch.append(self._tracer.notes.popleft())
        try:
            found = [span for note in batch for span in spans(note, resource)]
            failure = "" if self._exporter.export(found).name == "SUCCESS" else "the collector did not take them"
        except Exception as error:  # whatever becomes of spans, the server goes on
            failure = f"{type(error).__name__}: {error}"
        if failure:
            self._lost.add(len(batch))
        if failure and not self._failing:
            self._log.warning("spans are lost", reason=failure)
        self._failing = bool(failure)
        return time.thread_time() - began


def spans(note: Note, resource: Resource) -> Iterator[ReadableSpan]:
    """The spans of a request: its own, and one for each step that it came to."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

    trace = note.trace
    number, flags = int(trace.trace_id, 16), TraceFlags(TraceFlags.SAMPLED)
    state = TraceState.from_header([trace.state]) if trace.state else TraceState()
    scope = InstrumentationScope("estiba", estiba.__version__)

    def at(moment: float) -> int:
        return round((moment + note.offset) * 1e9)

    def context(span_id: str, *, remote: bool = False) -> SpanContext:
        return SpanContext(number, int(span_id, 16), remote, flags, state)

    own = context(trace.span_id)
    method = note.method if note.method in _METHODS else "_OTHER"
    route = note.route or template(note.path)
    attributes = {
        "http.request.method": method,
        "url.scheme": "http",
        "http.route": route,
        "http.response.status_code": note.status,
        **({"error.type": str(note.status)} if note.status >= 500 else {}),
        **{name: value for name, value in note.about.items() if value},
    }
    yield ReadableSpan(
        f"{method} {route}",
        own,
        context(trace.parent, remote=True) if trace.parent else None,
        resource,
        attributes,
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if note.status >= 500 else StatusCode.UNSET),
        start_time=at(note.arrived),
        end_time=at(note.finished),
        instrumentation_scope=scope,
    )
    for place, (name, start, end) in enumerate(_steps(note), 1):
        inner = context(f"{(int(trace.span_id, 16) + place) % (1 << 64) or place:016x}")
        yield ReadableSpan(
            name, inner, own, resource, start_time=at(start), end_time=at(end), instrumentation_scope=scope
        )


def _steps(note: Note) -> Iterator[tuple[str, float, float]]:
    trace = note.trace
    if "estiba.model.name" not in note.about:
        return
    yield "validate", note.arrived, trace.decoded_at or note.finished
    if trace.decoded_at:
        yield "queue", trace.decoded_at, trace.began_at or note.finished
    if trace.began_at:
        yield "model.predict", trace.began_at, trace.ended_at
        yield "encode", trace.ended_at, note.finished
