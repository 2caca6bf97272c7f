"""Workbooks (.xlsx) are scored as a CSV file or DataFrame with the same rows is."""

from __future__ import annotations

import csv
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
from toys import CHURN, CHURN_ROW, toy

from estiba.core.errors import EstibaError
from estiba.model.inference import score_files as scoring
from estiba.model.inference.load import Model, load_artifact
from estiba.model.inference.score_files import SourceOptions, score
from estiba.model.packing.from_file import read_sample

COUNT = 250


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_artifact(toy("churn", CHURN, CHURN_ROW, tmp_path_factory.mktemp("model")), threads=1)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        {
            **CHURN_ROW,
            "age": 18 + n % 80,
            "balance": round(n / 7, 6),
            "country": ("ES", "FR", "DE")[n % 3],
            "active": n % 5 == 0,
            "a/b~c d": None if n % 2 else round(n / 7, 6),
            "id": f"{n:05}",
        }
        for n in range(COUNT)
    ]


def workbook(path: Path, rows: list[dict[str, Any]], sheet: str = "Sheet") -> Path:
    book = openpyxl.Workbook(write_only=True)
    for name in dict.fromkeys(("Sheet", sheet)):
        opened = book.create_sheet(name)
        for row in [list(rows[0]), *(list(row.values()) for row in rows)] if name == sheet else [["nothing"], [1]]:
            opened.append(row)
    book.save(path)
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_answers_are_those_of_a_csv_file(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 64)
    seen: list[int] = []
    source = workbook(tmp_path / "in.xlsx", rows, "October")
    options = SourceOptions(sheet="October")
    done = score(
        model, source, tmp_path / "x.csv", keep=["id"], options=options, on_rows=lambda n, total: seen.append(n)
    )
    score(model, table(tmp_path / "in.csv", rows), tmp_path / "c.csv", keep=["id"])
    assert (done.rows, seen) == (COUNT, [64, 128, 192, 250])
    assert (tmp_path / "x.csv").read_text() == (tmp_path / "c.csv").read_text()
    assert (tmp_path / "x.csv").read_text().splitlines()[2].startswith("00001,")


def test_pandas_reads_the_same_answers_from_a_workbook_as_from_csv(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = workbook(tmp_path / "in.xlsx", rows)
    for target in ("out.xlsx", "out.csv"):
        score(model, source, tmp_path / target, keep=["id"])
    found = pd.read_excel(tmp_path / "out.xlsx", dtype={"id": str})
    expected = pd.read_csv(tmp_path / "out.csv", dtype={"id": str})
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    answers = model.predict([{k: v for k, v in row.items() if k != "id"} for row in rows])
    assert found["probabilities.leaves"].tolist() == [answer["probabilities"]["leaves"] for answer in answers]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"country": "Peru"}, "in.xlsx, row 202, field 'country': expected one of: ES, FR, DE"),
        ({"balance": "12,5"}, "in.xlsx, row 202, field 'balance': expected a number, got \"12,5\""),
        ({"balance": "12,5"}, "convert it to a number"),
        ({"age": None}, "row 202, field 'age': may not be missing"),
        ({"age": 41.5}, "row 202, field 'age'"),
        ({"age": "=1+1"}, "row 202, column 'age' (A202): the formula has no stored value"),
        ({"balance": datetime(2024, 1, 1)}, "row 202, field 'balance': expected a number"),
    ],
)
def test_a_wrong_value_is_named_by_row_and_column(
    model: Model, rows: list[dict[str, Any]], change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = [{name: row[name] for name in ("age", *(name for name in row if name != "age"))} for row in rows]
    rows[200] |= change
    with pytest.raises(EstibaError, match=re.escape(message)):
        score(model, workbook(tmp_path / "in.xlsx", rows), tmp_path / "out.xlsx")
    assert [path.name for path in tmp_path.iterdir()] == ["in.xlsx"]


@pytest.mark.parametrize("header", [["age", "age"], ["", "", "age"], ["age", "balance"]])
def test_a_wrong_header_is_the_error_that_it_is_in_csv(model: Model, header: list[str], tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append([name or None for name in header])
    book.active.append([1] * len(header))
    book.save(tmp_path / "in.xlsx")
    (tmp_path / "in.csv").write_text(f"{','.join(header)}\n{','.join('1' for _ in header)}\n")
    messages = []
    for name in ("in.xlsx", "in.csv"):
        with pytest.raises(EstibaError) as caught:
            score(model, tmp_path / name, tmp_path / "out.csv")
        messages.append(caught.value.message.replace(name, "in"))
    assert messages[0] == messages[1]


def test_a_kept_column_of_several_kinds_is_no_column_of_parquet(
    model: Model, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows[200]["id"] = datetime(2024, 1, 1)
    source = workbook(tmp_path / "in.xlsx", rows)
    for chunk_rows in (1_000, 200):
        monkeypatch.setattr(scoring, "CHUNK_ROWS", chunk_rows)
        with pytest.raises(EstibaError, match="cannot be written as Parquet"):
            score(model, source, tmp_path / "out.parquet", keep=["id"])
    score(model, source, tmp_path / "out.xlsx", keep=["id"])
    found = [cell.value for (cell, *_) in openpyxl.load_workbook(tmp_path / "out.xlsx").active.iter_rows()]
    assert found == ["id", *(row["id"] for row in rows)]


def test_a_sheet_of_another_kind_of_file_is_refused(model: Model, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match=r"in\.csv has no sheets"):
        score(model, table(tmp_path / "in.csv", rows), tmp_path / "out.csv", options=SourceOptions(sheet="x"))


def sample_frame() -> pd.DataFrame:
    days = [datetime(2024, 1, 1) + timedelta(days=n, hours=6) for n in range(30)]
    return pd.DataFrame(
        {
            "whole": range(30),
            "number": np.linspace(0.1, 3, 30),
            "gaps": [None if n % 4 == 0 else n / 4 for n in range(30)],
            "flag": [n % 2 == 0 for n in range(30)],
            "text": [f"{n:03}" for n in range(30)],
            "day": days,
        }
    )


def test_a_sample_is_what_pandas_reads(tmp_path: Path) -> None:
    sample_frame().to_excel(tmp_path / "rows.xlsx", index=False)
    found = read_sample(tmp_path / "rows.xlsx", None)
    expected = pd.read_excel(tmp_path / "rows.xlsx", dtype={"text": str})
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    assert [found[name].dtype.kind for name in ("whole", "number", "gaps", "flag", "day")] == list("iffbM")


def test_numbers_in_a_column_of_text_are_their_digits(tmp_path: Path) -> None:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rows = pd.DataFrame({"zip": ["00501", "10001", "NA"] * 10, "x": range(30)})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["zip"]), remainder="passthrough"), LinearRegression()
    )
    model.fit(rows, rows["x"] * 2.0)
    typed = rows.assign(zip=["00501", 10001, "NA"] * 10)
    typed.to_excel(tmp_path / "rows.xlsx", index=False)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    found = read_sample(tmp_path / "rows.xlsx", model)
    pd.testing.assert_frame_equal(found, read_sample(tmp_path / "rows.csv", model))


@pytest.mark.parametrize(
    ("header", "message"), [(["a", None, "b"], "Column 2 of"), (["a", "a"], "has the column 'a' twice")]
)
def test_a_sample_without_names_is_a_sentence(header: list[str | None], message: str, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(header)
    book.active.append([1] * len(header))
    book.save(tmp_path / "rows.xlsx")
    with pytest.raises(EstibaError, match=message):
        read_sample(tmp_path / "rows.xlsx", None)
