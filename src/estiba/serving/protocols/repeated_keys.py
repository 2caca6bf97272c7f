"""Refuse JSON objects that have a key twice, of which every parser keeps only one value.

The kernel finds them in one pass; Python's own parser then names the key, and decides where the kernel cannot tell.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import Any

from estiba.core.errors import BadInput, Problem
from estiba.model.coding.kernel import compiled
from estiba.model.schema.json_pointer import escape

Check = Callable[[bytes | bytearray, int], None]
Detect = Callable[[bytes | bytearray, int, int], bool]

_DETAIL = "this key appears twice"


class _Repeating(dict[str, Any]):
    """An object with a key that it has more than once."""

    key = ""


def detector() -> Detect:
    """A function that returns True for a body in which an object may have a key twice.

    Its arguments are the body, the keys of a record, and the number of colons as for `check_of`.
    """
    kernel = compiled()
    return _maybe if kernel is None else kernel.repeated_keys


def check_of(fields: int) -> Check:
    """A function that raises BadInput for a body in which an object has a key twice.

    Its arguments are the body, and the number of colons of a body without any: as many as its objects must have
    different keys. -1 where that is not known.

    Args:
        fields: keys of a record, as a size for tables.
    """
    may_repeat = detector()

    def check(body: bytes | bytearray, colons: int) -> None:
        if may_repeat(body, fields, colons) and (pointer := _pointer(body)):
            raise BadInput([Problem(pointer, _DETAIL)])

    return check


def _maybe(body: bytes | bytearray, fields: int, colons: int) -> bool:
    return body.count(b":") != colons


def _pointer(body: bytes | bytearray) -> str:
    """JSON pointer of the first key that an object has twice; empty where there is none."""
    try:
        return _first(json.loads(body.removeprefix(codecs.BOM_UTF8), object_pairs_hook=_object))
    except (ValueError, RecursionError):  # among them half a surrogate pair, which Python's parser lets through
        return ""  # another error, for the parser to name


def _first(content: Any) -> str:
    waiting: list[tuple[str, Any]] = [("#", content)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, _Repeating):
            return f"{path}/{escape(item.key)}"
        pairs = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        waiting += reversed([(f"{path}/{escape(str(key))}", value) for key, value in pairs])
    return ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    repeating, seen = _Repeating(made), set[str]()
    repeating.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return repeating
