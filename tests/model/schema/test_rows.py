"""Rows in every form that a notebook has, against the same rows as records."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from estiba.core.errors import BadInput, BadRequest
from estiba.model.schema.rows import records_of

RECORDS = [{"a": 1.5, "b": "x"}, {"a": 2.5, "b": "y"}]
FRAME = pd.DataFrame(RECORDS)


def records(rows: Any, *names: str) -> list[dict[str, Any]]:
    return [dict(record) for record in records_of(rows, lambda: names or ("a", "b"))]


@pytest.mark.parametrize(
    "rows",
    [
        RECORDS,
        tuple(RECORDS),
        iter(RECORDS),
        FRAME,
        FRAME.to_numpy(),
        [[1.5, "x"], (2.5, "y")],
        list(FRAME.to_numpy()),
        FRAME.to_records(index=False),
        np.array([(1.5, "x"), (2.5, "y")], [("a", float), ("b", object)]),
        pa.Table.from_pylist(RECORDS),
        pa.RecordBatch.from_pylist(RECORDS),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_several_rows(rows: Any) -> None:
    assert records(rows) == RECORDS


@pytest.mark.parametrize("row", [RECORDS[0], FRAME.iloc[0], FRAME.to_numpy()[0], [1.5, "x"], (1.5, "x")])
def test_one_row(row: Any) -> None:
    assert records(row) == RECORDS[:1]


def test_rows_of_the_only_field() -> None:
    expected = [{"text": "one"}, {"text": "two"}]
    for rows in (["one", "two"], pd.Series(["one", "two"]), np.array(["one", "two"]), pa.array(["one", "two"])):
        assert records(rows, "text") == expected
    assert records(pd.Series({"text": "one"}), "text") == expected[:1]
    assert records(pd.Series([1.5, 2.5], index=[7, 9]), "x") == [{"x": 1.5}, {"x": 2.5}]


def test_labels_that_are_no_strings() -> None:
    assert records(pd.DataFrame([[1, 2]], columns=[2, 0])) == [{"2": 1, "0": 2}]
    levels = pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "")])
    assert records(pd.DataFrame([[1, 2, 3]], columns=levels)) == [{"a_x": 1, "a_y": 2, "b": 3}]
    assert records(pd.DataFrame([[1, 2]], columns=[2, 0]).iloc[0]) == [{"2": 1, "0": 2}]
    assert records([{2: 1, 0: 2}]) == [{"2": 1, "0": 2}]


def test_instants_stay_instants() -> None:
    (record,) = records(np.array([["2026-01-31"]], "datetime64[ns]"), "at")
    assert record == {"at": datetime.datetime(2026, 1, 31)}


@pytest.mark.parametrize(
    "rows", [None, 1, 1.5, "text", b"bytes", {1, 2}, [None, [1]], [FRAME], np.zeros((1, 1, 1)), object()]
)
def test_all_else_is_one_error(rows: Any) -> None:
    with pytest.raises(BadRequest, match="Cannot read rows from") as caught:
        records(rows)
    assert caught.value.hint == "Give records, one record or a DataFrame."


def test_the_count_of_values_has_to_fit() -> None:
    with pytest.raises(BadInput) as caught:
        records(np.zeros((1, 3)))
    assert str(caught.value) == (
        "#/records/0: expected 2 values in the order of the model's fields (a, b), got 3\n"
        "Or name them: give records or a DataFrame."
    )
    with pytest.raises(BadInput, match="#/records/1: expected 2 values"):
        records([[1, 2], [1]])
    with pytest.raises(BadInput, match="#/records/1: expected an object"):
        records([{"a": 1}, 2])


def test_a_column_twice_is_refused() -> None:
    for rows in (pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame([[1, 2]], columns=["2", 2])):
        with pytest.raises(BadRequest, match="appears twice"):
            records(rows)
        with pytest.raises(BadRequest, match="appears twice"):
            records(rows.iloc[0])
