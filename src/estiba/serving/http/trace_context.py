"""Parse the W3C trace context (`traceparent`, `tracestate`), and keep a request's ids and times in its trace.

Source: W3C Trace Context, Level 1, sections 3.2 and 4.3; `traceresponse` as in the draft of Level 2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from estiba.serving.http.request import Request

_FORM = re.compile(rb"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

MAX_STATE_CHARACTERS = 512
"""Longest `tracestate` of a caller that is kept; a longer one is dropped, as section 3.3.1.5 allows."""


class Parent(NamedTuple):
    """The caller's span: ids in lower-case hexadecimal digits, and whether the caller records this trace."""

    trace_id: str
    span_id: str
    is_sampled: bool


class Trace:
    """The ids and times of a recorded request in its trace.

    Times are on the clock of `time.perf_counter`; 0 means never.

    Args:
        parent: the caller's span; empty where the trace begins here.
        state: the caller's `tracestate`, passed on unchanged.
    """

    __slots__ = ("began_at", "decoded_at", "ended_at", "parent", "span_id", "state", "trace_id")

    def __init__(self, trace_id: str, span_id: str, parent: str = "", state: str = "") -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent = parent
        self.state = state
        self.decoded_at = 0.0  # and valid
        self.began_at = self.ended_at = 0.0  # in the model

    @property
    def header(self) -> bytes:
        """The value of `traceresponse`."""
        return f"00-{self.trace_id}-{self.span_id}-01".encode()


def parent(request: Request) -> Parent | None:
    """Parse `traceparent`; None if it is absent, repeated or invalid."""
    values = [value for name, value in request.headers if name == b"traceparent"]
    match = _FORM.fullmatch(values[0]) if len(values) == 1 else None
    # Later versions may append fields to those of version 00; ff is never a version.
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5] is not None):
        return None
    return Parent(match[2].decode(), match[3].decode(), bool(int(match[4], 16) & 1))


def state(request: Request) -> str:
    """The caller's `tracestate`, its headers joined; empty where it is too long or not ASCII."""
    joined = b",".join(value for name, value in request.headers if name == b"tracestate")
    return joined.decode() if joined.isascii() and len(joined) <= MAX_STATE_CHARACTERS else ""


def trace_id(request: Request) -> str:
    """The 32 hexadecimal digits of the caller's trace; empty where it belongs to none."""
    caller = parent(request)
    return caller.trace_id if caller is not None else ""
