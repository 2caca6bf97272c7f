"""Checks of a request's header as a whole, for which the parser is too lenient."""

from __future__ import annotations

from typing import NamedTuple

from estiba.serving.http.request import Headers, HttpOptions

OTHER_PROTOCOLS = (b"RTSP/", b"ICE/")
"""Protocols whose requests the parser takes for HTTP."""


class Head(NamedTuple):
    """The header of a request.

    Args:
        version: of HTTP, such as "1.1"; empty for another protocol.
        hosts: number of Host headers.
        codings: all Transfer-Encoding headers, joined by commas; None without one.
        length: Content-Length; -1 without one.
    """

    version: str
    target: bytes
    headers: Headers
    hosts: int
    codings: bytes | None
    length: int

    def objection(self, options: HttpOptions) -> tuple[int, str] | None:
        """Status and detail of what is wrong with it; None if it is valid."""
        size = len(self.target) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self.version not in ("1.0", "1.1"):
            return 505, "This server speaks HTTP/1.1."
        if size > options.max_header:
            return 431, header_too_large(options.max_header)
        if self.hosts > 1 or (self.hosts == 0 and self.version == "1.1"):
            return 400, "A request names its host once."
        if self.codings is not None and self.version == "1.0":
            return 400, "HTTP/1.0 knows no Transfer-Encoding."
        if self.codings is not None and self.codings.strip().lower() != b"chunked":
            return 501, "The only Transfer-Encoding that this server knows is chunked."
        if self.length > options.max_body:
            return 413, f"The body is larger than {options.max_body} bytes."
        return None


def header_too_large(limit: int) -> str:
    """Detail of a 431."""
    return f"The header is larger than {limit} bytes."
