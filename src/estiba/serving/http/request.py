"""What a connection works with: its limits, the request it reads, the header lines and the date it writes."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from estiba.serving.http.trace_context import Trace

Headers = list[tuple[bytes, bytes]]


class HttpOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a connection. Sizes are in bytes, times in seconds.

    Args:
        max_body: the largest body; a larger one is refused before it is read.
        max_header: the request line and all headers together.
        header_timeout: from the first byte of a request to the end of its headers.
        body_timeout: from there to the end of its body.
        idle_timeout: between two requests on one connection.
        write_timeout: how long a client may take no byte of an answer that waits for it.
    """

    max_body: Annotated[int, Meta(ge=1)] = 16 * 1024 * 1024
    max_header: Annotated[int, Meta(ge=1)] = 32 * 1024
    header_timeout: Annotated[float, Meta(gt=0)] = 10.0
    body_timeout: Annotated[float, Meta(gt=0)] = 30.0
    idle_timeout: Annotated[float, Meta(gt=0)] = 75.0
    write_timeout: Annotated[float, Meta(gt=0)] = 30.0


class Request:
    """One request, complete with its body. Header names are in lower case."""

    __slots__ = (
        "arrived",
        "body",
        "content_encoding",
        "content_type",
        "headers",
        "id",
        "keep_alive",
        "method",
        "path",
        "query",
        "trace",
    )

    def __init__(self, method: bytes, path: bytes, query: bytes, headers: Headers) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body: bytes | bytearray = b""
        self.keep_alive = True
        self.content_type = b""
        self.content_encoding = b""
        self.id = ""
        self.arrived = 0.0
        self.trace: Trace | None = None
        """Its place in a trace, where spans are made of it."""

    def header(self, name: bytes) -> bytes:
        """The first header of that name (lower case), empty if absent."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""


class Clock:
    """The Date header's value, made once a second (RFC 9110, section 6.6.1)."""

    def __init__(self) -> None:
        self._second = 0
        self._date = b""

    def date(self) -> bytes:
        now = int(time.time())
        if self._second != now:
            self._second, self._date = now, formatdate(now, usegmt=True).encode()
        return self._date


def header_lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)
