"""Deadlines: how long a caller waits for a prediction. What nobody waits for any more never reaches the model."""

from __future__ import annotations

import re
import time

from estiba.core.errors import BadRequest, EstibaError
from estiba.serving.http.request import Request

HEADER = b"x-request-timeout"

_SECONDS = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,6})?")


class Expired(EstibaError):
    """A call whose time was over before the model could take it."""

    status = 504

    def __init__(self) -> None:
        super().__init__(
            "The time for this request was over before the model could take it.",
            hint="Ask again later, or allow more seconds in X-Request-Timeout, as far as the server's limit goes.",
        )


def deadline(request: Request, most: float) -> float:
    """When its time is over, on the clock of `time.perf_counter`.

    Args:
        most: seconds from its arrival, where it asks for no less.

    Raises:
        BadRequest: its X-Request-Timeout is no number of seconds above 0.
    """
    said = request.header(HEADER)
    if not said:
        return request.arrived + most
    if _SECONDS.fullmatch(said) is None or float(said) <= 0:
        raise BadRequest("X-Request-Timeout must be a number of seconds above 0, such as 2.5.")
    return request.arrived + min(float(said), most)


def check(until: float) -> None:
    """Raises Expired where `until` is over."""
    if until < time.perf_counter():
        raise Expired
