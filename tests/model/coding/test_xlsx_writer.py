"""Workbooks are written so that a reader gets back the values; what Excel cannot hold is an error or its text."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from estiba.core.errors import EstibaError
from estiba.model.coding import xlsx_writer
from estiba.model.coding.xlsx_writer import XlsxWriter


def written(path: Path, columns: list[str], rows: list[list[Any]]) -> Path:
    writer = XlsxWriter("predictions")
    try:
        writer.write(columns, rows)
        writer.save(path)
    finally:
        writer.close()
    return path


def test_pandas_reads_what_was_written(tmp_path: Path) -> None:
    rows = [[0.1 + 0.2, 1, "a", True, datetime(2024, 2, 29, 13, 30)], [1 / 3, 2, "=1+1", False, datetime(1999, 1, 1)]]
    columns = ["float", "int", "text", "bool", "moment"]
    found = pd.read_excel(written(tmp_path / "out.xlsx", columns, rows), sheet_name="predictions")
    pd.testing.assert_frame_equal(found, pd.DataFrame(rows, columns=columns), check_dtype=False, check_exact=True)


def test_text_is_neither_formula_nor_error(tmp_path: Path) -> None:
    texts = ["=1+1", "#N/A", "00501", "2024-01-01", " x "]
    sheet = openpyxl.load_workbook(written(tmp_path / "out.xlsx", ["t"], [[text] for text in texts])).active
    assert [(cell.value, cell.data_type) for (cell,) in sheet.iter_rows(min_row=2)] == [(text, "s") for text in texts]


def test_values_that_excel_does_not_have_are_missing_or_text(tmp_path: Path) -> None:
    values = [float("nan"), None, float("inf"), 2**53 + 1, datetime(2024, 1, 1, 12, tzinfo=UTC), date(1850, 5, 1)]
    sheet = openpyxl.load_workbook(written(tmp_path / "out.xlsx", list("abcdef"), [values])).active
    found = [cell.value for cell in next(sheet.iter_rows(min_row=2))]
    assert found == [None, None, "inf", "9007199254740993", datetime(2024, 1, 1, 12), "1850-05-01"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * 32_768, "Output row 3, column 't': a cell of Excel holds 32,767"),
        ("\x01", "row 3, column 't': the text has"),
    ],
)
def test_a_text_that_a_cell_cannot_hold_is_named(value: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match=message):
        written(tmp_path / "out.xlsx", ["t"], [["a"], [value]])


def test_more_rows_than_a_sheet_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx_writer, "MAX_ROWS", 3)
    assert len(pd.read_excel(written(tmp_path / "out.xlsx", ["a"], [[1], [2]]))) == 2
    with pytest.raises(EstibaError, match="holds 3 rows at most"):
        written(tmp_path / "more.xlsx", ["a"], [[1], [2], [3]])
