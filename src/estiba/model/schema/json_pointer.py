"""JSON pointers of values in a request, as URI fragments (RFC 6901, sections 3 and 6)."""

from __future__ import annotations

from urllib.parse import quote, unquote

from estiba.core.suggest import shortened

_FRAGMENT = "!$&'()*+,;=:@/?-._~"


def pointer(row: int, name: str, rows: str = "records") -> str:
    """JSON pointer of one field of one record, as a URI fragment (RFC 6901, sections 3 and 6).

    Args:
        rows: the array: `records`, or `predictions` for one output of an answer.
    """
    return f"#/{rows}/{row}/{escape(name)}"


def escape(name: str) -> str:
    """One step of a JSON pointer in a URI fragment: `~` and `/` as RFC 6901 says, the rest as RFC 3986 does.

    A name of thousands of characters, which no field has, is shortened.
    """
    name = shortened(name)
    return name if name.isalnum() and name.isascii() else quote(name.replace("~", "~0").replace("/", "~1"), _FRAGMENT)


def unescape(step: str) -> str:
    """The name that `escape` made a step of."""
    return unquote(step).replace("~1", "/").replace("~0", "~")
