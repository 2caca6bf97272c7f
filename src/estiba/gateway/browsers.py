"""Let pages of named origins ask models from the browser: cross-origin resource sharing (CORS, the Fetch standard)."""

from __future__ import annotations

from estiba.gateway.options import BrowserOptions
from estiba.serving.http.request import Request

ALLOWED_METHODS = b"GET, POST, QUERY"
ALLOWED_HEADERS = (
    b"authorization, content-type, x-api-key, x-request-id, x-request-timeout, traceparent, tracestate,"
    b" inference-header-content-length"
)
EXPOSED_HEADERS = (
    b"x-request-id, x-model-version, x-model-variant, retry-after, ratelimit, ratelimit-policy, traceresponse"
)
VARY = b"vary: origin\r\n"


class BrowserAccess:
    """Adds the headers that let pages of allowed origins read answers, and answers their preflight requests."""

    def __init__(self, options: BrowserOptions) -> None:
        self._allowed = {
            origin.encode(): b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n"
            % (origin.encode(), EXPOSED_HEADERS)
            for origin in options.origins
        }
        self._preflight = (
            b"access-control-allow-methods: %b\r\naccess-control-allow-headers: %b\r\naccess-control-max-age: %d\r\n"
            % (ALLOWED_METHODS, ALLOWED_HEADERS, options.max_age)
        )

    def headers(self, request: Request) -> bytes:
        """Header lines of an answer. Caches must know that they depend on the origin, allowed or not."""
        return self._allowed.get(request.header(b"origin"), b"") + VARY

    def preflight(self, request: Request) -> bytes | None:
        """Header lines of the answer to a preflight, besides `headers`; None if the request is none.

        A preflight never carries a key, so it is answered before keys are asked for. A page of another origin gets no
        permission, and its browser does not send the request.
        """
        if request.method != b"OPTIONS" or not request.header(b"access-control-request-method"):
            return None
        return self._preflight if request.header(b"origin") in self._allowed else b""
