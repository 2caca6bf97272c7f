"""Decide which requests are traced, and queue a record of each for the OTLP exporter.

On the event loop a request only adds a record of its times to a bounded queue. A thread (`otlp_exporter.py`) turns
records into spans and sends them. Records that do not fit are dropped and counted. Without an endpoint nothing is
recorded.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from estiba.core.errors import BadProject, MissingExtra
from estiba.core.installation import install_command
from estiba.serving.exchange import Exchange
from estiba.serving.http import trace_context
from estiba.serving.http.trace_context import Trace

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class TelemetryOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[server.telemetry]`: spans of requests, sent as OTLP over HTTP. The standard OTEL_* variables take precedence.

    Args:
        endpoint: URL of a collector, such as http://localhost:4318; empty sends no spans.
        sampling: the share of traces starting here that are recorded, 0 to 1; a caller's own decision is followed.
    """

    endpoint: str = ""
    sampling: Annotated[float, Meta(ge=0, le=1)] = 1.0


class Settings(NamedTuple):
    """The settings of tracing, from the options and the environment.

    Args:
        endpoint: URL of the collector; empty if the environment has it, as the exporter reads that itself.
        follow: follow a caller's decision to record a trace.
        share: of the other traces, the share that is recorded, 0 to 1.
        queue: maximum number of queued spans. batch: maximum number of spans per request to the collector.
        delay: seconds to wait for a full batch.
    """

    endpoint: str
    follow: bool
    share: float
    queue: int
    batch: int
    delay: float


CLOCK_STEP_SECONDS = 0.001
"""Difference of the wall clock from its offset that counts as a step of the clock."""


class RequestRecord(NamedTuple):
    """A finished request to export. `offset` brings times of `time.perf_counter` to seconds since 1970."""

    trace: Trace
    method: str
    path: str
    route: str
    status: int
    arrived: float
    finished: float
    offset: float
    about: Mapping[str, Any]


class Tracer:
    """Decides which requests are recorded, and offers a record of each. Lives on one event loop."""

    def __init__(self, settings: Settings, offer: Callable[[RequestRecord], None]) -> None:
        self._offer = offer
        self.settings = settings
        self._bound = round(settings.share * (1 << 64))
        self._offset = 0.0

    def begin(self, exchange: Exchange) -> None:
        """Start a trace, or continue the caller's, if the request is to be recorded."""
        request = exchange.request
        caller = trace_context.parent(request)
        if caller is None:
            number = random.getrandbits(128) or 1
            if number & _LOW < self._bound:
                exchange.trace = Trace(f"{number:032x}", _span_id())
        elif self._is_wanted(caller):
            state = trace_context.state(request)
            exchange.trace = Trace(caller.trace_id, _span_id(), caller.span_id, state)

    def _is_wanted(self, caller: trace_context.Parent) -> bool:
        return caller.is_sampled if self.settings.follow else int(caller.trace_id[16:], 16) < self._bound

    def end(
        self, exchange: Exchange, status: int, seconds: float, *, route: str = "", about: Mapping[str, Any] = _NOTHING
    ) -> None:
        """Queue the record of a finished request that has a trace.

        Args:
            seconds: since it arrived.
            route: its path template; by default that of a prediction path.
            about: further attributes of the span.
        """
        trace, request = exchange.trace, exchange.request
        assert trace is not None
        now = time.perf_counter()
        method, path = request.method.decode("latin-1"), request.path.decode("latin-1")
        about = {"estiba.request.id": exchange.id, **about}
        # One offset for all, so that spans keep their order to the nanosecond; a new one where the clock was set.
        offset = time.time() - now
        if abs(offset - self._offset) > CLOCK_STEP_SECONDS:
            self._offset = offset
        arrived = request.arrived_at
        self._offer(RequestRecord(trace, method, path, route, status, arrived, arrived + seconds, self._offset, about))


MAX_SPANS = 5
"""Spans of one request, at most: its own, validate, queue, model.predict, encode."""

_LOW = (1 << 64) - 1


def _span_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"


def settings(options: TelemetryOptions) -> Settings | None:
    """Read the settings; None if no spans are to be sent.

    Raises:
        BadProject: the endpoint is not a URL. MissingExtra: the project file asks for spans and the library is missing.
    """
    environment = os.environ
    if not _is_wanted(options) or complaint(options):
        return None
    if options.endpoint:
        _check(options.endpoint)
    follow, share = _sampling(environment, options.sampling)
    return Settings(
        endpoint="" if any(environment.get(name) for name in _ENDPOINTS) else options.endpoint,
        follow=follow,
        share=share,
        queue=int(_number(environment, "OTEL_BSP_MAX_QUEUE_SIZE", 2048)),
        batch=int(_number(environment, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)),
        delay=_number(environment, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000,
    )


def complaint(options: TelemetryOptions) -> str:
    """The reason for sending no spans to a configured collector; empty if spans are sent or none is configured.

    The environment is often set for all programs of a machine, so an unsupported value there is not an error.
    """
    environment = os.environ
    if not _is_wanted(options):
        return ""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return "OTEL_SDK_DISABLED is true"
    exporters = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if "otlp" not in exporters.split(","):
        return f"OTEL_TRACES_EXPORTER is {exporters}, and this server supports otlp"
    protocol = next((value for name in _PROTOCOLS if (value := environment.get(name))), "http/protobuf")
    if protocol != "http/protobuf":
        return f"the OTLP protocol is {protocol}, and this server supports http/protobuf"
    return "" if options.endpoint or _is_installed() else f"opentelemetry is missing: {install_command('otel')}"


def _is_wanted(options: TelemetryOptions) -> bool:
    return bool(options.endpoint) or any(os.environ.get(name) for name in _ENDPOINTS)


def _check(endpoint: str) -> None:
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise BadProject(
            f"server.telemetry.endpoint: {endpoint!r} is not the URL of a collector.",
            hint="Write it as http://localhost:4318, without /v1/traces.",
        )
    if not _is_installed():
        raise MissingExtra("The OTLP exporter of opentelemetry", "otel")


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _sampling(environment: Mapping[str, str], share: float) -> tuple[bool, float]:
    """`follow` and `share` of the settings, by OTEL_TRACES_SAMPLER."""
    name = environment.get("OTEL_TRACES_SAMPLER", "").lower()
    follow, kind = not name or name.startswith("parentbased_"), name.removeprefix("parentbased_")
    if kind == "traceidratio":
        return follow, min(max(_number(environment, "OTEL_TRACES_SAMPLER_ARG", 1.0), 0.0), 1.0)
    return follow, {"always_on": 1.0, "always_off": 0.0}.get(kind, share)


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(environment.get(name) or default)
    except ValueError:
        return default
    return number if number > 0 or name.endswith("_ARG") else default
