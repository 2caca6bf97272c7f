"""Error responses as problem details (RFC 9457). They say what the caller can change and reveal nothing internal."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from estiba.core.errors import Problem
from estiba.serving.http.request import Headers

CONTENT_TYPE = b"application/problem+json"

FULL = "The server has as many connections as it can hold."
"""Detail of the response to a client beyond the limit of connections."""

TITLES = {
    "invalid-input": "The input does not match the model's signature.",
    "invalid-request": "The request cannot be read.",
    "unauthorized": "The request has no valid credentials.",
    "forbidden": "The caller may not do this.",
    "not-found": "There is no such thing here.",
    "method-not-allowed": "This path does not take that method.",
    "too-large": "The request is larger than this server accepts.",
    "unsupported-media-type": "This path does not take that content type.",
    "timeout": "The request did not arrive in time.",
    "rate-limited": "The caller sends too many requests.",
    "overloaded": "The server has more to do than it can hold.",
    "not-ready": "The server is not ready.",
    "model-failed": "The model failed.",
    "deadline": "The answer came too late.",
    "internal": "The server failed.",
}

_BY_STATUS = {
    400: "invalid-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "timeout",
    413: "too-large",
    414: "too-large",
    415: "unsupported-media-type",
    422: "invalid-input",
    429: "rate-limited",
    431: "too-large",
    500: "internal",
    503: "overloaded",
    504: "deadline",
}


def problem(
    status: int,
    detail: str = "",
    *,
    kind: str = "",
    request_id: str = "",
    errors: Sequence[Problem] = (),
    **extra: Any,
) -> bytes:
    """The body of a problem+json response.

    Args:
        kind: a key of TITLES; by default the one that belongs to the status.
        errors: one entry per invalid value, as in RFC 9457's example of an extension.
        extra: further members, such as `model`.
    """
    kind = kind or _BY_STATUS.get(status, "")
    body: dict[str, Any] = {
        "type": f"urn:estiba:problem:{kind}" if kind else "about:blank",
        "title": TITLES[kind] if kind else HTTPStatus(status).phrase,
        "status": status,
    }
    if detail:
        body["detail"] = detail
    if request_id:
        body["instance"] = f"urn:request:{quote(request_id)}"  # a caller's own id may hold what a URI may not
    if errors:
        body["errors"] = errors
    return msgspec.json.encode({**body, **extra})


def error_response(
    status: int, detail: str, *, kind: str = "", request_id: str = "", errors: Sequence[Problem] = ()
) -> tuple[Headers, bytes]:
    """Headers and body of a problem+json response; a 503 asks the client to retry after a second.

    Args:
        kind, errors: as for `problem`.
    """
    headers = [(b"content-type", CONTENT_TYPE)]
    if request_id:
        headers.append((b"x-request-id", request_id.encode()))
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return headers, problem(status, detail, kind=kind, request_id=request_id, errors=errors)
