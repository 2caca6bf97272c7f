"""Compress large answers with gzip, for clients that accept it (RFC 9110, section 12.5.3)."""

from __future__ import annotations

import asyncio
import re
import zlib
from concurrent.futures import Executor
from typing import Protocol

from estiba.serving.http.request import Request

LEVEL = 1
"""Of zlib: on predictions level 6 takes three times as long for an answer that is an eighth smaller."""

PAGE_LEVEL = 9
"""Of zlib, for what is compressed once."""

INLINE_BYTES = 16 * 1024
"""Largest answer that is compressed on the event loop, in about 0.1 ms; larger ones go to a thread."""

VARY = b"vary: accept-encoding\r\n"
ENCODED = b"content-encoding: gzip\r\n" + VARY

_COMPRESSIBLE = re.compile(rb"^content-type: *(?:text/|application/(?:\w+\+)?json)", re.IGNORECASE | re.MULTILINE)
# An entity tag names the bytes of one form of an answer, and a changed form would need another one.
_FINISHED = re.compile(rb"^(?:content-encoding|etag):", re.IGNORECASE | re.MULTILINE)
_CODING = re.compile(rb"([a-z0-9*-]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?", re.IGNORECASE)


class Responder(Protocol):
    """A connection, as far as compression needs it."""

    def close(self) -> None:
        """Close the connection."""

    def respond(self, request: Request, status: int, headers: bytes, body: bytes) -> None:
        """Send the one response to `request`."""


class Compression:
    """The compression of one worker's answers.

    Attributes:
        min_bytes: size from which answers are compressed.
    """

    def __init__(self, min_bytes: int, executor: Executor) -> None:
        self.min_bytes = min_bytes
        self._executor = executor

    def begin(
        self, connection: Responder, request: Request, status: int, headers: bytes, body: bytes
    ) -> tuple[bytes, bytes] | None:
        """Header lines and body to send; None where a thread compresses the body, and `respond` is called again."""
        if _FINISHED.search(headers) or not _COMPRESSIBLE.search(headers):
            return headers, body
        if not is_gzip_accepted(request):
            return headers + VARY, body
        if len(body) <= INLINE_BYTES:
            return headers + ENCODED, gzipped(body)
        loop = asyncio.get_running_loop()

        def answer(work: asyncio.Future[bytes]) -> None:
            if work.cancelled() or work.exception() is not None:  # no memory, or the worker ends
                connection.close()
            else:
                connection.respond(request, status, headers + ENCODED, work.result())

        try:
            loop.run_in_executor(self._executor, gzipped, body).add_done_callback(answer)
        except RuntimeError:  # the worker ends
            return headers + VARY, body
        return None


def gzipped(body: bytes, level: int = LEVEL) -> bytes:
    """A body in the format of gzip; the same bytes for the same body."""
    stream = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def is_gzip_accepted(request: Request) -> bool:
    """Return True if the client says that it accepts gzip, or anything. Without a word about it, it gets no gzip."""
    value = b",".join(value for name, value in request.headers if name == b"accept-encoding")
    qualities: dict[bytes, float] = {}
    for item in value.split(b","):
        match = _CODING.fullmatch(item.strip())
        if match is not None:
            qualities[match[1].lower()] = float(match[2] or 1)
    gzip = qualities.get(b"gzip", qualities.get(b"x-gzip", qualities.get(b"*", 0.0)))
    return gzip > 0 and gzip >= qualities.get(b"identity", 0.0)
