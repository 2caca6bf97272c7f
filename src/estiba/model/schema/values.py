"""Check single values of a caller; describe in words what a field accepts; read cells of text; build JSON pointers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from estiba.model.schema.signature import MAX_INTEGER, Field, Scalar
from estiba.model.schema.tensor_types import shape_text

NAN = math.nan

UNSEEN_TEXT = "(a level never seen in training)"
"""Stands for an unseen level where a model or a golden row needs a word for it."""


class Encoded(NamedTuple):
    """A column with few distinct words: `positions` into `words` by row, -1 for a missing value."""

    positions: npt.NDArray[np.int64]
    words: Sequence[object]


def expected(field: Field) -> str:
    """The values that a field accepts, as shown to callers."""
    if field.kind == "tensor":
        image = ", or a JPEG or PNG" if field.image is not None else ""
        return f"{field.dtype} of shape {shape_text(field.shape)}{image}"
    if field.kind == "category":
        if len(field.levels) <= 12:
            return "one of: " + ", ".join(map(str, field.levels))
        return f"one of {len(field.levels)} levels ({', '.join(map(str, field.levels[:5]))}, ...)"
    article = {"integer": "an integer", "boolean": "true or false", "text": "a string"}
    return article.get(field.kind, "a number" if field.kind == "number" else "a timestamp such as 2026-01-31T12:00:00Z")


def unseen_level(field: Field) -> Scalar:
    """A level that the field does not have, of the type that its levels have."""
    if all(isinstance(level, str) for level in field.levels):
        return UNSEEN_TEXT
    if all(isinstance(level, bool) for level in field.levels):
        return not field.levels[0]
    return max(int(level) for level in field.levels if not isinstance(level, str)) + 1


def from_text(field: Field, cells: Sequence[str]) -> Any:
    """Text cells as values of the field's kind; a cell that cannot be converted stays text, for the check to name."""
    if field.kind in ("number", "integer"):
        try:
            numbers = np.array([float(cell) if cell else NAN for cell in cells])
        except ValueError:
            numbers = np.array([math.inf])
        # float() rounds large integers and takes "1_000" for a number: where that may be, each cell is looked at.
        plain = bool(np.all(~(np.abs(numbers) >= MAX_INTEGER))) and not any("_" in cell for cell in cells)
        return numbers if plain else [_number_of(cell) if cell else None for cell in cells]
    if field.kind == "boolean":
        known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False, "": None}
        return [known.get(cell.lower(), cell) for cell in cells]
    if field.kind != "category":
        return [cell or None for cell in cells]
    levels: dict[str, object] = {str(level): level for level in field.levels}
    if bool in level_types(field):
        levels |= {"true": True, "false": False}
    table: dict[str, int] = {}
    positions = np.array([table.setdefault(cell, len(table)) for cell in cells], np.int64)
    other: Callable[[str], object] = _number_of if is_numeric(field) else str
    return Encoded(positions, [levels.get(cell, other(cell)) if cell else None for cell in table])


def is_numeric(field: Field) -> bool:
    """Tell whether cells of text are numbers for the field."""
    if field.kind == "category":
        return not any(isinstance(level, (str, bool)) for level in field.levels)
    return field.kind in ("number", "integer")


def _number_of(cell: str) -> float | str:
    """A cell as a number, an integer where it is one; anything else as it is."""
    for kind in (int, float):
        try:
            return cell if "_" in cell else kind(cell)
        except ValueError:
            continue
    return cell


def seconds(value: datetime) -> float:
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def to_timestamp(value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = msgspec.convert(value, datetime)
        except msgspec.ValidationError:
            return None
    if isinstance(value, datetime):
        return seconds(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    return None


def to_float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def lookup(codes: Mapping[Any, float], value: object) -> float | None:
    """Position of a level; True is not the level 1, and 1.0 is."""
    try:
        code = codes.get(value)
    except TypeError:  # unhashable: a list or an object
        return None
    if code is None:
        return None
    level = next(level for level, c in codes.items() if c == code) if isinstance(value, (bool, float)) else value
    return code if isinstance(level, bool) == isinstance(value, bool) else None


def level_types(field: Field) -> tuple[type, ...]:
    """Types of a value that may stand for a level, seen or not."""
    found = {type(level) for level in field.levels}
    return tuple(found | {int} if float in found else found)


def is_missing(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, (float, np.floating, np.datetime64)):
        return bool(value != value)
    # pandas' NA and NaT are not equal to themselves or refuse the comparison; the names avoid importing pandas.
    return type(value).__name__ in ("NAType", "NaTType")


def say(value: object) -> str:
    """A caller's value for an error message, never longer than a line."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if isinstance(value, float):
        return repr(float(value)).removesuffix(".0")
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def plain(number: float) -> str:
    return f"{number:.15g}"
