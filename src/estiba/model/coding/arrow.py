"""Convert Arrow columns to columns that the coder takes, and back. Needs pyarrow, the extra `parquet`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from estiba.core.errors import MissingExtra
from estiba.model.schema.signature import Field
from estiba.model.schema.values import Encoded


def pyarrow(part: str = "") -> Any:
    """The library, or a part of it such as `parquet`. Raises MissingExtra where it is not installed."""
    try:
        return importlib.import_module(f"pyarrow.{part}" if part else "pyarrow")
    except ImportError:
        raise MissingExtra("pyarrow", "parquet") from None


def columns(fields: Iterable[Field], table: Any) -> dict[str, Any]:
    """The columns of a Table or RecordBatch by field, as the coder takes them; only those that are fields.

    A column may have the name of the field or its own name in training.
    """
    present = set(table.schema.names)
    named = ((field, field.name if field.name in present else field.source) for field in fields)
    return {field.name: _values(field, table.column(name)) for field, name in named if name in present}


def is_text(kind: Any) -> bool:
    """Tell whether a type is of strings or binary values, as they are or as positions in a dictionary."""
    types = pyarrow().types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _values(field: Field, column: Any) -> Any:
    """The values of one column. Strings become positions in a dictionary, so that each word is checked once."""
    types = pyarrow().types
    kind = column.type
    if types.is_dictionary(kind) or (
        field.kind == "category" and (types.is_string(kind) or types.is_large_string(kind))
    ):
        encoded = column if types.is_dictionary(kind) else column.dictionary_encode()
        if hasattr(encoded, "combine_chunks"):
            encoded = encoded.combine_chunks()
        positions = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return Encoded(positions, encoded.dictionary.to_pylist())
    if field.kind in ("number", "integer") and (types.is_integer(kind) or types.is_floating(kind)):
        chunked = hasattr(column, "combine_chunks") and hasattr(column, "num_chunks")
        return column.to_numpy() if chunked else column.to_numpy(zero_copy_only=False)
    return column.to_pylist()


def table(values: Mapping[str, Any]) -> Any:
    """A Table of columns; NaN and None are null."""
    arrow = pyarrow()
    return arrow.table({name: arrow.array(column, from_pandas=True) for name, column in values.items()})
