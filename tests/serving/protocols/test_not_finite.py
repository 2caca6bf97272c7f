"""Answers that are no finite numbers: null, and said in every protocol."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import LOST_ROW, Live

import estiba

pytestmark = pytest.mark.slow

WARNING = {"code": "not-finite", "pointer": "#/predictions/1/value"}
ROWS = [{"x": 1.0}, {"x": LOST_ROW}]


@pytest.fixture(scope="module")
def live(start_server: Callable[..., Live]) -> Live:
    return start_server("price")


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url) as opened:
        yield opened


def test_the_native_answer_has_a_warning(client: httpx.Client) -> None:
    answer = client.post("/predict", json={"records": ROWS}).json()
    assert answer["predictions"][1] == {"value": None}
    assert answer["warnings"] == [WARNING]
    assert client.post("/predict", json={"records": ROWS[:1]}).json()["warnings"] == []


@pytest.mark.parametrize("count", [600, 9000])
def test_rows_of_large_requests_are_counted_from_the_first(client: httpx.Client, count: int) -> None:
    answer = client.post("/predict", json={"records": [*ROWS[:1] * count, ROWS[1]]}).json()
    assert answer["warnings"] == [{"code": "not-finite", "pointer": f"#/predictions/{count}/value"}]


def test_open_inference_has_it_in_parameters(client: httpx.Client) -> None:
    body = {"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, LOST_ROW]}]}
    answer = client.post("/v2/models/price/infer", json=body).json()
    assert answer["outputs"][0]["data"][1] is None
    assert answer["parameters"] == {"warnings": "not-finite: value in row 1"}


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/models/price:predict", {"instances": ROWS}), ("/invocations", {"dataframe_records": ROWS})],
)
def test_v1_and_mlflow_have_warnings_where_there_are_some(client: httpx.Client, path: str, body: Any) -> None:
    answer = client.post(path, json=body).json()
    assert answer["warnings"] == [WARNING]
    (name,) = body
    assert list(client.post(path, json={name: ROWS[:1]}).json()) == ["predictions"]


@pytest.mark.slow
def test_a_table_has_them_in_its_metadata(client: httpx.Client) -> None:
    kind = "application/vnd.apache.parquet"
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1.0, LOST_ROW]}), sink)
    answer = client.post("/predict", content=sink.getvalue(), headers={"content-type": kind, "accept": kind})
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.column("value").to_pylist()[1] is None
    assert b"#/predictions/1/value" in table.schema.metadata[b"warnings"]


def test_the_client_warns_as_python_does(live: Live) -> None:
    with estiba.Client(live.url) as asked:
        with pytest.warns(RuntimeWarning, match="'value' of row 1"):
            assert asked.predict(ROWS)[1] == {"value": None}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asked.predict(ROWS[:1])
