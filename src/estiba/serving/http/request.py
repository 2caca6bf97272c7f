"""The HTTP request, the limits of a connection, header lines and the Date header."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Annotated
from urllib.parse import unquote

import msgspec
from msgspec import Meta

Headers = list[tuple[bytes, bytes]]


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a connection. Sizes are in bytes, times in seconds.

    Args:
        max_body: the largest body; a larger one is refused before it is read.
        max_header: the request line and all headers together.
        header_timeout: from the first byte of a request to the end of its headers.
        body_timeout: from there to the end of its body.
        idle_timeout: between two requests on one connection.
        write_timeout: how long a client may take too little of an answer that waits for it: fewer than 8 KiB a second.
        max_buffered: bodies that arrive or wait for a thread, and answers that clients do not read, of all clients of
            one worker together, and at most a sixth of its memory; beyond it large bodies and answers are refused.
    """

    max_body: Annotated[int, Meta(ge=1)] = 16 * 1024 * 1024
    max_header: Annotated[int, Meta(ge=1)] = 32 * 1024
    header_timeout: Annotated[float, Meta(gt=0)] = 10.0
    body_timeout: Annotated[float, Meta(gt=0)] = 30.0
    idle_timeout: Annotated[float, Meta(gt=0)] = 75.0
    write_timeout: Annotated[float, Meta(gt=0)] = 30.0
    max_buffered: Annotated[int, Meta(ge=1)] = 128 * 1024 * 1024


class Request:
    """One HTTP request, complete with its body. The connection fills it; nothing changes it afterwards.

    Attributes:
        path: in origin form (RFC 9112, section 3.2.1), not decoded, without the query.
        headers: names are in lower case.
        content_encoding: all Content-Encoding headers, joined by commas.
        request_id, timeout: the first X-Request-ID and X-Request-Timeout as sent; empty if absent.
        arrived_at: when the last byte arrived, on the clock of `time.perf_counter`.
    """

    __slots__ = (
        "arrived_at",
        "body",
        "content_encoding",
        "content_type",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "request_id",
        "timeout",
    )

    def __init__(self, method: bytes, path: bytes, query: bytes, headers: Headers) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body: bytes | bytearray = b""
        self.keep_alive = True
        self.content_type = b""
        self.content_encoding = self.request_id = self.timeout = b""
        self.arrived_at = 0.0

    @property
    def decoded_path(self) -> str:
        """The path without percent-encoding: what the management application matches, and policies judge."""
        return unquote(self.path.decode("latin-1"))

    def header(self, name: bytes) -> bytes:
        """The first header of that name (lower case); empty if absent."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    def with_body(self, body: bytes | bytearray) -> Request:
        """The same request with a decompressed body."""
        copy = Request(self.method, self.path, self.query, self.headers)
        copy.body = body
        copy.keep_alive = self.keep_alive
        copy.content_type = self.content_type
        copy.request_id, copy.timeout = self.request_id, self.timeout
        copy.arrived_at = self.arrived_at
        return copy


class Clock:
    """Formats the Date header once a second (RFC 9110, section 6.6.1)."""

    def __init__(self) -> None:
        self._second = 0
        self._date = b""

    def date(self) -> bytes:
        """The current value of the Date header."""
        now = int(time.time())
        if self._second != now:
            self._second, self._date = now, formatdate(now, usegmt=True).encode()
        return self._date


def status_line(status: int, phrase: str) -> bytes:
    """The first line of an answer, and the header line that every answer has: browsers must not guess its type."""
    return f"HTTP/1.1 {status} {phrase}\r\nx-content-type-options: nosniff\r\n".encode()


def header_lines(headers: Headers) -> bytes:
    """Headers as lines, each ended by CRLF."""
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


def origin_form(target: bytes) -> bytes:
    """The path of a request target in absolute form, such as `http://host/path` (RFC 9112, section 3.2.2)."""
    return b"/" + target.partition(b"://")[2].partition(b"/")[2] if b"://" in target else target
