"""Arrow streams and Parquet files as bodies and as answers."""

from __future__ import annotations

import io
import struct
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from toys import CHURN_ROW

pytestmark = pytest.mark.slow

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
ROWS = [
    {**CHURN_ROW, "age": 18 + n, "country": ("ES", "FR", "DE")[n % 3], "a/b~c d": None if n % 2 else n / 3}
    for n in range(60)
]


def written(table: pa.Table, kind: str) -> bytes:
    sink = io.BytesIO()
    if kind == ARROW:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    else:
        pa.parquet.write_table(table, sink)
    return sink.getvalue()


def ask(http: Any, body: bytes, kind: str, accept: str = "application/json") -> Any:
    return http.post("/models/churn/predict", content=body, headers={"content-type": kind, "accept": accept})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_a_table_is_answered_as_its_records_are(http: Any, kind: str) -> None:
    plain = http.post("/models/churn/predict", json={"records": ROWS}).json()["predictions"]
    answer = ask(http, written(pa.Table.from_pylist(ROWS), kind), kind)
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == plain


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_an_answer_as_a_table(http: Any, kind: str) -> None:
    plain = http.post("/models/churn/predict", json={"records": ROWS}).json()["predictions"]
    answer = ask(http, written(pa.Table.from_pylist(ROWS), PARQUET), PARQUET, accept=kind)
    assert answer.headers["content-type"] == kind
    content = io.BytesIO(answer.content)
    table = pa.ipc.open_stream(content).read_all() if kind == ARROW else pa.parquet.read_table(content)
    assert table.column("label").to_pylist() == [row["label"] for row in plain]
    assert table.column("probabilities.leaves").to_pylist() == [row["probabilities"]["leaves"] for row in plain]


def test_dictionary_and_large_strings_are_read(http: Any) -> None:
    table = pa.Table.from_pylist(ROWS)
    for kind in (pa.dictionary(pa.int32(), pa.string()), pa.large_string()):
        place = table.schema.get_field_index("country")
        changed = table.set_column(place, "country", table.column("country").cast(kind))
        assert ask(http, written(changed, ARROW), ARROW).status_code == 200


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
def test_what_is_no_table_is_the_callers_fault(http: Any, kind: str) -> None:
    whole = written(pa.Table.from_pylist(ROWS), kind)
    for body in (b"", b"PAR1", b"\x00" * 100, whole[: len(whole) // 2], whole[:50] + b"\xff" * 50 + whole[100:]):
        answer = ask(http, body, kind)
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_text_that_lies_elsewhere_or_is_no_text_is_never_read(http: Any) -> None:
    whole = written(pa.Table.from_pylist(ROWS), ARROW)
    for good, bad in (
        (struct.pack("<3i", 0, 2, 4), struct.pack("<3i", 0, 2, 1 << 30)),  # where the second country begins and ends
        (b"ESFRDE", b"ES\xffRDE"),
        (b"country", b"c\xffuntry"),
    ):
        assert good in whole
        answer = ask(http, whole.replace(good, bad), ARROW)
        assert answer.status_code == 400, answer.text
        assert "The body is not an Arrow stream" in answer.text


def test_wrong_values_and_columns_are_named(http: Any) -> None:
    wrong = [{**row} for row in ROWS]
    wrong[7]["country"] = "Peru"
    wrong[9]["age"] = 200
    found = {e["pointer"] for e in ask(http, written(pa.Table.from_pylist(wrong), PARQUET), PARQUET).json()["errors"]}
    assert found == {"#/records/7/country", "#/records/9/age"}
    more = pa.Table.from_pylist([{**row, "extra": 1} for row in ROWS])
    assert ask(http, written(more, PARQUET), PARQUET).json()["errors"][0]["pointer"] == "#/records/0/extra"


def test_a_column_that_appears_twice_is_named(http: Any) -> None:
    table = pa.Table.from_pylist(ROWS)
    twice = table.append_column("age", table.column("age"))
    answer = ask(http, written(twice, ARROW), ARROW)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"] == [{"pointer": "#/records/0/age", "detail": "this column appears twice"}]


def test_too_many_rows_are_refused_before_they_are_read(http: Any) -> None:
    many = pa.table({name: pa.array([value] * 100_001) for name, value in CHURN_ROW.items()})
    for kind in (ARROW, PARQUET):
        assert ask(http, written(many, kind), kind).status_code == 413
