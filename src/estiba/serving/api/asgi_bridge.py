"""Bridge: hands a request that is no prediction to an ASGI application and sends its answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import unquote

from estiba.core.log import Log
from estiba.serving.http.connection import Connection, Request, header_lines
from estiba.serving.http.problem_details import CONTENT_TYPE, problem
from estiba.serving.telemetry.access_log import AccessLog, is_probe
from estiba.serving.telemetry.tracing import Tracer

_OURS = frozenset({b"content-length", b"date", b"connection", b"transfer-encoding"})


class Bridge:
    """One ASGI application behind connections. Answers are collected whole: none of them is large or a stream."""

    def __init__(self, app: Any, log: Log, access: AccessLog, tracer: Tracer | None = None) -> None:
        self._app = app
        self._tracer = tracer
        self._log = log
        self._access = access
        self._tasks: set[asyncio.Task[None]] = set()

    def handle(self, connection: Connection, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(self._run(connection, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, connection: Connection, request: Request) -> None:
        if self._tracer is not None and not is_probe(request.path):
            self._tracer.begin(request)
        answer, scope = _Answer(bytes(request.body)), _scope(request, connection.own)
        try:
            await self._app(scope, answer.receive, answer.send)
        except Exception as error:
            self._log.error("request failed", error=error, request_id=request.id, path=request.path.decode("latin-1"))
            answer.status = 500
            answer.headers = [(b"content-type", CONTENT_TYPE)]
            answer.body = [problem(500, "The log has the reason under the request's id.", request_id=request.id)]
        headers = [(k, v) for k, v in answer.headers if k.lower() not in _OURS]
        if not any(key == b"x-request-id" for key, _ in headers):
            headers.append((b"x-request-id", request.id.encode()))
        if request.trace is not None:
            headers.append((b"traceresponse", request.trace.header))
        self._note(request, answer.status, getattr(scope.get("route"), "path", ""))
        connection.respond(request, answer.status, header_lines(headers), b"".join(answer.body))

    def _note(self, request: Request, status: int, route: str) -> None:
        """A span, and a line in the log. What is nowhere has no route: its path may say anything."""
        seconds = time.perf_counter() - request.arrived
        if self._tracer is not None and request.trace is not None:
            self._tracer.end(request, status, seconds, route=route or "/*")
        if (status >= 400 or not is_probe(request.path)) and self._access.wants(status):
            self._access.add(request, status, seconds, route=route)


class _Answer:
    def __init__(self, body: bytes) -> None:
        self._received = body
        self._sent = False
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
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


def _scope(request: Request, own: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(request.path.decode("latin-1")),
        "raw_path": request.path,
        "query_string": request.query,
        "root_path": "",
        "headers": request.headers,
        "client": None,
        "server": None,
        "state": {"request_id": request.id, "own": own},
    }
