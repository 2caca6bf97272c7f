"""Frames: a column of values as the pandas Series that the estimator was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from estiba.model.schema.signature import Field

if TYPE_CHECKING:
    import pandas as pd


def series(field: Field, values: list[Any], codes: npt.NDArray[np.float64]) -> pd.Series[Any]:
    import pandas as pd

    match field.kind:
        case "category" if field.dtype == "category":
            return pd.Series(pd.Categorical.from_codes(np.nan_to_num(codes, nan=-1).astype(int), list(field.levels)))
        case "category" | "text" if field.dtype == "object":
            # What readers of files put where a value is missing; encoders tell it from None.
            return pd.Series([np.nan if value is None else value for value in values], dtype=object)
        case "category" | "text" if field.dtype in ("str", "string"):
            return pd.Series(values, dtype=field.dtype)
        case "timestamp":
            return pd.Series(pd.to_datetime(codes, unit="s", utc="UTC" in field.dtype)).astype(field.dtype)
        case "category":
            column = pd.Series(values, dtype=object)
            return column if column.isna().any() else column.astype(field.dtype)
        case "integer" | "boolean" if np.isnan(codes).any() and field.dtype[0].islower():
            # NumPy's own integers and booleans cannot be missing; what a library makes of one that is, is float.
            return pd.Series(codes)
        case "integer" | "boolean":
            return pd.Series(values, dtype=field.dtype)
        case _:
            return pd.Series(codes).astype(field.dtype)
