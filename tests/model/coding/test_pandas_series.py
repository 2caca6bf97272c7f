"""Columns are rebuilt as they were in training: values, dtypes and missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from estiba.model.coding.coder import Coder
from estiba.model.schema.infer import FieldOptions, infer
from estiba.model.schema.signature import Head

COLUMNS: dict[str, Any] = {
    "float64": [1.5, -0.0, 3.0, 1e300],
    "float64 missing": [1.5, np.nan, 3.0, 2.0],
    "float32": pd.array([1.5, 2.25, 0.1, 4.0], dtype="float32"),
    "Float64": pd.array([1.5, None, 3.0, 4.0], dtype="Float64"),
    "int64": [1, -2, 3, 2**53],
    "int32": pd.array([1, -2, 3, 4], dtype="int32"),
    "uint8": pd.array([1, 2, 3, 255], dtype="uint8"),
    "Int64": pd.array([1, None, 3, 4], dtype="Int64"),
    "bool": [True, False, True, True],
    "boolean": pd.array([True, None, False, True], dtype="boolean"),
    "objects of booleans": pd.Series([True, None, False, True], dtype=object),
    "objects of integers": pd.Series([1, 2, 3, 4], dtype=object),
    "text": ["a", "b", "a", "b"],
    "text missing": ["a", None, "a", "b"],
    "objects of text": pd.Series(["a", "b", "a", "b"], dtype=object),
    "objects of text missing": pd.Series(["a", None, "a", "b"], dtype=object),
    "string": pd.array(["a", "b", "a", None], dtype="string"),
    "category": pd.Categorical(["x", "y", "x", "y"]),
    "category missing": pd.Categorical(["x", None, "x", "y"], categories=["y", "x"]),
    "category of numbers": pd.Categorical([3, 1, 3, 1]),
    "datetime64": pd.to_datetime(["2024-01-01", "2024-01-02", "1969-12-31", "2024-01-01"]),
    "datetime64 missing": pd.to_datetime(["2024-01-01", None, "2024-01-03", "2024-01-01"]),
    "datetime64 in Madrid": pd.to_datetime(["2024-01-01"] * 4).tz_localize("Europe/Madrid"),
}


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2], [1, 1, 1]])
def test_a_sample_comes_back_as_it_was(rows: list[int]) -> None:
    sample = pd.DataFrame(COLUMNS)
    coder = Coder(infer(None, sample, Head(kind="values", names=("value",))))
    columns = {name: sample[name].astype(object).tolist() for name in sample.columns}
    coded = coder.check_columns(columns, len(sample))
    expected = sample.iloc[rows].reset_index(drop=True)
    assert_frame_equal(coder.frame(coded.take(np.array(rows))), expected)


def test_a_rebuilt_frame_may_be_written_to_and_is_no_view() -> None:
    sample = pd.DataFrame({"a": [1.0, 2.0], "b": [1, 2]})
    coder = Coder(infer(None, sample, Head(kind="values", names=("value",))))
    coded = coder.check([{"a": 5.0, "b": 6}])
    coded.matrix.flags.writeable = False
    built = coder.frame(coded)
    built.loc[0, "a"] = 7.0
    built["c"] = built["a"] + built["b"]
    assert built.to_dict("records") == [{"a": 7.0, "b": 6, "c": 13.0}]
    assert coded.matrix.tolist() == [[5.0, 6.0]]


def test_a_whole_number_that_is_missing_makes_its_column_float64() -> None:
    sample = pd.DataFrame({"a": [1, 2], "b": [True, False]})
    options = {"a": FieldOptions(nullable=True), "b": FieldOptions(nullable=True)}
    coder = Coder(infer(None, sample, Head(kind="values", names=("value",)), fields=options))
    built = coder.frame(coder.check([{"a": None, "b": None}, {"a": 3, "b": True}]))
    assert_frame_equal(built, pd.DataFrame({"a": [np.nan, 3.0], "b": [np.nan, 1.0]}))


def test_a_small_column_refuses_what_it_cannot_hold() -> None:
    sample = pd.DataFrame({"a": pd.array([1, 2], dtype="uint8")})
    coder = Coder(infer(None, sample, Head(kind="values", names=("value",))))
    with pytest.raises((OverflowError, ValueError)):
        coder.frame(coder.check([{"a": 300}]))
