"""Problems: errors as RFC 9457 problem+json. A caller learns what to change; what is inside stays inside."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from estiba.core.errors import Problem

CONTENT_TYPE = b"application/problem+json"

FULL = "The server has as many connections as it can hold."
"""What a client beyond the limit is told."""

TITLES = {
    "invalid-input": "The input does not match the model's signature.",
    "invalid-request": "The request cannot be read.",
    "not-found": "There is no such thing here.",
    "method-not-allowed": "This path does not take that method.",
    "too-large": "The request is larger than this server accepts.",
    "unsupported-media-type": "This path does not take that content type.",
    "timeout": "The request did not arrive in time.",
    "overloaded": "The server has more to do than it can hold.",
    "not-ready": "The server is not ready.",
    "model-failed": "The model failed.",
    "deadline": "The answer came too late.",
    "internal": "The server failed.",
}

_BY_STATUS = {
    400: "invalid-request",
    404: "not-found",
    405: "method-not-allowed",
    408: "timeout",
    413: "too-large",
    414: "too-large",
    415: "unsupported-media-type",
    422: "invalid-input",
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
    """The body of one problem.

    Args:
        kind: a key of TITLES; by default the one that goes with the status.
        errors: what is wrong with which value, as RFC 9457's own extension has it.
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
