"""Pass requests other than predictions to an ASGI application, and send its response."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from estiba.core.log import Log
from estiba.serving.edge import Edge
from estiba.serving.exchange import Exchange
from estiba.serving.http.compression import is_gzip_accepted
from estiba.serving.http.connection import CROWDED
from estiba.serving.http.problem_details import error_response
from estiba.serving.http.request import Headers, header_lines
from estiba.serving.telemetry.access_log import AccessLog, is_probe
from estiba.serving.telemetry.tracing import Tracer

_SET_BY_CONNECTION = frozenset({b"content-length", b"date", b"connection", b"transfer-encoding"})


class Bridge:
    """One ASGI application behind connections. Responses are collected whole: none of them is large or a stream."""

    def __init__(self, app: Any, log: Log, access: AccessLog, tracer: Tracer | None, edge: Edge) -> None:
        self._app = app
        self._edge = edge
        self._tracer = tracer
        self._log = log
        self._access = access
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, exchange: Exchange) -> None:
        """Answer a request in a task of its own."""
        self._start(exchange, None)

    def reject(self, exchange: Exchange, error: BaseException) -> None:
        """Send the response to a request that was not admitted. The application formats the error."""
        self._start(exchange, error)

    def _start(self, exchange: Exchange, error: BaseException | None) -> None:
        task = asyncio.get_running_loop().create_task(self._run(exchange, error))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange, refusal: BaseException | None) -> None:
        request = exchange.request
        answer, scope = _Answer(bytes(request.body)), _scope(exchange, refusal, self._edge)
        try:
            await self._app(scope, answer.receive, answer.send)
        except Exception as error:
            self._log.error("request failed", error=error, request_id=exchange.id, path=request.path.decode("latin-1"))
            answer.status = 500
            detail = "The server's log has the error, under the request's id."
            answer.headers, problem = error_response(500, detail, request_id=exchange.id)
            answer.body = [problem]
        body = b"".join(answer.body)
        if not exchange.connection.has_room(len(body)):
            answer.status = 503
            answer.headers, body = error_response(503, CROWDED, request_id=exchange.id)
        headers = [(k, v) for k, v in answer.headers if k.lower() not in _SET_BY_CONNECTION]
        if not any(key == b"x-request-id" for key, _ in headers):
            headers.append((b"x-request-id", exchange.id.encode()))
        if exchange.trace is not None:
            headers.append((b"traceresponse", exchange.trace.header))
        self._record(exchange, answer.status, getattr(scope.get("route"), "path", ""))
        exchange.connection.respond(request, answer.status, header_lines(headers), body)

    def _record(self, exchange: Exchange, status: int, route: str) -> None:
        """Record span and access-log line. Unmatched paths are logged without a route (unbounded cardinality)."""
        seconds = time.perf_counter() - exchange.request.arrived_at
        if self._tracer is not None and exchange.trace is not None:
            self._tracer.end(exchange, status, seconds, route=route or "/*")
        if (status >= 400 or not is_probe(exchange.request.path)) and self._access.wants(status):
            self._access.add(exchange, status, seconds, route=route)


class _Answer:
    """Collects the response of an ASGI application."""

    def __init__(self, body: bytes) -> None:
        self._received = body
        self._sent = False
        self.status = 500
        self.headers: Headers = []
        self.body: list[bytes] = []

    async def receive(self) -> dict[str, Any]:
        if self._sent:
            return {"type": "http.disconnect"}
        self._sent = True
        return {"type": "http.request", "body": self._received, "more_body": False}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(k), bytes(v)) for k, v in message.get("headers", ())]
        elif message["type"] == "http.response.body":
            self.body.append(bytes(message.get("body", b"")))


def _scope(exchange: Exchange, refusal: BaseException | None, edge: Edge) -> dict[str, Any]:
    """The ASGI scope.

    Its state has the request's id, the port, the caller's name, the error if it is refused; `root`, the path below
    which the client sees this server; `gzip`, True if the client accepts it; and a page's Strict-Transport-Security.
    The scope has no `root_path`, as its path is without it already.
    """
    request = exchange.request
    seen = edge.seen(exchange)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method.decode(),
        "scheme": seen.scheme or "http",
        "path": request.decoded_path,
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": (seen.client, 0) if seen.client else None,
        "server": None,
        "state": {
            "request_id": exchange.id,
            "port": exchange.connection.port,
            "caller": exchange.caller,
            "refusal": refusal,
            "root": seen.prefix or edge.prefix,
            "gzip": is_gzip_accepted(request),
            "strict_transport": edge.strict_transport(seen),
        },
    }
