"""Write plain values as YAML in the style that people use; equal values give equal text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Strings that need no quotes in YAML 1.1 or 1.2; anything else is quoted.
_PLAIN = re.compile(r"(?:[A-Za-z_/]|[.]{1,2}/)[A-Za-z0-9_./@-]*(:[A-Za-z0-9_./@-]+)*")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_RESERVED = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}


def render(value: Mapping[str, Any]) -> str:
    """A document of mappings, lists, strings, numbers, booleans and None."""
    return "".join(f"{line}\n" for line in _table(value, "")) or "{}\n"


def render_all(values: Sequence[Mapping[str, Any]]) -> str:
    """A file of several documents."""
    return "---\n".join(render(value) for value in values)


def _table(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, inner in value.items():
        yield from _entry(f"{indent}{_scalar(key)}:", inner, indent)


def _entry(begin: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield begin
        yield from _table(value, indent + "  ")
    elif isinstance(value, (list, tuple)) and value:
        if all(isinstance(item, (str, int, float)) for item in value) and _short(value):
            yield f"{begin} [{', '.join(map(_scalar, value))}]"
        else:
            yield begin
            yield from _list(value, indent + "  ")
    elif isinstance(value, str) and "\n" in value.rstrip("\n") and _can_be_block(value):
        yield f"{begin} |" + ("" if value.endswith("\n") else "-")
        yield from (f"{indent}  {line}" if line else "" for line in value.rstrip("\n").split("\n"))
    else:
        yield f"{begin} {_scalar(value)}"


def _can_be_block(text: str) -> bool:
    """True if a block scalar keeps the text: no white space at its beginning, at most one line feed at its end."""
    return (
        text[0] not in " \n\t" and not text.endswith("\n\n") and text.replace("\n", "").replace("\t", "").isprintable()
    )


def _list(value: Sequence[Any], indent: str) -> Iterator[str]:
    for item in value:
        if isinstance(item, Mapping) and item:
            first, *rest = _table(item, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield from _entry(f"{indent}-", item, indent)


def _short(items: Sequence[Any]) -> bool:
    return sum(len(str(item)) + 4 for item in items) < 80


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        number = json.dumps(value)
        return number if "." in number else number.replace("e", ".0e")  # YAML 1.1 reads 1e6 as a string
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, (list, tuple)):
        return "[]"
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED and value != "~":
        return str(value)
    return f'"{"".join(map(_quoted, value))}"'


def _quoted(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"
