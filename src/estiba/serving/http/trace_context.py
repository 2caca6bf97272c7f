"""Trace context: which trace a request belongs to, by its `traceparent` header, and its own place in it.

Source: W3C Trace Context, Level 1, sections 3.2 and 4.3; `traceresponse` as in the draft of Level 2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from estiba.serving.http.request import Request

_FORM = re.compile(rb"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

MAX_STATE = 512
"""Characters of a caller's `tracestate` that are kept; a longer one is dropped, as section 3.3.1.5 allows."""


class Parent(NamedTuple):
    """What a caller said: ids in lower-case hexadecimal digits, and whether it records this trace."""

    trace_id: str
    span_id: str
    is_sampled: bool


class Trace:
    """A request of which spans are made. Times are on the clock of `time.perf_counter`, 0 for what never happened.

    Args:
        parent: the caller's span; empty where the trace begins here.
        state: the caller's `tracestate`, passed on as it is.
    """

    __slots__ = ("began", "decoded", "ended", "parent", "span_id", "state", "trace_id")

    def __init__(self, trace_id: str, span_id: str, parent: str = "", state: str = "") -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent = parent
        self.state = state
        self.decoded = 0.0  # and valid
        self.began = self.ended = 0.0  # in the model

    @property
    def header(self) -> bytes:
        """The value of `traceresponse`."""
        return f"00-{self.trace_id}-{self.span_id}-01".encode()


def parent(request: Request) -> Parent | None:
    """What its `traceparent` says; None where none is given, or none that is valid."""
    said = [value for name, value in request.headers if name == b"traceparent"]
    found = _FORM.fullmatch(said[0]) if len(said) == 1 else None
    # Later versions may say more behind what version 00 says; ff will never be one.
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5] is not None):
        return None
    return Parent(found[2].decode(), found[3].decode(), bool(int(found[4], 16) & 1))


def state(request: Request) -> str:
    """A caller's `tracestate`, its headers joined; empty where it is too long or no ASCII."""
    joined = b",".join(value for name, value in request.headers if name == b"tracestate")
    return joined.decode() if joined.isascii() and len(joined) <= MAX_STATE else ""


def trace_id(request: Request) -> str:
    """The 32 hexadecimal digits of its trace; empty where it belongs to none."""
    if request.trace is not None:
        return request.trace.trace_id
    found = parent(request)
    return found.trace_id if found is not None else ""
