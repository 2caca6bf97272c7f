"""Build pandas columns with the dtypes and the missing values that they had in training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from estiba.model.schema.signature import Field

if TYPE_CHECKING:
    import pandas as pd

_TEXT_DTYPES = ("str", "string")


def frame(
    fields: Sequence[Field],
    matrix: npt.NDArray[np.float64],
    values: Callable[[int], list[Any]],
    names: pd.Index[Any],
) -> pd.DataFrame:
    """Build the DataFrame of coded rows: the columns of training, in their order.

    Args:
        values: the plain values of the field at a position, None where missing; asked only where codes do not do.
        names: of the columns, the same object for each frame: it remembers where it has found a column.
    """
    import pandas as pd

    codes = matrix.T.copy()  # each column in one piece, and free to be written to
    columns = [_column(field, codes[i], i, values) for i, field in enumerate(fields)]
    # pandas' own way from columns that are arrays already: of a single row, DataFrame(...) takes 60 µs longer.
    build: Callable[..., pd.DataFrame] = pd.DataFrame._from_arrays
    return build(columns, names, pd.RangeIndex(len(matrix)), verify_integrity=False)


def _column(field: Field, codes: npt.NDArray[np.float64], i: int, values: Callable[[int], list[Any]]) -> Any:
    """The column of a field as an array of its dtype."""
    if field.dtype == "float64" and field.kind in ("number", "integer"):
        return codes
    if field.dtype in ("int64", "bool") and field.kind in ("integer", "boolean"):
        return codes if np.isnan(codes).any() else codes.astype(field.dtype)
    if field.dtype in _TEXT_DTYPES:
        return _text_array(field.dtype, values(i))
    return series(field, values(i), codes).array


def _text_array(dtype: str, values: list[Any]) -> Any:
    kind = _text_dtype(dtype)
    return kind.construct_array_type()._from_sequence(values, dtype=kind)


@cache
def _text_dtype(name: str) -> Any:
    from pandas.api.types import pandas_dtype

    return pandas_dtype(name)


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
    if np.isnan(codes).any() and field.dtype[0].islower() and field.dtype != "boolean":
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
