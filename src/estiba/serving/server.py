"""The server of one worker: pass each request to its endpoint or to the management application, and end connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote_to_bytes

from estiba.core.errors import EstibaError
from estiba.core.ids import Ids
from estiba.serving.api.asgi_bridge import Bridge
from estiba.serving.catalog import CurrentCatalog
from estiba.serving.exchange import Exchange
from estiba.serving.http.compression import Compression
from estiba.serving.http.connection import App, Clock, Connection, Headers, Request, header_lines
from estiba.serving.http.problem_details import FULL, error_response
from estiba.serving.pipeline import Pipeline
from estiba.serving.protocols.endpoint import Endpoint, Shared, request_id
from estiba.serving.telemetry.access_log import is_health_check, is_probe

SWEEP_SECONDS = 0.5
"""Interval of checks for expired connections and requests."""


class Server(App):
    """Serves a catalog over HTTP on one event loop.

    Attributes:
        draining: responses close their connection.
    """

    def __init__(
        self, current: CurrentCatalog, management: Bridge, shared: Shared, *, ports: Collection[int] = ()
    ) -> None:
        """Serve nothing yet.

        Args:
            current: holds the catalog in force.
            management: answers everything but predictions.
            ports: ports with a default model of their own.
        """
        self.options = shared.options.http
        self.ports = ports
        self.connections: set[Connection] = set()
        self.clock = Clock()
        self.buffered = shared.buffered
        self.draining = False
        self.answer_headers: Callable[[Request], bytes] | None = None
        self.compression = None
        if (least := shared.options.compress_from) is not None:
            # A thread of its own: an answer that is computed already does not wait for large requests.
            self.compression = Compression(least, ThreadPoolExecutor(1, "gzip"))
        self._current = current
        self._management = management
        self._log = shared.log
        self._access = shared.access
        self._tracer = shared.tracer
        self._ids = Ids()
        self._open = shared.metrics.slot("estiba_connections")
        self._held = shared.metrics.slot("estiba_buffered_bytes")
        self._refused = shared.metrics.slot("estiba_connections_refused_total")

    def handle(self, connection: Connection, request: Request) -> None:
        path = request.path
        if connection.spare and not is_probe(path):
            self._refuse_spare(connection, request)
            return
        catalog = self._current.catalog
        port = connection.port
        entry = catalog.paths.get((port, path))
        if entry is None and b"%" in path:
            entry = catalog.paths.get((port, unquote_to_bytes(path)))
        exchange = Exchange(connection, request, (request.request_id and request_id(request)) or self._ids.next())
        try:
            if self._tracer is not None and not is_probe(path):
                self._tracer.begin(exchange)
            if entry is None:
                endpoint: Endpoint | Bridge = self._management
            else:
                endpoint = exchange.endpoint = entry.endpoint
                exchange.route = entry.route.name
            if catalog.pipeline.browsers is not None:
                preflight = catalog.pipeline.browsers.preflight(request)
                if preflight is not None:
                    connection.respond(request, 200, preflight, b"")
                    return
            if catalog.pipeline.admit and not self._is_admitted(exchange, endpoint, catalog.pipeline):
                return
            if entry is not None and entry.choose is not None:
                endpoint = exchange.endpoint = entry.choose(exchange).endpoints[entry.protocol]
            if entry is not None and (gate := catalog.pipeline.gate) is not None:
                gate(exchange, _pass_gate)
                return
            endpoint.handle(exchange)
        except Exception as error:
            self._log.error("request failed", error=error, path=path.decode("latin-1"))
            headers, body = self.refuse(500, "The server's log has the error.")
            connection.respond(request, 500, header_lines(headers), body)

    def _is_admitted(self, exchange: Exchange, endpoint: Endpoint | Bridge, pipeline: Pipeline) -> bool:
        """Ask every admission policy; a request that one refuses is answered here. Health checks are admitted."""
        if is_health_check(exchange.request.path):
            return True
        try:
            for admit in pipeline.admit:
                admit(exchange)
        except Exception as error:
            endpoint.reject(exchange, error)
            return False
        return True

    def _refuse_spare(self, connection: Connection, request: Request) -> None:
        """Refuse a client that connected while the server was full."""
        self._refused.add()
        headers, body = self.refuse(503, FULL)
        connection.respond(request, 503, header_lines(headers), body)

    def refuse(self, status: int, detail: str) -> tuple[Headers, bytes]:
        request_id = self._ids.next()
        if self._access.wants(status):
            self._access.write(status, {"status": status, "request_id": request_id, "detail": detail})
        return error_response(status, detail, request_id=request_id)

    async def sweep(self) -> None:
        """End expired connections and requests at intervals, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in [c for c in self.connections if c.expires_at < now]:
                connection.expire()
            self._open.set(len(self.connections))
            self._held.set(self.buffered.held)
            catalog = self._current.catalog
            for batcher in catalog.batchers():
                batcher.expire()
            if catalog.pipeline.cache is not None:
                catalog.pipeline.cache.expire()


class PrefixedServer(Server):
    """A server whose paths answer below a prefix too, for a proxy that does not take it away."""

    def __init__(
        self, current: CurrentCatalog, management: Bridge, shared: Shared, *, ports: Collection[int] = ()
    ) -> None:
        super().__init__(current, management, shared, ports=ports)
        self._prefix = shared.options.prefix.encode()

    def handle(self, connection: Connection, request: Request) -> None:
        path, prefix = request.path, self._prefix
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"/", b""):
            request.path = path[len(prefix) :] or b"/"
        super().handle(connection, request)


def _pass_gate(exchange: Exchange, error: EstibaError | None) -> None:
    if error is None:
        exchange.endpoint.handle(exchange)
    else:
        exchange.endpoint.reject(exchange, error)
