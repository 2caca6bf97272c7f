"""Files are scored in chunks with the answers of single rows, completely or not at all; errors name line and field."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import CHURN, CHURN_ROW, LOST_ROW, toy

from estiba.core.errors import EstibaError, NotFound
from estiba.model.coding.csv_file import CsvOptions
from estiba.model.inference import score_files as scoring
from estiba.model.inference.load import Model, load, load_artifact
from estiba.model.inference.score_files import SourceOptions, score

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
            "country": ("ES", "FR", "DE")[n % 3],
            "a/b~c d": None if n % 2 else n / 7,
            "id": n,
        }
        for n in range(COUNT)
    ]


@pytest.fixture(params=["csv", "parquet"])
def source(request: pytest.FixtureRequest, rows: list[dict[str, Any]], tmp_path: Path) -> Path:
    return write(rows, tmp_path / f"in.{request.param}")


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_every_row_is_answered_as_it_is_alone(
    model: Model, source: Path, rows: list[dict[str, Any]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 64)
    seen: list[int] = []
    target = source.parent / f"out.{kind}"
    done = score(model, source, target, keep=["id"], on_rows=lambda count, total: seen.append(count))
    assert done.rows == COUNT
    assert seen == [64, 128, 192, 250]
    expected = model.predict([{k: v for k, v in row.items() if k != "id"} for row in rows])
    found = read(target)
    assert [int(row["id"]) for row in found] == list(range(COUNT))
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [float(row["probabilities.leaves"]) for row in found] == [row["probabilities"]["leaves"] for row in expected]


def test_columns_that_the_model_does_not_know_are_reported(model: Model, source: Path) -> None:
    assert score(model, source, source.parent / "out.csv").ignored == ("id",)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_wrong_value_is_named_by_line_and_field_and_nothing_is_written(
    model: Model, rows: list[dict[str, Any]], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CHUNK_ROWS", 64)
    rows[200]["country"] = "Peru"
    source, target = write(rows, tmp_path / f"in.{kind}"), tmp_path / "out.csv"
    target.write_text("what was there")
    place = "line 202" if kind == "csv" else "row 201"
    with pytest.raises(EstibaError, match=rf"in\.{kind}, {place}, field 'country': expected one of: ES, FR, DE"):
        score(model, source, target)
    assert target.read_text() == "what was there"
    assert {path.name for path in tmp_path.iterdir()} == {source.name, target.name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("age,age\n1,2\n", "'age' twice"),
        ("age,balance,country,channel,active\n", "no rows"),
        ("age,balance,country,channel,active\n1,2\n", "line 2: expected 5 cells"),
        ("age,balance,country,channel,active\n41,x,ES,web,true\n", "line 2, field 'balance': expected a number"),
        ('age,balance,country,channel,active\n"41,1,ES,web,true\n', "not valid CSV"),
        ("age,balance,country,channel,active\n,1,ES,web,true\n", "field 'age': may not be missing"),
    ],
)
def test_a_file_that_is_not_right_is_a_sentence(model: Model, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(EstibaError, match=message):
        score(model, tmp_path / "in.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


SPANISH = "age;balance;country;channel;active;señor\n41;10,5;ES;web;true;Núñez\n42;-3,25;FR;shop;false;€\n"
SPANISH_ROWS = [{**CHURN_ROW, "balance": 10.5}, {**CHURN_ROW, "age": 42, "balance": -3.25, "country": "FR",
                 "channel": "shop", "active": False}]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [";", "tab", "|"])
def test_csv_as_spanish_settings_write_it(model: Model, encoding: str, separator: str, tmp_path: Path) -> None:
    options = CsvOptions(separator, ",", encoding.removesuffix("-sig"))
    (tmp_path / "in.csv").write_text(SPANISH.replace(";", options.delimiter), encoding=encoding)
    score(model, tmp_path / "in.csv", tmp_path / "out.jsonl", keep=["señor"], options=SourceOptions(options))
    found = read(tmp_path / "out.jsonl")
    assert [row["señor"] for row in found] == ["Núñez", "€"]
    expected = [row["probabilities"]["leaves"] for row in model.predict(SPANISH_ROWS)]
    assert [row["probabilities.leaves"] for row in found] == expected


PLAIN = "age,balance,country,channel,active\n41,10.5,ES,web,true\n"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (SPANISH.encode(), CsvOptions(), "The separator seems to be ';': --separator ';'"),
        (SPANISH.replace(";", "\t").encode(), CsvOptions(), "The separator seems to be tab: --separator tab"),
        (PLAIN.encode(), CsvOptions(";", ","), "The separator seems to be ',': --separator ','"),
        (SPANISH.encode(), CsvOptions(";"), "The decimal separator seems to be ',': --decimal ','"),
        (SPANISH.replace("10,5", "1.234").encode(), CsvOptions(";", ","), "no points, not even between thousands"),
        (SPANISH.encode("cp1252"), CsvOptions(";", ","), "--encoding cp1252"),
        (SPANISH.encode("utf-16"), CsvOptions(";", ","), "The encoding seems to be utf-16: --encoding utf-16"),
        (SPANISH.encode(), CsvOptions(";", ",", "latin-1"), "The encoding seems to be utf-8: --encoding utf-8"),
        (PLAIN.replace(",", ", ").encode(), CsvOptions(), "Its header has ' balance': remove the spaces"),
        (PLAIN.encode(), CsvOptions(",", ","), "The separator of cells and the decimal separator are both ','"),
        (PLAIN.encode(), CsvOptions(";;"), "Use one character, or the word tab."),
        (PLAIN.encode(), CsvOptions(encoding="klingon"), "There is no encoding 'klingon'"),
    ],
)
def test_a_wrong_guess_is_refused_with_the_remedy(
    model: Model, content: bytes, options: CsvOptions, message: str, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(EstibaError, match=re.escape(message)):
        score(model, tmp_path / "in.csv", tmp_path / "out.csv", options=SourceOptions(options))


def test_files_of_other_kinds_and_places_that_cannot_be(model: Model, source: Path, tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match="file type that cannot be read"):
        score(model, Path(__file__), tmp_path / "out.csv")
    with pytest.raises(EstibaError, match="file type that cannot be"):
        score(model, source, tmp_path / "out.xls")
    with pytest.raises(EstibaError, match="Cannot write"):
        score(model, source, tmp_path / "nowhere" / "out.csv")
    with pytest.raises(NotFound):
        score(model, tmp_path / "absent.csv", tmp_path / "out.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(EstibaError, match="not a Parquet file"):
        score(model, tmp_path / "bad.parquet", tmp_path / "out.csv")
    whole = pa.table({"age": [41] * 100, **{name: ["x"] * 100 for name in ("balance", "country", "channel", "active")}})
    pq.write_table(whole.append_column("age", whole.column("age")), tmp_path / "twice.parquet")
    with pytest.raises(EstibaError, match="'age' twice"):
        score(model, tmp_path / "twice.parquet", tmp_path / "out.csv")
    pq.write_table(whole, tmp_path / "broken.parquet")
    content = (tmp_path / "broken.parquet").read_bytes()
    (tmp_path / "broken.parquet").write_bytes(content[:20] + b"\xff" * 40 + content[60:])
    with pytest.raises(EstibaError, match="cannot be read as Parquet"):
        score(model, tmp_path / "broken.parquet", tmp_path / "out.csv")
    (tmp_path / "latin.csv").write_bytes(
        "age,balance,country,channel,active\n41,1,Espa\xf1a,web,true\n".encode("latin-1")
    )
    with pytest.raises(EstibaError, match="UTF-8"):
        score(model, tmp_path / "latin.csv", tmp_path / "out.csv")


def test_a_full_disk_leaves_nothing_behind(model: Model, source: Path, tmp_path: Path) -> None:
    """/dev/full takes no byte, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(EstibaError, match="Cannot write"):
        _write_to_full_disk(tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def _write_to_full_disk(target: Path) -> None:
    with scoring._atomic(target) as file:
        file.unlink()
        file.symlink_to("/dev/full")
        with scoring._write_csv(file) as write_rows:
            write_rows({"a": ["x" * 100_000]})


def test_the_file_to_be_scored_is_never_replaced(model: Model, source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(EstibaError, match="is the file to be scored"):
        score(model, source, source.parent / "." / source.name)
    assert source.read_bytes() == before


def test_a_notebook_shows_a_model_in_short(model: Model) -> None:
    fields = "age, balance, country, channel, a/b~c d, active"
    assert repr(model) == f"churn@{model.version} (onnx), fields: {fields}"
    shown = model._repr_html_()
    assert "<tr><td>country</td><td>one of: ES, FR, DE</td><td>required</td></tr>" in shown


def test_answers_that_are_not_finite_are_empty_and_counted(toy_registry: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(f"x\n1\n{LOST_ROW}\n")
    model = load("price", registry=toy_registry)
    assert score(model, source, target).not_finite == 1
    assert target.read_text().splitlines()[2] == '""'
    with pytest.warns(RuntimeWarning, match="'value' of row 0"):
        assert model.predict({"x": LOST_ROW}) == [{"value": None}]
