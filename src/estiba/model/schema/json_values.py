"""Convert values to what JSON holds without a change of meaning, or refuse them. Needs neither NumPy nor pandas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

from estiba.core.errors import BadInput, Problem
from estiba.model.schema.json_pointer import pointer

_MAX_PROBLEMS = 100
_SAME = (str, int, bool, type(None))


class _NotJsonError(Exception):
    """A value that JSON would change in silence."""


def plain_records(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert records to plain values: NumPy's scalars to Python's, times to ISO format, and NaN, NA and NaT to None.

    Raises:
        BadInput: a value is infinite, or of a type that JSON would change, such as bytes or Decimal; each is named.
    """
    plain: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for number, record in enumerate(records):
        row: dict[str, Any] = {}
        for name, value in record.items():
            try:
                row[name] = value if type(value) in _SAME else _plain(value)
            except _NotJsonError as error:
                problems.append(Problem(pointer(number, name), str(error)))
                if len(problems) >= _MAX_PROBLEMS:
                    raise BadInput(problems) from None
        plain.append(row)
    if problems:
        raise BadInput(problems)
    return plain


def _plain(value: Any) -> Any:
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if type(value).__name__ == "datetime64":
        value = value.astype("datetime64[us]")  # item() of nanoseconds gives an integer
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        if math.isinf(value):
            raise _NotJsonError(f"expected a finite number, got {value}")
        return None if value != value else float(value)
    if isinstance(value, _SAME):
        return value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise _NotJsonError("bytes have no form in JSON; decode them to text")
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise _NotJsonError(f"a value of type {type(value).__name__} cannot be sent as JSON without a change, got {shown}")
