"""Build a pandas Series with the dtype and the missing value that the column had in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from estiba.model.schema.signature import Field

if TYPE_CHECKING:
    import pandas as pd

_TEXT_DTYPES = ("str", "string")


def series(field: Field, values: list[Any], codes: npt.NDArray[np.float64]) -> pd.Series[Any]:
    """Build the column of `field` from its plain values (None where missing) and its codes (NaN where missing)."""
    import pandas as pd

    if field.kind == "timestamp":
        return _timestamps(field, codes)
    if field.kind in ("category", "text"):
        return _words(field, values, codes)
    if field.dtype == "object" and field.missing:
        return _objects(field, values)
    if field.kind == "number":
        return pd.Series(codes).astype(field.dtype)
    if np.isnan(codes).any() and field.dtype[0].islower():
        # NumPy's own integers and booleans cannot be missing; pandas turns a column with a missing one into float64.
        return pd.Series(codes)
    return pd.Series(values, dtype=field.dtype)


def _words(field: Field, values: list[Any], codes: npt.NDArray[np.float64]) -> pd.Series[Any]:
    """Build a column of categories or texts."""
    import pandas as pd

    if field.dtype == "category":
        return pd.Series(pd.Categorical.from_codes(np.nan_to_num(codes, nan=-1).astype(int), list(field.levels)))
    if field.dtype == "object":
        return _objects(field, values)
    if field.dtype in _TEXT_DTYPES or field.kind == "text":
        return pd.Series(values, dtype=field.dtype)
    missing = bool(np.isnan(codes).any())
    if missing and not field.missing:  # an artifact from before the missing value was recorded was proven with this
        return pd.Series(values, dtype=object)
    if field.dtype[0].islower() and "[" not in field.dtype:
        column = pd.Series([np.nan if value is None else value for value in values])
        return column.astype("float64" if missing and not field.dtype.startswith("float") else field.dtype)
    return pd.Series(values, dtype=field.dtype)


def _objects(field: Field, values: list[Any]) -> pd.Series[Any]:
    """Build an object column. Encoders tell None from NaN, which readers of files put where a value is missing."""
    import pandas as pd

    if field.missing != "none":
        values = [np.nan if value is None else value for value in values]
    return pd.Series(values, dtype=object)


def _timestamps(field: Field, codes: npt.NDArray[np.float64]) -> pd.Series[Any]:
    """Build a column of instants in the zone of training. Microseconds are what float64 seconds hold exactly."""
    import pandas as pd

    missing = np.isnan(codes)
    whole = np.where(missing, 0, np.round(np.where(missing, 0, codes) * 1e6)).astype(np.int64)
    instants = whole.view("datetime64[us]").copy()
    instants[missing] = np.datetime64("NaT")
    zoned = "," in field.dtype
    return pd.Series(pd.to_datetime(instants, utc=zoned)).astype(field.dtype)
