"""Sheets of Excel workbooks are read row by row; errors name row and column, and bombs are refused."""

from __future__ import annotations

import re
import sys
import tracemalloc
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from estiba.core.errors import EstibaError, MissingExtra
from estiba.model.coding import xlsx_file
from estiba.model.coding.xlsx_file import XlsxFile

SHEET = "xl/worksheets/sheet1.xml"
NAMESPACE = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def workbook(path: Path, rows: list[list[Any]], **others: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name, of_other in others.items():
        sheet = book.create_sheet(name)
        for row in of_other:
            sheet.append(row)
    book.save(path)
    return path


def replaced(path: Path, part: str, content: bytes) -> Path:
    """The workbook with another content of one of its files."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, old in parts.items():
            archive.writestr(name, content if name == part else old)
    return path


def sheet_xml(path: Path, rows: str, before: str = "") -> Path:
    workbook(path, [["a"], [1]])
    content = f'<?xml version="1.0"?>{before}<worksheet xmlns="{NAMESPACE}"><sheetData>{rows}</sheetData></worksheet>'
    return replaced(path, SHEET, content.encode())


def with_shared_strings(path: Path, content: bytes) -> Path:
    """A workbook whose texts are in a table of their own, as Excel writes it: the cells have positions in it."""
    sheet_xml(path, "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>{n - 1}</v></c></row>' for n in (1, 2)))
    with zipfile.ZipFile(path) as archive:
        types = archive.read("[Content_Types].xml").decode()
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}" /></Types>'
    replaced(path, "[Content_Types].xml", types.replace("</Types>", part).encode())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", content)
    return path


def cells(path: Path, sheet: str = "") -> list[tuple[int, tuple[Any, ...]]]:
    file = XlsxFile(path, sheet)
    return [tuple(row) for row in file.rows(range(len(file.columns)))]


def test_cells_have_the_types_of_the_sheet(tmp_path: Path) -> None:
    day = datetime(2024, 2, 29, 13, 30)
    path = workbook(
        tmp_path / "in.xlsx",
        [["n", "i", "t", "b", "d", 2024], [1.5, 3.0, "00501", True, day, None], [], [None, -2, "NA", False, None, 7]],
    )
    assert XlsxFile(path).columns == ("n", "i", "t", "b", "d", "2024")
    found = cells(path)
    assert found == [(2, (1.5, 3, "00501", True, day, None)), (4, (None, -2, "NA", False, None, 7))]
    assert [type(value) for value in found[0][1][:4]] == [float, int, str, bool]
    frame = pd.read_excel(path, keep_default_na=False, na_values=[""]).dropna(how="all")
    ours = pd.DataFrame([row for _, row in found], columns=list(frame.columns))
    assert ours.astype(object).where(ours.notna(), None).to_numpy().tolist() == (
        frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    )


def test_texts_are_read_from_the_table_of_texts(tmp_path: Path) -> None:
    content = f'<sst xmlns="{NAMESPACE}"><si><t>zip</t></si><si><r><t>005</t></r><r><t>01</t></r></si></sst>'
    path = with_shared_strings(tmp_path / "in.xlsx", content.encode())
    assert (XlsxFile(path).columns, cells(path)) == (("zip",), [(2, ("00501",))])
    assert pd.read_excel(path, dtype=str)["zip"].tolist() == ["00501"]


def test_the_first_sheet_is_read_or_the_one_that_is_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", [["a"], [1]], October=[["a"], [2]])
    assert (cells(path), cells(path, "October")) == ([(2, (1,))], [(2, (2,))])
    with pytest.raises(EstibaError, match="no sheet 'Octobre'; did you mean 'October'") as caught:
        XlsxFile(path, "Octobre")
    assert caught.value.hint == "Its sheets are: Sheet, October."


def test_a_formula_is_its_stored_value_or_an_error(tmp_path: Path) -> None:
    rows = '<row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c></row>'
    stored = rows + '<row r="2"><c r="A2"><f>1+1</f><v>2</v></c></row><row r="3"><c r="A3"><f>A2</f><v>4</v></c></row>'
    assert cells(sheet_xml(tmp_path / "stored.xlsx", stored)) == [(2, (2,)), (3, (4,))]
    path = workbook(tmp_path / "none.xlsx", [["x", "a"], [1, 1], [1, "=A2+1"]])
    message = "none.xlsx, row 3, column 'a' (B3): the formula has no stored value."
    with pytest.raises(EstibaError, match=re.escape(message)):
        cells(path)
    assert [row.cells for row in XlsxFile(path).rows([0])] == [(1,), (1,)]


def test_an_error_of_excel_is_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", [["a"], [1], ["#DIV/0!"]])
    with pytest.raises(EstibaError, match=re.escape("row 3, column 'a' (A3): the cell holds the error #DIV/0!")):
        cells(path)


def test_a_value_beside_the_header_is_an_error(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", [["a", "b"], [1, 2], [1, 2, 3]])
    with pytest.raises(EstibaError, match="row 3: expected 2 cells as in the header, got a value in column C"):
        cells(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a workbook that can be read"),
        (b"a,b\n1,2\n", "not a workbook that can be read"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "an old .xls file or has a password"),
    ],
)
def test_another_file_is_a_sentence(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.xlsx").write_bytes(content)
    with pytest.raises(EstibaError, match=message):
        XlsxFile(tmp_path / "in.xlsx")


def test_an_empty_sheet_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match="no rows in its sheet 'Sheet'"):
        XlsxFile(workbook(tmp_path / "in.xlsx", []))


HEADER = '<row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c></row>'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (HEADER + '<row r="1000000000"><c r="A1000000000"><v>1</v></c></row>', "more than 1,000 rows"),
        (HEADER + "<row/>" * 1_001, "more than 1,000 rows"),
        (
            HEADER + '<row r="2">' + '<c r="A2"><v>1</v></c>' * 20_000 + "</row>",
            "a row of more than 200,000 bytes",
        ),
        (HEADER + '<row r="2"><c r="A2" t="str"><v>' + "x" * 300_000 + "</v></c></row>", "a row of more than"),
        (HEADER + '<row r="2"><c r="XFE2"><v>1</v></c></row>', "got a value in column 16385"),
        ('<row r="1"><c r="XFE1" t="str"><v>a</v></c></row>', "16,384 columns at most"),
        (HEADER + '<row r="2"><c r="A2" t="s"><v>99</v></c></row>', "not a workbook that can be read"),
        (HEADER + '<row r="2"><c r="ZZZZZZ2"><v>1</v></c></row>', "not a workbook that can be read"),
        (HEADER + '<row r="2"><c', "not a workbook that can be read"),
    ],
)
def test_a_sheet_that_is_made_to_harm_is_refused(
    rows: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xlsx_file, "MAX_ROWS", 1_000)
    monkeypatch.setattr(xlsx_file, "MAX_ROW_BYTES", 200_000)
    with pytest.raises(EstibaError, match=message):
        cells(sheet_xml(tmp_path / "in.xlsx", rows))


def test_a_dimension_of_a_billion_cells_costs_nothing(tmp_path: Path) -> None:
    path = workbook(tmp_path / "in.xlsx", [["a"], [1]])
    with zipfile.ZipFile(path) as archive:
        content = archive.read(SHEET)
    assert b'ref="A1:A2"' in content
    assert cells(replaced(path, SHEET, content.replace(b'ref="A1:A2"', b'ref="A1:XFD1048576"'))) == [(2, (1,))]


def test_entities_that_grow_are_refused(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 100}">' for n in range(1, 6))
    path = sheet_xml(
        tmp_path / "in.xlsx",
        '<row r="1"><c r="A1" t="str"><v>&e5;</v></c></row>',
        f'<!DOCTYPE x [<!ENTITY e0 "xxxxxxxxxx">{entities}]>',
    )
    with pytest.raises(EstibaError, match="not a workbook that can be read"):
        cells(path)


@pytest.mark.parametrize(
    ("part", "limit"),
    [(SHEET, "MAX_SHEET_BYTES"), ("xl/sharedStrings.xml", "MAX_STRINGS_BYTES"), ("xl/styles.xml", "MAX_PART_BYTES")],
)
def test_a_part_that_grows_too_large_is_refused_before_it_is_read(
    part: str, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xlsx_file, limit, 1_000_000)
    path = replaced(with_shared_strings(tmp_path / "in.xlsx", b""), part, b" " * 1_000_001)
    assert path.stat().st_size < 20_000
    with pytest.raises(EstibaError, match=rf"{part} in it has 1,000,001 bytes once decompressed, and 1,000,000 are"):
        XlsxFile(path)


def test_without_openpyxl_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "in.xlsx", [["a"], [1]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtra, match=re.escape("[xlsx]'")):
        XlsxFile(path)


@pytest.mark.parametrize("part", ["[Content_Types].xml", "xl/workbook.xml", "xl/styles.xml"])
def test_a_part_is_not_decompressed_beyond_its_stated_size(part: str, tmp_path: Path) -> None:
    path = replaced(workbook(tmp_path / "in.xlsx", [["a"], [1]]), part, b" " * 50_000_000)
    content = bytearray(path.read_bytes())
    place = content.index(part.encode(), content.index(b"PK\x01\x02")) - 46 + 24
    content[place : place + 4] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(EstibaError, match="not a workbook that can be read: Bad CRC-32"):
        XlsxFile(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
