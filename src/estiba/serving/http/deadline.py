"""Request deadlines. An expired request never reaches the model."""

from __future__ import annotations

import re
import time

from estiba.core.errors import BadRequest, EstibaError
from estiba.serving.http.request import Request

_SECONDS = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,6})?")


class Expired(EstibaError):
    """The deadline passed before the model could take the request."""

    status = 504

    def __init__(self) -> None:
        super().__init__(
            "The time for this request was over before the model could take it.",
            hint="Try again later, or allow more seconds in X-Request-Timeout, up to the server's limit.",
        )


def deadline(request: Request, max_seconds: float) -> float:
    """The deadline of a request on the clock of `time.perf_counter`.

    Args:
        max_seconds: from its arrival, where it does not ask for less.

    Raises:
        BadRequest: its X-Request-Timeout is not a number of seconds above 0.
    """
    value = request.timeout
    if not value:
        return request.arrived_at + max_seconds
    if _SECONDS.fullmatch(value) is None or float(value) <= 0:
        raise BadRequest("X-Request-Timeout must be a number of seconds above 0, such as 2.5.")
    return request.arrived_at + min(float(value), max_seconds)


def check(deadline_at: float) -> None:
    """Raise Expired where the deadline has passed."""
    if deadline_at < time.perf_counter():
        raise Expired
