"""Read rows of an Excel workbook (.xlsx) one at a time. Needs openpyxl, the extra `xlsx`."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from xml.etree import ElementTree

from estiba.core.errors import EstibaError, MissingExtra
from estiba.core.stores.disk import explained
from estiba.core.suggest import did_you_mean
from estiba.model.coding.bounded_zip import BoundedZip

MAX_SHEET_BYTES = 2 * 1024**3
"""Bytes of a sheet once decompressed, at most. It is read as a stream."""

MAX_STRINGS_BYTES = 128 * 1024**2
"""Bytes of a workbook's table of texts once decompressed, at most. It is held in memory."""

MAX_PART_BYTES = 64 * 1024**2
"""Bytes of any other file in a workbook once decompressed, at most."""

MAX_ROW_BYTES = 16 * 1024**2
"""Bytes of a row in a sheet, at most."""

MAX_ROWS = 1_048_576
"""Rows of a sheet, at most: those that Excel has."""

_OLE_MAGIC = b"\xd0\xcf\x11\xe0"
"""The first bytes of the container of .xls files, and of workbooks with a password."""


class Row(NamedTuple):
    """The number of a row as Excel shows it, and its cells at the positions that were asked for."""

    number: int
    cells: tuple[Any, ...]


class XlsxFile:
    """A sheet of a workbook whose first row that is not empty is the header: `columns` are its names.

    Args:
        sheet: its name; empty is the first one.

    Raises:
        MissingExtra: openpyxl is not installed. EstibaError: no workbook, too large, or it has no such sheet.
    """

    def __init__(self, path: Path, sheet: str = "") -> None:
        openpyxl()
        self.path = path
        with self._readable():
            _check_sizes(path)
            self._book = _open(path)
            sheets = {own.name: rel.target for own, rel in self._book.parser.find_sheets() if "worksheet" in rel.Type}
        if not sheets or (sheet and sheet not in sheets):
            named = f" {sheet!r}" if sheet else ""
            raise EstibaError(
                f"{path} has no sheet{named}{did_you_mean(sheet, sheets)}",
                hint=f"Its sheets are: {', '.join(sheets)}." if sheets else None,
            )
        self.sheet = sheet or next(iter(sheets))
        self._part = sheets[self.sheet]
        header = next(self._filled(), (0, []))[1]
        self.columns = tuple(_names(header))
        if not self.columns:
            raise EstibaError(
                f"{path} has no rows in its sheet {self.sheet!r}.",
                hint="Its first row holds the names of the columns. Another sheet is chosen with --sheet NAME",
            )

    def rows(self, positions: Sequence[int]) -> Iterator[Row]:
        """The rows below the header that are not empty, with the cells at these positions; None is an empty one.

        Raises:
            EstibaError: a formula without a stored value, an error of Excel, or a value beside the header's columns.
        """
        wanted = {position: i for i, position in enumerate(positions)}
        rows = self._filled()
        next(rows)
        for number, cells in rows:
            values: list[Any] = [None] * len(positions)
            for cell in cells:
                position = cell["column"] - 1
                if position in wanted:
                    values[wanted[position]] = self._value(number, position, cell)
                elif position >= len(self.columns) and cell["value"] not in (None, ""):
                    raise EstibaError(
                        f"{self.path}, row {number}: expected {len(self.columns)} cells as in the header, "
                        f"got a value in column {_letters(position)}."
                    )
            yield Row(number, tuple(values))

    def place(self, number: int, position: int) -> str:
        """The name of a cell in an error message, by its row and column."""
        return f"{self.path}, row {number}, column {self.columns[position]!r} ({_letters(position)}{number})"

    def _value(self, number: int, position: int, cell: dict[str, Any]) -> Any:
        value = cell["value"]
        if cell["data_type"] == "f":
            raise EstibaError(
                f"{self.place(number, position)}: the formula has no stored value.",
                hint="Open the workbook in Excel or LibreOffice, which calculate it, and save it again.",
            )
        if cell["data_type"] == "e":
            raise EstibaError(
                f"{self.place(number, position)}: the cell holds the error {value}.",
                hint="Correct it in the workbook, or empty the cell if the value is missing.",
            )
        if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
            return int(value)
        return None if value == "" else value

    def _filled(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """The rows with a value, each with its number and those of its cells that the sheet has."""
        with self._readable(), self._book.archive.open(self._part) as file:
            stream = _Stream(file, self.path)
            for count, (number, cells) in enumerate(_parser(stream, self._book).parse(), 1):
                stream.start_row()
                if count > MAX_ROWS or number > MAX_ROWS:
                    raise EstibaError(f"{self.path} has more than {MAX_ROWS:,} rows in its sheet {self.sheet!r}.")
                if any(cell["value"] not in (None, "") or cell["data_type"] == "f" for cell in cells):
                    yield number, cells

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn the errors of openpyxl, zipfile and the XML parser into a sentence; they share no root."""
        try:
            with explained("read", self.path):
                yield
        except (EstibaError, GeneratorExit):
            raise
        except Exception as error:
            hint = None
            with explained("read", self.path), self.path.open("rb") as file:
                if file.read(4) == _OLE_MAGIC:
                    hint = "It is an old .xls file or has a password: save it as .xlsx without one."
            raise EstibaError(f"{self.path} is not a workbook that can be read: {error}", hint=hint) from None


def openpyxl(part: str = "") -> Any:
    """The library, or a part of it. Raises MissingExtra where it is not installed."""
    try:
        return importlib.import_module(f"openpyxl.{part}" if part else "openpyxl")
    except ImportError:
        raise MissingExtra("openpyxl", "xlsx") from None


def as_text(value: Any) -> Any:
    """A number that was typed into a column of text, as its digits; other values as they are."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _open(path: Path) -> Any:
    """The workbook without its sheets, of which openpyxl's load_workbook would read those without a dimension."""
    book = openpyxl("reader.excel").ExcelReader(path, read_only=True, data_only=True, keep_links=False)
    book.archive.close()
    book.archive = BoundedZip(path)  # its own would inflate parts beyond their stated size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles that openpyxl does not know
        book.read_manifest()
        book.read_strings()
        book.read_workbook()
        openpyxl("styles.stylesheet").apply_stylesheet(book.archive, book.wb)
    return book


def _parser(stream: Any, book: Any) -> Any:
    """A parser of a sheet that gives the stored values of formulas, and the type "f" to one without."""
    reader = openpyxl("worksheet._reader")

    class Parser(reader.WorkSheetParser):  # type: ignore[misc, name-defined]
        def parse_cell(self, element: Any) -> Any:
            cell = super().parse_cell(element)
            if cell["value"] is None and element.find(reader.FORMULA_TAG) is not None:
                empty_text = element.get("t") == "str" and element.find(reader.VALUE_TAG) is not None
                cell["data_type"] = "s" if empty_text else "f"
            return cell

        def parse_row(self, row: Any) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numbers that are no dates: the cell is an error then
                return super().parse_row(row)

        def parse_extensions(self, element: Any) -> None:
            """Leave out what is not about cells, of which openpyxl warns that it will not be saved."""

        parse_formatting = parse_extensions

    return Parser(
        stream,
        book.shared_strings,
        data_only=True,
        epoch=book.wb.epoch,
        date_formats=book.wb._date_formats,
        timedelta_formats=book.wb._timedelta_formats,
    )


class _Stream:
    """A sheet's XML, of which a single row is bounded: the parser holds it in memory."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._bytes = file, path, 0

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._bytes += len(content)
        if self._bytes > MAX_ROW_BYTES:
            raise EstibaError(f"{self._path} has a row of more than {MAX_ROW_BYTES:,} bytes.")
        return content

    def start_row(self) -> None:
        self._bytes = 0


def _check_sizes(path: Path) -> None:
    """Refuse a workbook with a file that grows too large; no more of it is read than its stated size."""
    types = "[Content_Types].xml"
    with BoundedZip(path) as archive:
        entries = archive.infolist()
        largest = max((entry.file_size for entry in entries if entry.filename == types), default=0)
        kinds: dict[str, set[str]] = {}
        if 0 < largest <= MAX_PART_BYTES // 64:
            for part in ElementTree.fromstring(archive.read(types)):
                name = part.get("PartName", "")[1:]
                kinds.setdefault(name, set()).add(part.get("ContentType", "").rpartition(".")[2])
    for entry in entries:
        limit = _limit(kinds.get(entry.filename, set()))
        if entry.file_size > limit:
            raise EstibaError(
                f"{path} is too large: {entry.filename} in it has {entry.file_size:,} bytes once decompressed, "
                f"and {limit:,} are read at most.",
                hint="Save the rows as .csv or .parquet, or split the workbook.",
            )


def _limit(kinds: set[str]) -> int:
    if kinds == {"worksheet+xml"}:
        return MAX_SHEET_BYTES
    return MAX_STRINGS_BYTES if kinds == {"sharedStrings+xml"} else MAX_PART_BYTES


def _names(cells: list[dict[str, Any]]) -> list[str]:
    """The names in a header; a cell between two names that is empty has an empty one, as in CSV."""
    found = {cell["column"] - 1: cell["value"] for cell in cells if cell["value"] not in (None, "")}
    width = max(found, default=-1) + 1
    if width > 16_384:
        raise EstibaError("A sheet has 16,384 columns at most.")
    names = (found.get(i, "") for i in range(width))
    return [str(int(name) if isinstance(name, float) and name.is_integer() else name) for name in names]


def _letters(position: int) -> str:
    return str(openpyxl("utils").get_column_letter(position + 1)) if position < 16_384 else str(position + 1)
