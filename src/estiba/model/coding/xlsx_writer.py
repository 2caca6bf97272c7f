"""Write rows as an Excel workbook (.xlsx), row by row. Needs openpyxl, the extra `xlsx`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from estiba.core.errors import EstibaError
from estiba.model.coding.xlsx_file import MAX_ROWS, openpyxl

MAX_CELL_CHARACTERS = 32_767
"""Characters of a cell, at most: those that Excel has. openpyxl would cut off the others."""

_EXCEL_DIGITS = 16
"""Significant digits that openpyxl writes of a float; one that needs another is written as its shortest text."""


class XlsxWriter:
    """A new workbook with one sheet, which `save` writes. Rows wait in a temporary file, not in memory."""

    def __init__(self, sheet: str) -> None:
        self._book = openpyxl().Workbook(write_only=True)
        self._sheet = self._book.create_sheet(sheet)
        self._cell = openpyxl("cell").WriteOnlyCell
        self._illegal = openpyxl("utils.exceptions").IllegalCharacterError
        self._columns: tuple[str, ...] = ()
        self._rows = 0
        self._saved = False

    def write(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Append rows; the first call writes the header above them.

        Raises:
            EstibaError: more rows than a sheet has, or a text that a cell cannot hold (named by row and column).
        """
        if not self._rows:
            self._columns = tuple(columns)
            self._append(columns)
        for row in rows:
            self._append(row)

    def save(self, path: Path) -> None:
        self._book.save(path)
        self._saved = True

    def close(self) -> None:
        """Drop what was not saved, with its temporary file."""
        if not self._saved:
            self._sheet.close()
            self._sheet._writer.cleanup()

    def _append(self, row: Sequence[Any]) -> None:
        if self._rows == MAX_ROWS:
            raise EstibaError(
                f"A sheet of Excel holds {MAX_ROWS:,} rows at most, the header among them.",
                hint="Write .csv or .parquet.",
            )
        self._rows += 1
        self._sheet.append([self._value(value, i) for i, value in enumerate(row)])

    def _value(self, value: Any, position: int) -> Any:
        """A value as openpyxl is to write it: text stays text, and a float keeps all its digits."""
        if isinstance(value, float):
            if not math.isfinite(value):
                return None if value != value else str(value)
            return value if float(f"{value:.{_EXCEL_DIGITS}g}") == value else self._typed(repr(value), "n")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if abs(value) <= 2**53 else str(value)
        if isinstance(value, (date, time)):
            return _moment(value)
        text = str(value)
        if len(text) > MAX_CELL_CHARACTERS:
            raise EstibaError(
                f"{self._place(position)}: a cell of Excel holds {MAX_CELL_CHARACTERS:,} characters at most, "
                f"and the value has {len(text):,}.",
                hint="Write .csv or .parquet.",
            )
        try:
            return self._typed(text, "s")
        except self._illegal:
            raise EstibaError(
                f"{self._place(position)}: the text has a control character, which a workbook cannot hold.",
                hint="Write .csv or .parquet.",
            ) from None

    def _typed(self, text: str, kind: str) -> Any:
        """A cell whose type is not guessed from its text: "=1+1" is no formula, and "#N/A" no error."""
        cell = self._cell(self._sheet, value=text)
        cell.data_type = kind
        return cell

    def _place(self, position: int) -> str:
        name = f" {self._columns[position]!r}" if position < len(self._columns) else ""
        return f"Output row {self._rows}, column{name}"


def _moment(value: date | time) -> Any:
    """A date or time; one that Excel cannot hold is its text in ISO 8601. Times of a zone are written in UTC."""
    if isinstance(value, datetime) and value.tzinfo:
        value = value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, time):
        return value.isoformat() if value.tzinfo else value
    return value if value.year >= 1900 else value.isoformat()
