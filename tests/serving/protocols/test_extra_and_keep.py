"""Fields that the model does not have: refused or ignored, and values that are handed through to the answer."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import Live, toy

import estiba
from estiba.model.registry.registry import open_registry
from estiba.model.schema.signature import Field, Head, Signature
from estiba.model.schema.signature_checks import validated

pytestmark = pytest.mark.slow

FIELDS = (Field(name="x", kind="number", example=1.0), Field(name="city", kind="category", levels=("A", "B")))
TRACKED = Signature(fields=FIELDS, head=Head(kind="values", names=("y",)), keep=("id", "note"))
LOOSE = msgspec.structs.replace(TRACKED, extra="ignore", keep=())
SPLIT = [["C-7", 1, "A"], [7, 2.5, "B"]]
ROWS = [{"x": 1.0, "city": "A", "id": "C-7", "note": None}, {"x": 2.5, "city": "B", "id": 7}]


@pytest.fixture(scope="module")
def live(start_server: Callable[..., Live], toy_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Live:
    registry, folder = open_registry(toy_registry), tmp_path_factory.mktemp("loose")
    for name, signature in (("tracked", TRACKED), ("loose", LOOSE)):
        registry.push(toy(name, signature, {"x": 1.0, "city": "A"}, folder))
    return start_server("tracked", "loose", default="tracked")


@pytest.fixture(scope="module")
def http(live: Live) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url) as client:
        yield client


@pytest.fixture(scope="module")
def values(http: httpx.Client) -> list[float]:
    """The answers to ROWS alone."""
    plain = [{"x": row["x"], "city": row["city"]} for row in ROWS]
    return [each["value"] for each in http.post("/models/loose/predict", json={"records": plain}).json()["predictions"]]


@pytest.fixture(scope="module")
def expected(values: list[float]) -> list[dict[str, Any]]:
    return [{"id": "C-7", "note": None, "value": values[0]}, {"id": 7, "note": None, "value": values[1]}]


@pytest.mark.parametrize("times", [1, 4000])
def test_json_records_are_answered_with_what_is_kept(http: httpx.Client, expected: Any, times: int) -> None:
    answer = http.post("/models/tracked/predict", json={"records": ROWS * times}).json()
    assert answer["predictions"] == expected * times
    assert list(answer["predictions"][0]) == ["id", "note", "value"]


def test_requests_of_one_batch_keep_their_own(live: Live, expected: Any) -> None:
    with live.connect() as one:
        body = [msgspec.json.encode(row) for row in ROWS] * 20
        head = b"POST /models/tracked/predict HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n"
        head += b"content-type: application/json\r\n\r\n"
        one.sendall(b"".join(head % len(each) + each for each in body))
        got = b""
        while got.count(b'"warnings":[]}') < 40:
            got += one.recv(65536)
    answers = [line for line in got.split(b"\r\n") if line.startswith(b"{")]
    shown = [msgspec.json.decode(line[: line.rindex(b"}") + 1])["predictions"][0] for line in answers]
    assert shown == expected * 20


def test_a_bare_record_at_the_short_path_has_it_at_the_top(http: httpx.Client) -> None:
    assert http.post("/predict", json=ROWS[1]).json()["id"] != 7, "the envelope's members win"
    assert http.post("/predict", json={**ROWS[1], "note": "n"}).json()["note"] == "n"


def test_csv_and_query_keep_text(http: httpx.Client, values: list[float]) -> None:
    csv = http.post(
        "/models/tracked/predict", content="note,x,city,id\n,2.5,B,007\n", headers={"content-type": "text/csv"}
    )
    assert csv.json()["predictions"] == [{"id": "007", "note": None, "value": values[1]}]
    query = http.get("/models/tracked/predict", params={"x": "2.5", "city": "B", "id": "007"})
    assert query.json()["predictions"] == csv.json()["predictions"]


@pytest.mark.slow
def test_parquet_keeps_columns(http: httpx.Client, values: list[float]) -> None:
    kind = "application/vnd.apache.parquet"
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1.0, 2.5], "city": ["A", "B"], "id": [2**53 + 1, None]}), sink)
    answer = http.post(
        "/models/tracked/predict", content=sink.getvalue(), headers={"content-type": kind, "accept": kind}
    )
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.column_names == ["id", "note", "value"]
    assert table.column("id").to_pylist() == [2**53 + 1, None]
    assert table.column("value").to_pylist() == values


def test_open_inference_has_text_in_and_out(http: httpx.Client) -> None:
    inputs = [
        {"name": "id", "shape": [2], "datatype": "BYTES", "data": ["C-7", "8"]},
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.5]},
        {"name": "city", "shape": [2], "datatype": "BYTES", "data": ["A", "B"]},
    ]
    answer = http.post("/v2/models/tracked/infer", json={"inputs": inputs}).json()
    found = {output["name"]: output["data"] for output in answer["outputs"]}
    assert found["id"] == ["C-7", "8"]
    assert found["note"] == [None, None]
    assert "id" in [each["name"] for each in http.get("/v2/models/tracked").json()["inputs"]]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/tracked:predict", {"instances": ROWS}),
        ("/invocations", {"dataframe_records": ROWS}),
        ("/invocations", {"dataframe_split": {"columns": ["id", "x", "city"], "data": SPLIT}}),
        ("/invocations", {"inputs": {"id": ["C-7", 7], "x": [1.0, 2.5], "city": ["A", "B"]}}),
    ],
)  # fmt: skip
def test_v1_and_mlflow(http: httpx.Client, expected: Any, path: str, body: Any) -> None:
    assert http.post(path, json=body).json() == {"predictions": expected}


def test_only_scalars_are_kept(http: httpx.Client) -> None:
    answer = http.post("/models/tracked/predict", json={"records": [{**ROWS[0], "id": {"a": 1}}]})
    assert answer.status_code == 422
    (problem,) = answer.json()["errors"]
    assert problem["pointer"] == "#/records/0/id"
    assert problem["detail"].startswith("expected a string")


def test_a_model_that_ignores_takes_any_field_everywhere(http: httpx.Client, values: list[float]) -> None:
    rows = [{**row, "other": [1, {"x": 2}]} for row in ROWS]
    expected = [{"value": value} for value in values]
    assert http.post("/models/loose/predict", json={"records": rows}).json()["predictions"] == expected
    odd = [{**row, "x": int(row["x"]) if row["x"] == 1 else row["x"], "city": row["city"]} for row in rows]
    assert http.post("/v1/models/loose:predict", json={"instances": odd}).json() == {"predictions": expected}
    csv = "city,other,x\nA,1,1\nB,,2.5\n"
    answer = http.post("/models/loose/predict", content=csv, headers={"content-type": "text/csv"})
    assert answer.json()["predictions"] == expected
    query = http.get("/models/loose/predict", params={"x": "1", "city": "A", "utm": "z"})
    assert query.json()["predictions"] == expected[:1]
    inputs = [
        {"name": "other", "shape": [1], "datatype": "FP64", "data": [9]},
        {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]},
        {"name": "city", "shape": [1], "datatype": "BYTES", "data": ["A"]},
    ]
    tensors = http.post("/v2/models/loose/infer", json={"inputs": inputs}).json()
    assert tensors["outputs"][0]["data"] == values[:1]
    refused = http.post("/models/loose/predict", json={"records": [{"other": 1, "x": "a", "city": "A"}]}).json()
    assert [problem["pointer"] for problem in refused["errors"]] == ["#/records/0/x"]


def test_the_schema_and_the_client(live: Live, http: httpx.Client, expected: Any) -> None:
    schema = http.get("/models/tracked/schema").json()
    assert schema["additionalProperties"] is False
    assert "id" in schema["properties"]
    assert "id" not in schema["required"]
    assert http.get("/models/loose/schema").json()["additionalProperties"] is True
    document = http.get("/openapi.json").json()["components"]["schemas"]
    assert list(document["tracked.Prediction"]["properties"]) == ["id", "note", "value"]
    with estiba.Client(live.url) as client:
        assert client.predict(ROWS, model="tracked") == expected
        assert client.predict([[1.0, "A"]], model="tracked") == [{**expected[0], "id": None}]


def test_a_loaded_model_and_files(toy_registry: Path, live: Live, expected: Any, tmp_path: Path) -> None:
    from estiba.model.inference.score_files import score

    model = estiba.load("tracked", registry=toy_registry)
    assert model.predict(ROWS) == expected
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("x,id,city,more\n1,C-7,A,9\n")
    assert score(model, source, target).ignored == ("more",)
    assert target.read_text().splitlines()[0] == "id,value"


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (("x",), "field of the model"),
        (("",), "is empty"),
        (('a"',), "has a quote"),
        (("value",), "output"),
        (("a", "a"), "twice"),
    ],
)
def test_names_that_cannot_be_kept(keep: tuple[str, ...], said: str) -> None:
    with pytest.raises(estiba.EstibaError, match=said):
        validated(msgspec.structs.replace(TRACKED, keep=keep))
