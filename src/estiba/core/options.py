"""Convert the values of a TOML file to options classes, and name every mistake by its path."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from estiba.core.errors import BadProject
from estiba.core.suggest import did_you_mean

Options = TypeVar("Options", bound=msgspec.Struct)

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "date": "a date",
    "datetime": "a date",
    "time": "a time",
}

_EXPECTED = re.compile(
    r"Expected `(?P<type>[^`]+)`(?:, got `(?P<got>[^`]+)`)?(?P<range>[^`]*?)(?: - at `\$(?P<at>.*)`)?"
)


def read(data: Mapping[str, Any], kind: type[Options]) -> Options:
    """Convert the tables, lists and values of a TOML file to an options class.

    Raises:
        BadProject: an unknown or missing key, a value of the wrong type or out of range; the message begins with
            the path of the key, such as `models.churn.fields.age.minimum`.
    """
    _check(data, kind, "")
    return msgspec.convert(data, kind)


def dotted(path: str, key: str) -> str:
    """The path of a key below `path`, spelled as TOML would."""
    plain = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'
    return f"{path}.{plain}" if path else plain


def _check(value: Any, kind: Any, path: str) -> None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        _check_table(value, kind, path)
    elif get_origin(kind) is dict:
        for key, inner in _table(value, path).items():
            _check(inner, get_args(kind)[1], dotted(path, key))
    else:
        _check_value(value, kind, path)


def _check_table(value: Any, kind: type[msgspec.Struct], path: str) -> None:
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    table = _table(value, path)
    for key, inner in table.items():
        if key not in known:
            raise _unknown(key, list(known), path)
        _check(inner, known[key].type, dotted(path, key))
    for key, field in known.items():
        if field.required and key not in table:
            raise BadProject(f"{dotted(path, key)}: this key is missing.", hint=f"Add it to [{path}].")


def _table(value: Any, path: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise BadProject(f"{path}: must be a table, not {_word(_kind(value))}.", hint=f"Write it as a section: [{path}]")


def _unknown(key: str, known: list[str], path: str) -> BadProject:
    meant = did_you_mean(key, known)
    section = f"[{path}]" if path else "the project file"
    return BadProject(f"{dotted(path, key)}: unknown key{meant}", hint=f"Keys of {section}: {', '.join(known)}.")


def _check_value(value: Any, kind: Any, path: str) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), value, kind, path) from None


def _explained(message: str, value: Any, kind: Any, path: str) -> BadProject:
    """Translate an error message of msgspec into the terms of TOML."""
    if message.startswith("Invalid enum value"):
        return BadProject(f"{path}: must be one of {', '.join(_choices(kind))}, not {value!r}.")
    match = _EXPECTED.fullmatch(message)
    if match is None:
        return BadProject(f"{path}: {message}.")
    path += match["at"] or ""
    if match["range"]:
        bound = match["range"].strip().replace(">=", "at least").replace("<=", "at most")
        return BadProject(f"{path}: must be {bound.replace('>', 'more than').replace('<', 'less than')}.")
    if match["got"] is None:
        return BadProject(f"{path}: must be {match['type']}.")
    expected = [_word(t) for t in match["type"].split(" | ") if t != "null"]
    return BadProject(f"{path}: must be {' or '.join(expected)}, not {_word(match['got'])}.")


def _choices(kind: Any) -> Iterator[str]:
    """The values of a Literal, also inside a union or an annotation."""
    if get_origin(kind) is Literal:
        yield from (repr(choice) for choice in get_args(kind))
    elif get_origin(kind) in (Union, types.UnionType, Annotated):
        for inner in get_args(kind):
            yield from _choices(inner)


def _kind(value: Any) -> str:
    return "array" if isinstance(value, list) else type(value).__name__


def _word(name: str) -> str:
    return _WORDS.get(name, name)
