"""Trace context: which trace a request belongs to, by its `traceparent` header.

Source: W3C Trace Context, Level 1, sections 3.2 and 4.3.
"""

from __future__ import annotations

import re

from estiba.serving.request import Request

_FORM = re.compile(rb"([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.DOTALL)


def trace_id(request: Request) -> str:
    """The 32 hexadecimal digits of its trace; empty where none is given, or none that is valid."""
    said = [value for name, value in request.headers if name == b"traceparent"]
    found = _FORM.fullmatch(said[0]) if len(said) == 1 else None
    # Later versions may say more behind what version 00 says; ff will never be one.
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[3] is not None):
        return ""
    return found[2].decode()
