"""Types of rows and predictions, and rows as records. Imports nothing heavy: a client needs no NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Records: TypeAlias = Sequence[Mapping[str, Any]]

Rows: TypeAlias = Any
"""Records by field name, one such record, or a DataFrame with the fields as columns."""

Prediction: TypeAlias = dict[str, Any]


def records_of(rows: Rows) -> Records:
    """Rows as a sequence of records."""
    if isinstance(rows, Mapping):
        return [rows]
    if hasattr(rows, "to_dict"):
        records: Records = rows.to_dict("records")
        return records
    return list(rows)
