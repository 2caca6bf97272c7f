"""Server: the models it serves, which request goes where, and how it starts and stops."""

from __future__ import annotations

import asyncio
import platform
import signal
import socket
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec

import estiba
from estiba.core import cpus
from estiba.core.addresses import http_url
from estiba.core.errors import NotFound
from estiba.core.ids import Ids
from estiba.core.log import Log
from estiba.model.inference.load import Model
from estiba.serving.api import protocol_routes
from estiba.serving.api.asgi_bridge import Bridge
from estiba.serving.http.connection import App, Clock, Connection, Headers, Request, header_lines
from estiba.serving.http.listen import listen
from estiba.serving.http.problem_details import CONTENT_TYPE, FULL, problem
from estiba.serving.options import ServerOptions
from estiba.serving.protocols import endpoint
from estiba.serving.protocols.endpoint import Served, Shared, request_id
from estiba.serving.protocols.native import Endpoint
from estiba.serving.telemetry import tracing
from estiba.serving.telemetry.access_log import AccessLog, is_probe
from estiba.serving.telemetry.metrics import Metrics, Slot
from estiba.serving.telemetry.tracing import Tracer
from estiba.serving.workers.messages import Status

if TYPE_CHECKING:
    from estiba.serving.telemetry.otlp_exporter import Exporter

RETIRED = 32
"""Versions that are not served any more and still have their numbers in the metrics."""

SWEEP = 0.5
"""Seconds between looks at connections whose time is up."""


class Server(App):
    """Serves models over HTTP on one event loop."""

    def __init__(
        self,
        options: ServerOptions,
        *,
        ports: Mapping[int, str] = MappingProxyType({}),
        metrics_file: Path | None = None,
        status_file: Path | None = None,
    ) -> None:
        from estiba.serving.api.management_routes import application

        self.settings = options
        self.options = options.http
        self.ports = ports
        self.connections: set[Connection] = set()
        self.clock = Clock()
        self.draining = False
        self.ready = False
        self._status_file = status_file
        self.log = Log(options.log)
        self.metrics = Metrics(metrics_file)
        self.metrics.slot("estiba_build_info", estiba.__version__, platform.python_version()).set(1)
        self.endpoints: dict[str, dict[str, Endpoint]] = {}
        self._current: dict[str, str] = {}
        self._shown: dict[str, tuple[Slot, ...]] = {}
        self._protocols: dict[str, dict[str, dict[str, endpoint.Endpoint]]] = {}
        self._hot: dict[str, dict[bytes, endpoint.Endpoint]] = {"": {}}
        self._ids = Ids()
        self._executor = ThreadPoolExecutor(max_workers=max(1, cpus.available()), thread_name_prefix="large")
        skipped = self.metrics.slot("estiba_log_lines_skipped_total")
        self._access = AccessLog(self.log, options.access_log, options.access_log_limit, skipped)
        self._open = self.metrics.slot("estiba_connections")
        self._refused = self.metrics.slot("estiba_connections_refused_total")
        self._tracer, self._exporter = self._tracing()
        # A worker that takes the place of another finds what that counted.
        self._past: list[tuple[str, str, Callable[[], Served | None]]]
        self._past = [(name, version, lambda: None) for name, version in self.metrics.versions()]
        self._bridge = Bridge(application(self), self.log, self._access, self._tracer)

    def _tracing(self) -> tuple[Tracer | None, Exporter | None]:
        """What makes spans and what sends them; nothing where nobody wants any."""
        settings = tracing.settings(self.settings.telemetry)
        if settings is None:
            return None, None
        from estiba.serving.telemetry.otlp_exporter import Exporter

        dropped, lost = (self.metrics.slot("estiba_spans_dropped_total", reason) for reason in ("full", "failed"))
        tracer = Tracer(settings, dropped)
        return tracer, Exporter(tracer, lost, self.log)

    @property
    def status(self) -> Status | None:
        """What the supervisor says of the whole server; None where there is none."""
        if self._status_file is None:
            return None
        try:
            return msgspec.json.decode(self._status_file.read_bytes(), type=Status)
        except (OSError, msgspec.DecodeError):
            return None

    @property
    def state(self) -> str:
        """`ready`, `starting` or `draining`."""
        status = self.status
        if self.draining or (status is not None and status.draining):
            return "draining"
        return "ready" if self.ready else "starting"

    # Models

    def add(self, model: Model, load_seconds: float = 0.0) -> None:
        """Serves a loaded and proven model, as the current version of its name."""
        shared = Shared(self.settings, self.metrics, self._ids, self.log, self._access, self._executor, self._tracer)
        served = Served(model, shared)
        self._retire(model)
        for slot in self._shown.pop(model.name, ()):
            slot.set(0)
        # What an older version has in flight keeps that alive until it is answered.
        self.endpoints[model.name] = {model.version: Endpoint(served)}
        self._protocols[model.name] = {model.version: protocol_routes.endpoints(served)}
        self._current[model.name] = model.version
        self._describe(model, load_seconds)
        self._hot = {own: self._paths(self.default(own)) for own in ("", *self.ports.values())}

    def _retire(self, model: Model) -> None:
        """Remembers the version that `model` takes the place of. What many swaps ago was served, and answers nobody
        any more, leaves the metrics."""
        past = [each for each in self._past if each[:2] != (model.name, model.version)]
        if model.name in self.endpoints and (old := self.current(model.name).model).version != model.version:
            past.append((old.name, old.version, weakref.ref(self.current(model.name).served)))
        while len(past) > RETIRED and past[0][2]() is None:
            name, version, _ = past.pop(0)
            self.metrics.forget(name, version)
        self._past = past

    def _describe(self, model: Model, load_seconds: float) -> None:
        metrics, name, version, manifest = self.metrics, model.name, model.version, model.manifest
        loaded = metrics.slot("estiba_model_loaded", name, version)
        info = metrics.slot("estiba_model_info", name, version, model.digest, manifest.framework, manifest.engine)
        self._shown[name] = (loaded, info)
        for slot in self._shown[name]:
            slot.set(1)
        metrics.slot("estiba_model_load_duration_seconds", name, version).set(load_seconds)
        if model.parity is not None:
            worst = max(model.parity.max_abs_error.values(), default=0.0)
            metrics.slot("estiba_parity_max_abs_error", name, version).set(worst)

    def _paths(self, default: str | None) -> dict[bytes, endpoint.Endpoint]:
        hot: dict[bytes, endpoint.Endpoint] = {}
        for name, versions in self.endpoints.items():
            hot[f"/models/{name}/predict".encode()] = versions[self._current[name]]
            for version, native in versions.items():
                hot[f"/models/{name}/versions/{version}/predict".encode()] = native
                is_current = version == self._current[name]
                is_default = is_current and name == default
                paths = protocol_routes.hot_paths(name, version, is_current=is_current, is_default=is_default)
                hot |= {path: self._protocols[name][version][protocol] for path, protocol in paths.items()}
        if default is not None:
            hot[b"/predict"] = self.current(default)
        return hot

    def default(self, own: str = "") -> str | None:
        """The model that `POST /predict` asks; None where there are several and none was named.

        Args:
            own: the model whose port the client came through; empty for the server's own port.
        """
        named = own or self.settings.default
        if named:
            return named if named in self._current else None
        return next(iter(self._current)) if len(self._current) == 1 else None

    def current(self, name: str) -> Endpoint:
        """The endpoint of a model's current version; raises NotFound."""
        if name not in self._current:
            known = ", ".join(sorted(self._current)) or "none"
            raise NotFound(f"There is no model {name!r} here.", hint=f"Being served: {known}.")
        return self.endpoints[name][self._current[name]]

    def models(self) -> list[Model]:
        """The current version of every model, by name."""
        return [self.current(name).model for name in sorted(self._current)]

    # Requests

    def handle(self, connection: Connection, request: Request) -> None:
        if connection.spare and not is_probe(request.path):
            self._turn_away(connection, request)
            return
        hot = self._hot[connection.own]
        endpoint = hot.get(request.path) or hot.get(normal(request))
        try:
            if endpoint is not None:
                endpoint.handle(connection, request)
            else:
                request.id = request_id(request) or self._ids.next()
                self._bridge.handle(connection, request)
        except Exception as error:
            self.log.error("request failed", error=error, path=request.path.decode("latin-1"))
            headers, body = self.refuse(500, "The log has the reason.")
            connection.respond(request, 500, header_lines(headers), body)

    def _turn_away(self, connection: Connection, request: Request) -> None:
        """Tells a client that came when the server was full; it may ask elsewhere, or later."""
        self._refused.add()
        headers, body = self.refuse(503, FULL)
        connection.respond(request, 503, header_lines([*headers, (b"retry-after", b"1")]), body)

    def refuse(self, status: int, detail: str) -> tuple[Headers, bytes]:
        request_id = self._ids.next()
        if self._access.wants(status):
            self._access.write(status, {"status": status, "request_id": request_id, "detail": detail})
        headers = [(b"content-type", CONTENT_TYPE), (b"x-request-id", request_id.encode())]
        return headers, problem(status, detail, request_id=request_id)

    # Life

    async def run(self, listener: socket.socket, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serves until SIGINT or SIGTERM, then drains: finishes what is in flight, closes politely, returns."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        server = await loop.create_server(self._connection, sock=listener)
        sweeper = loop.create_task(self.sweep())
        self.ready = True
        on_ready()
        try:
            await stop.wait()
            await self._drain(server)
        finally:
            sweeper.cancel()
            self.close()

    def _connection(self) -> Connection:
        most = self.settings.max_connections
        return Connection(self, spare=most is not None and len(self.connections) >= most)

    def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        for versions in self.endpoints.values():
            for each in versions.values():
                each.batcher.close()
        self._access.close()
        if self._exporter is not None:
            self._exporter.close()

    async def _drain(self, server: asyncio.Server) -> None:
        self.ready = False
        self.draining = True
        server.close()
        until = time.monotonic() + self.settings.drain
        while self.connections and time.monotonic() < until:
            for connection in [c for c in self.connections if c.idle]:
                connection.close()
            await asyncio.sleep(0.02)
        if self.connections:
            self.log.warning("stopped with requests in flight", connections=len(self.connections))

    async def sweep(self) -> None:
        """Ends connections and calls whose time is up, for ever."""
        while True:
            await asyncio.sleep(SWEEP)
            now = time.monotonic()
            for connection in [c for c in self.connections if c.deadline < now]:
                connection.expire()
            self._open.set(len(self.connections))
            for versions in self.endpoints.values():
                for each in versions.values():
                    each.batcher.expire()


def normal(request: Request) -> bytes:
    """The path in origin form (RFC 9112, section 3.2), decoded. A target that names its host loses it for good."""
    path = request.path
    if not path.startswith(b"/") and b"://" in path:
        request.path = path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return unquote_to_bytes(path) if b"%" in path else path


def serve(models: Sequence[Model], options: ServerOptions, *, on_ready: Callable[[str], None]) -> None:
    """Serves loaded models until a signal says stop.

    Args:
        on_ready: called with the server's URL once it answers.
    """
    import uvloop

    listener = listen(options.host, options.port)
    host, port = listener.getsockname()[:2]
    server = Server(options)
    for model in models:
        server.add(model)
    uvloop.run(server.run(listener, on_ready=lambda: on_ready(http_url(host, port))))
