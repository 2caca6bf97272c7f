"""Convert rows as a notebook has them to records. Imports nothing heavy: a client needs no NumPy, and no pandas."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from estiba.core.errors import BadInput, BadRequest, Problem

Records: TypeAlias = Sequence[Mapping[str, Any]]

Rows: TypeAlias = Any
"""Records by field name, one such record, a DataFrame or Arrow table with the fields as columns, a Series, or an array
with the fields in their order."""

Prediction: TypeAlias = dict[str, Any]

Names: TypeAlias = Callable[[], Sequence[str]]
"""The model's fields in order. A function, because a client has to ask the server for them."""

_HINT = "Give records, one record or a DataFrame."


def records_of(rows: Rows, names: Names) -> list[Mapping[str, Any]]:
    """Convert rows to records.

    pandas, polars, Arrow and NumPy are recognized by their methods, so none of them has to be installed.

    Raises:
        BadRequest: `rows` is nothing that holds records. BadInput: rows without names do not have one value per field.
    """
    if isinstance(rows, Mapping):
        return [_named(rows)]
    if isinstance(rows, (str, bytes, bytearray, memoryview)):
        raise _refused(rows)
    if hasattr(rows, "to_dict") and hasattr(rows, "index") and not hasattr(rows, "columns"):
        return _of_series(rows, names)
    if (table := _table(rows)) is not None:
        return table
    if hasattr(rows, "tolist") and hasattr(rows, "ndim"):
        return _of_array(rows, names)
    for convert in ("to_list", "to_pylist"):  # one column of polars or Arrow
        if hasattr(rows, convert):
            return _of_list(getattr(rows, convert)(), names)
    if isinstance(rows, (set, frozenset)) or not isinstance(rows, Iterable):
        raise _refused(rows)
    return _of_list(list(rows), names)


NOT_FINITE = "not-finite"
"""Code of the warning about an output that is null because the model's number is infinite or NaN."""


def warn_not_finite(places: Sequence[tuple[int, str]]) -> None:
    """Warn, as Python does, about answers that are no finite numbers, by row and output. Nothing where there are none.

    To be called by the function that the user called, so that the warning names the user's line.
    """
    if not places:
        return
    row, name = places[0]
    more = f", and {len(places) - 1} more" if len(places) > 1 else ""
    warnings.warn(
        f"The model's answer is not finite, and None here: {name!r} of row {row}{more}.", RuntimeWarning, stacklevel=3
    )


def field_name(label: object) -> str:
    """The field name of a column label. The levels of a MultiIndex are joined with `_`."""
    if isinstance(label, tuple):
        return "_".join(str(part) for part in label if part != "")
    return str(label)


def _table(rows: Any) -> list[Mapping[str, Any]] | None:
    """The records of a DataFrame of pandas or polars, or of an Arrow Table or RecordBatch; None for anything else."""
    if not hasattr(rows, "columns"):
        return None
    if hasattr(rows, "to_dicts"):  # polars
        return list(rows.to_dicts())
    if hasattr(rows, "to_pylist") and hasattr(rows, "schema"):
        _refuse_twice(rows.schema.names)
        return list(rows.to_pylist())
    if not hasattr(rows, "to_dict"):
        return None
    labels = [field_name(label) for label in rows.columns]
    _refuse_twice(labels)
    if all(type(label) is str for label in rows.columns):
        return list(rows.to_dict("records"))
    return [dict(zip(labels, row, strict=True)) for row in rows.to_dict("split")["data"]]


def _of_series(series: Any, names: Names) -> list[Mapping[str, Any]]:
    """A pandas Series: one record by its labels, or values of a model's only field."""
    values = {field_name(label): value for label, value in series.to_dict().items()}
    labels = [field_name(label) for label in series.index]
    if all(type(label) is int for label in series.index):
        fields = names()
        if len(fields) == 1 and fields[0] not in values:
            return [{fields[0]: value} for value in series.to_list()]
    _refuse_twice(labels)
    return [values]


def _of_array(array: Any, names: Names) -> list[Mapping[str, Any]]:
    kind: Any = getattr(array, "dtype", None)
    if getattr(kind, "names", None):  # a structured array names its columns
        return [dict(zip(kind.names, row, strict=True)) for row in array.reshape(-1).tolist()]
    if array.ndim not in (1, 2):
        raise BadRequest(f"Cannot read rows from an array of {array.ndim} dimensions.", hint=_HINT)
    if getattr(kind, "kind", "") == "M":
        array = array.astype("datetime64[us]")  # tolist() of nanoseconds gives integers
    return _of_list(array.tolist(), names)


def _of_list(rows: list[Any], names: Names) -> list[Mapping[str, Any]]:
    """A list of records, of rows with the fields in order, or one such row."""
    if not rows:
        return []
    if isinstance(rows[0], Mapping):
        return [_named(row) if isinstance(row, Mapping) else _wrong_row(i, row) for i, row in enumerate(rows)]
    rows = [_row(row) for row in rows]
    nested = sum(isinstance(row, (list, tuple)) for row in rows)
    if nested not in (0, len(rows)) or any(_is_container(row) for row in rows):
        raise _refused(next(row for row in rows if not isinstance(row, (list, tuple)) or not nested))
    fields = names()
    if not nested and len(fields) == 1:
        return [{fields[0]: value} for value in rows]
    return [_by_position(number, row, fields) for number, row in enumerate(rows if nested else [rows])]


def _row(row: Any) -> Any:
    """One row of a list: a Series or an array becomes a mapping or a list."""
    if hasattr(row, "tolist"):  # NumPy's scalars have it too
        return row.tolist() if getattr(row, "ndim", 0) else row
    return row


def _is_container(row: object) -> bool:
    return isinstance(row, (Mapping, set, frozenset)) or (hasattr(row, "columns") and hasattr(row, "index"))


def _by_position(number: int, row: Sequence[Any], fields: Sequence[str]) -> Mapping[str, Any]:
    if len(row) != len(fields):
        shown = ", ".join(fields[:12]) + (", ..." if len(fields) > 12 else "")
        detail = f"expected {len(fields)} values in the order of the model's fields ({shown}), got {len(row)}"
        raise BadInput([Problem(f"#/records/{number}", detail)], hint="Or name them: give records or a DataFrame.")
    return dict(zip(fields, row, strict=True))


def _named(record: Mapping[Any, Any]) -> Mapping[str, Any]:
    """The record with column labels that are no strings as field names."""
    if all(type(name) is str for name in record):
        return record
    _refuse_twice([field_name(name) for name in record])
    return {field_name(name): value for name, value in record.items()}


def _refuse_twice(names: Iterable[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadRequest(f"The column {twice[0]!r} appears twice.", hint="Rename one of the two.")


def _wrong_row(number: int, row: object) -> Mapping[str, Any]:
    raise BadInput([Problem(f"#/records/{number}", f"expected an object, got a value of type {type(row).__name__}")])


def _refused(rows: object) -> BadRequest:
    return BadRequest(f"Cannot read rows from a value of type {type(rows).__name__}.", hint=_HINT)
