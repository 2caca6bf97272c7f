"""HTTP/1.1 on an asyncio Protocol: bytes to Request, Response to bytes, and a connection's whole life.

Predictions are answered from here without a task per request. Everything else is handed to an ASGI application by
`serving/bridge.py`. Parsing is llhttp's, through httptools; its strict mode refuses what could smuggle a request.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol as Interface
from typing import cast

import httptools
import msgspec

Headers = list[tuple[bytes, bytes]]

MAX_PIPELINED = 16
"""Requests read ahead on one connection; beyond this its socket is not read until answers have gone out."""

LINGER = 2.0
"""Seconds for which a refused client may go on sending before its connection is closed."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a connection. Sizes are in bytes, times in seconds."""

    max_body: int = 16 * 1024 * 1024
    max_header: int = 32 * 1024
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    idle_timeout: float = 75.0
    write_timeout: float = 30.0


class Request:
    """One request, complete with its body. Header names are in lower case."""

    __slots__ = ("arrived", "body", "content_type", "headers", "id", "keep_alive", "method", "path", "query")

    def __init__(self, method: bytes, path: bytes, query: bytes, headers: Headers) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = b""
        self.keep_alive = True
        self.content_type = b""
        self.id = ""
        self.arrived = 0.0

    def header(self, name: bytes) -> bytes:
        """The first header of that name (lower case), empty if absent."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""


class App(Interface):
    """What a connection needs of the server behind it."""

    options: HttpOptions
    connections: set[Connection]
    draining: bool

    def handle(self, connection: Connection, request: Request) -> None:
        """Answers `request`, now or later, by exactly one call of `connection.respond`."""

    def refuse(self, status: int, detail: str) -> tuple[Headers, bytes]:
        """Headers and body of an answer to something that is no proper request."""


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered one at a time and in order."""

    __slots__ = (
        "_app",
        "_body",
        "_busy",
        "_continue",
        "_header_bytes",
        "_headers",
        "_length",
        "_parser",
        "_pumping",
        "_queue",
        "_reading_paused",
        "_refused",
        "_request",
        "_size",
        "_target",
        "_transport",
        "_type",
        "_write_paused",
        "deadline",
    )

    def __init__(self, app: App) -> None:
        self._app = app
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._request: Request | None = None
        self._busy = self._pumping = self._refused = False
        self._reading_paused = self._write_paused = self._continue = False
        self._header_bytes = 0
        self._target = b""
        self._headers: Headers = []
        self._type = b""
        self._length = -1
        self._body: list[bytes] = []
        self._size = 0
        self.deadline = 0.0

    # The connection itself

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own types do not derive from asyncio's
        self.deadline = time.monotonic() + self._app.options.header_timeout
        self._app.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._app.connections.discard(self)
        self._transport = None
        self._queue.clear()

    def pause_writing(self) -> None:
        self._write_paused = True
        self.deadline = time.monotonic() + self._app.options.write_timeout
        self._read_or_pause()

    def resume_writing(self) -> None:
        self._write_paused = False
        self.deadline = time.monotonic() + self._app.options.idle_timeout
        self._read_or_pause()
        self._pump()

    def _read_or_pause(self) -> None:
        pause = self._write_paused or len(self._queue) >= MAX_PIPELINED
        if pause == self._reading_paused or self._transport is None or self._transport.is_closing():
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @property
    def idle(self) -> bool:
        """Nothing is being read or answered."""
        return not self._busy and not self._queue and self._request is None and self._header_bytes == 0

    def expire(self) -> None:
        """Its time is up: a request half sent is told so, anything else is closed."""
        if not self._refused and (self._request is not None or self._header_bytes):
            self._refuse(408, "The request did not arrive in time.")
        elif self._transport is not None:
            self._transport.abort() if self._write_paused else self._transport.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # Parsing: called by httptools

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._request is None:
            self._header_bytes += len(data)
            if self._header_bytes > self._app.options.max_header + len(data):
                self._refuse(431, f"The header is larger than {self._app.options.max_header} bytes.")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Nothing here is upgraded; the request itself was read whole and is answered.
            self._refused = True
        except httptools.HttpParserError as error:
            if not self._refused:
                self._refuse(400, f"This is not a valid HTTP/1.1 request: {error}")

    def on_message_begin(self) -> None:
        self._header_bytes = self._header_bytes or 1
        self.deadline = time.monotonic() + self._app.options.header_timeout
        self._request = None
        self._target = b""
        self._body = []
        self._size = 0
        self._headers = []
        self._type = b""
        self._length = -1
        self._continue = False

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._app.options.max_header:
            self._refuse(414, "The request target is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        if name == b"content-type":
            self._type = value
        elif name == b"content-length":
            self._length = int(value) if value.isdigit() else -1
        elif name == b"expect":
            self._continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        path, _, query = self._target.partition(b"?")
        request = Request(self._parser.get_method(), path, query, self._headers)
        request.content_type = self._type
        request.keep_alive = self._parser.should_keep_alive()
        self._request = request
        self.deadline = time.monotonic() + self._app.options.body_timeout
        if self._length > self._app.options.max_body:
            self._refuse(413, f"The body is larger than {self._app.options.max_body} bytes.")
        elif self._continue and self._transport is not None and not self._busy:
            self._transport.write(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._size += len(data)
        if self._size > self._app.options.max_body and not self._refused:
            self._refuse(413, f"The body is larger than {self._app.options.max_body} bytes.")

    def on_message_complete(self) -> None:
        request = self._request
        if self._refused or request is None:
            return
        self._request = None
        self._header_bytes = 0
        body = self._body
        request.body = body[0] if len(body) == 1 else b"".join(body)
        request.arrived = time.perf_counter()
        self.deadline = float("inf")
        self._queue.append(request)
        if not self._busy:
            self._pump()
        elif len(self._queue) >= MAX_PIPELINED:
            self._read_or_pause()

    # Answering

    def _pump(self) -> None:
        """Starts requests while none is being answered. A loop, as one may be answered before `handle` returns."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue and not self._busy and not self._write_paused and self._transport is not None:
                self._busy = True
                self._app.handle(self, self._queue.popleft())
        finally:
            self._pumping = False
        if self._reading_paused:
            self._read_or_pause()

    def respond(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """Sends the one answer to `request`.

        Args:
            headers: header lines, each ended by CRLF; Content-Length, Date and Connection are added here.
        """
        transport = self._transport
        self._busy = False
        if transport is None:
            return
        closing = self._app.draining or not request.keep_alive
        head = b"%bdate: %b\r\n%bcontent-length: %d\r\n%b\r\n" % (
            _STATUS.get(status) or f"HTTP/1.1 {status} Unknown\r\n".encode(),
            _date(),
            headers,
            len(body),
            b"connection: close\r\n" if closing else b"",
        )
        transport.write(head if request.method == b"HEAD" else head + body)
        if closing:
            self._refused = True
            self._queue.clear()
            transport.close()
            return
        if not self._write_paused:
            self.deadline = time.monotonic() + self._app.options.idle_timeout
        if self._queue and not self._pumping:
            self._pump()

    def _refuse(self, status: int, detail: str) -> None:
        """Answers what is no proper request, or one over a limit, and closes: what follows it cannot be trusted."""
        self._refused = True
        self._queue.clear()
        transport = self._transport
        if transport is None:
            return
        if self._busy:
            # An earlier request's answer is still to come; this connection just ends after it.
            transport.close()
            return
        pairs, body = self._app.refuse(status, detail)
        head = _STATUS[status] + header_lines(pairs)
        transport.write(b"%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (head, len(body), body))
        # A client that is still sending would lose this answer to a reset: say goodbye, and read on for a while.
        transport.write_eof()
        self.deadline = time.monotonic() + LINGER


def header_lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


_date_cache = (0, b"")


def _date() -> bytes:
    """The Date header's value, made once a second (RFC 9110, section 6.6.1)."""
    global _date_cache
    now = int(time.time())
    if _date_cache[0] != now:
        _date_cache = (now, formatdate(now, usegmt=True).encode())
    return _date_cache[1]
