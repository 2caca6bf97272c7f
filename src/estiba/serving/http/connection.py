"""An HTTP/1.1 server connection on an asyncio Protocol: parse requests, send responses, enforce limits and timeouts.

Predictions are answered without a task per request; everything else goes to an ASGI application through
`serving/api/asgi_bridge.py`. The parser is llhttp, through httptools; its strict mode refuses most forms of request
smuggling (RFC 9112, section 11.2), and `header_checks.py` refuses the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Protocol as Interface
from typing import cast

import httptools

from estiba.serving.http.buffered import Buffered
from estiba.serving.http.compression import Compression
from estiba.serving.http.header_checks import OTHER_PROTOCOLS, Head, header_too_large
from estiba.serving.http.proxies import UNIX
from estiba.serving.http.request import Clock, Headers, HttpOptions, Request, header_lines, origin_form, status_line
from estiba.serving.http.unsent import unsent_bytes

__all__ = ["App", "Clock", "Connection", "Headers", "HttpOptions", "Request", "header_lines"]

MAX_PIPELINED_REQUESTS = 16
"""Requests read ahead on one connection; beyond this its socket is not read until responses have been sent."""

MIN_READ_RATE_BYTES = 8 * 1024
"""Bytes a second that a client has to read of its responses; a slower one is dropped after `write_timeout`."""

LARGE_BYTES = 64 * 1024
"""Size from which a response is refused while the worker holds too much for its clients already."""

CROWDED = "The server holds too many large requests and answers at the moment."
"""Detail of the refusal of what does not fit into the worker's limit."""

LINGER_SECONDS = 2.0
"""Time for which a refused client may go on sending before its connection is closed."""

NEVER = float("inf")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS = {s.value: status_line(s.value, s.phrase) for s in HTTPStatus}


class App(Interface):
    """The server, as far as a connection needs it.

    Attributes:
        buffered: what is held for all clients together.
        draining: responses close their connection.
        ports: ports with a default model of their own.
        answer_headers: gives header lines that every answer gets; None where there are none.
        compression: compresses large answers; None where none are.
    """

    options: HttpOptions
    connections: set[Connection]
    clock: Clock
    buffered: Buffered
    draining: bool
    ports: Collection[int]
    answer_headers: Callable[[Request], bytes] | None = None
    compression: Compression | None = None

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer `request`, now or later, by exactly one call of `connection.respond`. Must not raise."""

    def refuse(self, status: int, detail: str) -> tuple[Headers, bytes]:
        """Headers and body of the response to an invalid request."""


class Connection(asyncio.Protocol):
    """One client connection. Requests are answered one at a time and in order.

    An invalid request is refused in its turn and ends the connection, because the bytes after it cannot be trusted.

    Attributes:
        expires_at: when `expire` is to be called, on the monotonic clock.
        port: the local port, if it has a default model of its own; else 0.
        spare: the server is full, so the first response is the last.
    """

    __slots__ = (
        "_app",
        "_body",
        "_busy",
        "_codings",
        "_continue",
        "_encoding",
        "_ended",
        "_eof",
        "_header_bytes",
        "_headers",
        "_held",
        "_hosts",
        "_id",
        "_length",
        "_overhead",
        "_parser",
        "_pumping",
        "_queue",
        "_reading_paused",
        "_refusal",
        "_request",
        "_segment",
        "_target",
        "_timeout",
        "_transport",
        "_type",
        "_unsent",
        "_unsent_at",
        "_waiting",
        "_write_paused",
        "expires_at",
        "port",
        "spare",
    )

    def __init__(self, app: App, *, spare: bool = False) -> None:
        self._app = app
        self.spare = spare
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._request: Request | None = None  # its header is read, its body is not
        self._refusal: tuple[int, str] | None = None  # sent after the responses to all earlier requests
        self._busy = self._pumping = self._reading_paused = self._write_paused = False
        self._ended = False  # further input is discarded
        self._eof = False  # the client has closed its sending side
        self._unsent = 0  # bytes that the client had not taken at `_unsent_at`, if it is slow
        self._unsent_at = 0.0
        self._held = 0  # bytes counted in the server's sum
        self._waiting = 0  # bytes of bodies that wait for the responses to earlier requests
        self._segment = b""  # that is being parsed
        self._header_bytes = 0  # of the header being read; 0 between requests
        self._overhead = 0  # bytes since the last of the body: chunk extensions, and the trailer
        self._forget()
        self.expires_at = 0.0
        self.port = 0

    # Transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own types do not derive from asyncio's
        self.expires_at = time.monotonic() + self._app.options.header_timeout
        if self._app.ports:
            port = transport.get_extra_info("sockname")[1]
            self.port = port if port in self._app.ports else 0
        self._app.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._app.connections.discard(self)
        self._transport = None
        self._queue.clear()
        self._request = None
        self._forget()  # with its parser, a connection is a cycle that stays until the next collection of garbage
        self._waiting = 0
        self._hold(0)

    def eof_received(self) -> bool:
        """Keep a half-closed connection (True) while responses to its requests are outstanding."""
        waited_for = self._busy or bool(self._queue) or self._refusal is not None
        if self._transport is not None and not self._transport.can_write_eof():
            return False  # TLS has no half-closed connections
        self._eof = True
        self._ended = self._ended or waited_for
        return waited_for

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._transport is not None:
            self._unsent, self._unsent_at = unsent_bytes(self._transport), time.monotonic()
            self._count_held()
        self.expires_at = time.monotonic() + self._app.options.write_timeout
        self._read_or_pause()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._unsent = 0
        self._count_held()
        options = self._app.options
        partial = self._request is not None or self._header_bytes
        wait = options.body_timeout if partial else NEVER if self._busy else options.idle_timeout
        self.expires_at = time.monotonic() + (LINGER_SECONDS if self._ended and not self._busy else wait)
        self._read_or_pause()
        self._pump()

    def _read_or_pause(self) -> None:
        # Discarded input takes no memory, and a client that cannot send may never read its response.
        pause = not self._ended and (self._write_paused or len(self._queue) >= MAX_PIPELINED_REQUESTS)
        if pause == self._reading_paused or self._transport is None or self._transport.is_closing():
            return
        self._reading_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @property
    def idle(self) -> bool:
        """True if no request is being read or answered."""
        return not (self._busy or self._queue or self._request is not None or self._header_bytes or self._ended)

    def expire(self) -> None:
        """Handle an expired timeout: 408 for a partial request; extend for a reader that progresses; else close."""
        transport, options = self._transport, self._app.options
        if transport is None:
            return
        now = time.monotonic()
        self.expires_at = now + options.write_timeout
        leaving = self._write_paused or self._ended or transport.is_closing()
        waiting = unsent_bytes(transport) if leaving else 0
        least = MIN_READ_RATE_BYTES * (now - self._unsent_at)
        if waiting and (not self._unsent or waiting <= self._unsent - least):
            self._unsent, self._unsent_at = waiting, now
        elif self._write_paused or transport.is_closing():
            transport.abort()
        elif self._ended:
            transport.close()
        elif self._reading_paused:
            pass  # the rest of the request cannot arrive while the socket is not read
        elif self._request is not None or self._header_bytes:
            self._refuse(408, "The request did not arrive in time.")
        else:
            transport.close()

    def has_room(self, size: int) -> bool:
        """Return False for a large response that the server cannot hold now, should its client be slow."""
        return size <= LARGE_BYTES or self._app.buffered.fits(size)

    @property
    def peer(self) -> str:
        """The IP address at the other end; `unix` for a Unix socket; empty once the connection is gone."""
        if self._transport is None:
            return ""
        name = self._transport.get_extra_info("peername")
        return name[0] if isinstance(name, tuple) else UNIX

    def close(self) -> None:
        """Close the connection after everything written has been sent."""
        if self._transport is not None:
            self._transport.close()

    # Parser callbacks, called by httptools

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._segment = data
        if self._request is None:
            if self._header_bytes > self._app.options.max_header:
                self._refuse(431, header_too_large(self._app.options.max_header))
                return
            self._header_bytes += len(data)
        elif self._overhead > self._app.options.max_header:
            self._refuse(431, f"The trailer is larger than {self._app.options.max_header} bytes.")
            return
        else:
            self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_again(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_invalid(error)
        self._segment = b""
        if self._request is not None:
            self._hold_body()

    def _hold_body(self) -> None:
        """Count a body that has not arrived as a whole; refuse it if too much is held already."""
        if not self._app.buffered.fits(self._waiting + len(self._body) - self._held):
            self._refuse(503, CROWDED)
        else:
            self._count_held()

    def _wait(self, size: int) -> bool:
        """Count the body of a request that waits for its turn; refuse a large one if too much is held already."""
        if size > LARGE_BYTES and not self._app.buffered.fits(self._waiting + size - self._held):
            self._refuse(503, CROWDED)
            return False
        self._waiting += size
        self._count_held()
        return True

    def _count_held(self) -> None:
        """Count the bodies that arrive and wait, and responses that the client does not read."""
        unread = self._transport.get_write_buffer_size() if self._write_paused and self._transport is not None else 0
        self._hold(self._waiting + len(self._body) + unread)

    def _hold(self, size: int) -> None:
        """Count the bytes that this connection holds now."""
        if size != self._held:
            self._app.buffered.held += size - self._held
            self._held = size

    def _read_again(self, rest: bytes) -> None:
        """Ignore upgrade requests (RFC 9110, section 7.8): use a new parser, as this one would skip the body."""
        while not self._ended:
            data = self._head_without_upgrade() + rest
            self._parser = httptools.HttpRequestParser(self)
            self._segment, self._header_bytes = data, len(data)
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:  # the next one, in the same segment
                rest = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                self._refuse_invalid(error)

    def _head_without_upgrade(self) -> bytes:
        parser = self._parser
        first = b"%b %b HTTP/%b\r\n" % (parser.get_method(), self._target, parser.get_http_version().encode())
        return first + header_lines([pair for pair in self._headers if pair[0] != b"upgrade"]) + b"\r\n"

    def _refuse_invalid(self, error: Exception) -> None:
        self._refuse(400, f"This is not a valid HTTP/1.1 request: {error}")

    def on_message_begin(self) -> None:
        if self._ended:
            return
        self._header_bytes = self._header_bytes or 1
        self.expires_at = time.monotonic() + self._app.options.header_timeout
        self._forget()

    def _forget(self) -> None:
        self._target = b""
        self._headers: Headers = []
        self._type: bytes | None = None
        self._encoding = self._id = self._timeout = b""
        self._codings: bytes | None = None
        self._hosts = 0
        self._length = -1
        self._continue = False
        self._body: bytes | bytearray = b""

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > self._app.options.max_header:
            self._refuse(414, "The request target is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._request is not None or self._ended:
            return  # a trailer field: allowed and ignored
        name = name.lower()
        self._headers.append((name, value))
        if name == b"content-type":
            if self._type is not None:
                self._refuse(400, "A request names its content type once.")
            self._type = value
        elif name == b"content-encoding":
            self._encoding = self._encoding + b"," + value if self._encoding else value
        elif name == b"content-length":
            self._length = int(value) if value.isdigit() else -1
        elif name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._codings = value if self._codings is None else self._codings + b"," + value
        elif name == b"expect":
            self._continue = value.lower() == b"100-continue"
        elif name == b"x-request-id":
            self._id = self._id or value
        elif name == b"x-request-timeout":
            self._timeout = self._timeout or value

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        parser, options = self._parser, self._app.options
        version = parser.get_http_version()
        long = len(self._segment) > options.max_header or self._header_bytes > options.max_header
        odd = version != "1.1" or self._hosts != 1 or self._codings is not None
        if long or odd or self._length > options.max_body:
            http = not any(b"%b %b" % (self._target, other) in self._segment for other in OTHER_PROTOCOLS)
            head = Head(version if http else "", self._target, self._headers, self._hosts, self._codings, self._length)
            objection = head.objection(options)
            if objection is not None:
                self._refuse(*objection)
                return
        method = parser.get_method()
        if method == b"CONNECT":
            self._refuse(501, "This server is no proxy.")
            return
        if parser.should_upgrade():
            return  # see _read_again
        path, _, query = self._target.partition(b"?")
        if not path.startswith(b"/"):
            if b"://" not in path and method != b"OPTIONS":
                self._refuse(400, "A request target is a path or a URL.")
                return
            path = origin_form(path)
        request = Request(method, path, query, self._headers)
        request.content_type = self._type or b""
        request.content_encoding = self._encoding
        request.request_id, request.timeout = self._id, self._timeout
        # An HTTP/1.0 client would need a Connection: keep-alive header in the response.
        request.keep_alive = version == "1.1" and parser.should_keep_alive()
        self._request = request
        self._overhead = 0
        self.expires_at = time.monotonic() + options.body_timeout
        if self._continue:
            self._continue = version == "1.1"
            self._send_continue()

    def on_body(self, data: bytes) -> None:
        if self._ended:
            return
        self._overhead = 0
        if not self._body:
            self._body = data
        elif isinstance(self._body, bytearray):
            self._body += data
        else:
            self._body = bytearray(self._body) + data
        if len(self._body) > self._app.options.max_body:
            self._refuse(413, f"The body is larger than {self._app.options.max_body} bytes.")

    def on_message_complete(self) -> None:
        request = self._request
        if self._ended or request is None:
            return
        self._request = None
        self._header_bytes = 0
        self._continue = False
        request.body = self._body
        self._body = b""
        if self._busy or self._write_paused:
            if not self._wait(len(request.body)):
                return
        elif self._held:
            self._hold(0)
        request.arrived_at = time.perf_counter()
        self._ended = not request.keep_alive or self.spare
        self.expires_at = NEVER
        self._queue.append(request)
        if not self._busy:
            self._pump()
        elif len(self._queue) >= MAX_PIPELINED_REQUESTS:
            self._read_or_pause()

    # Responses

    def _pump(self) -> None:
        """Start queued requests while none is being answered. A loop, as `handle` may answer before it returns."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue and not self._busy and not self._write_paused and self._transport is not None:
                self._busy = True
                request = self._queue.popleft()
                if self._waiting:
                    self._waiting -= len(request.body)
                    self._count_held()
                self._app.handle(self, request)
        finally:
            self._pumping = False
        if self._reading_paused:
            self._read_or_pause()
        if self._refusal is not None:
            self._send_refusal()
        elif self._continue:
            self._send_continue()

    def _send_continue(self) -> None:
        """Send 100 Continue (RFC 9110, section 10.1.1) once it is this request's turn."""
        if self._request is not None and not self._busy and not self._queue and self._transport is not None:
            self._continue = False
            self._transport.write(_CONTINUE)

    def respond(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """Send the one response to `request`.

        Args:
            headers: header lines, each ended by CRLF; Content-Length, Date and Connection are added here.
        """
        transport, compression = self._transport, self._app.compression
        if compression is not None and len(body) >= compression.min_bytes:
            form = compression.begin(self, request, status, headers, body)
            if form is None:
                return
            headers, body = form
        self._busy = False
        if transport is None:
            return
        if self._app.answer_headers is not None:
            headers += self._app.answer_headers(request)
        last = (self._ended or self._app.draining) and not self._queue and self._refusal is None
        head = b"%bdate: %b\r\n%bcontent-length: %d\r\n%b\r\n" % (
            _STATUS.get(status) or status_line(status, "Unknown"),
            self._app.clock.date(),
            headers,
            len(body),
            b"connection: close\r\n" if last else b"",
        )
        transport.write(head if request.method == b"HEAD" else head + body)
        if last:
            self._close_in_stages()
            return
        if not self._write_paused and self._request is None and not self._header_bytes:
            self.expires_at = NEVER if self._queue else time.monotonic() + self._app.options.idle_timeout
        if (self._queue or self._refusal is not None or self._continue) and not self._pumping:
            self._pump()

    def _refuse(self, status: int, detail: str) -> None:
        """Refuse an invalid or too large request after the responses to all earlier ones, then close."""
        if self._ended:
            return
        self._ended = True
        self._refusal = (status, detail)
        self._request = None
        self._header_bytes = 0
        self._body = b""
        self._count_held()
        self.expires_at = NEVER
        self._send_refusal()

    def _send_refusal(self) -> None:
        transport = self._transport
        if self._refusal is None or self._busy or self._queue or self._write_paused or transport is None:
            return
        status, detail = self._refusal
        self._refusal = None
        pairs, body = self._app.refuse(status, detail)
        head = _STATUS[status] + header_lines([(b"date", self._app.clock.date()), *pairs])
        transport.write(b"%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (head, len(body), body))
        self._close_in_stages()

    def _close_in_stages(self) -> None:
        """Close in stages after the last response, discarding further input (RFC 9112, section 9.6).

        Closing at once would answer further input by a reset, which can lose the end of that response.
        """
        self._ended = True
        transport, options = self._transport, self._app.options
        if transport is None:
            return
        if self._eof or not transport.can_write_eof():
            self.expires_at = time.monotonic() + options.write_timeout
            transport.close()
        else:
            self.expires_at = time.monotonic() + LINGER_SECONDS
            transport.write_eof()
            self._read_or_pause()
