"""MLflow's scoring protocol and SageMaker's contract, by hand and by MLflow's own client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from toys import CHURN_ROW, Live, toy

from estiba.model.registry.registry import open_registry
from estiba.model.schema.signature import Field, Head, Signature

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ROW = {name: value for name, value in CHURN_ROW.items() if value is not None}
OTHER = {**ROW, "age": 20, "country": "DE"}
NAMES = list(ROW)


def invoke(http: Any, body: object, kind: str = "application/json") -> Any:
    given = {"content": body} if isinstance(body, (str, bytes)) else {"json": body}
    return http.post("/invocations", headers={"content-type": kind}, **given)


def expected(http: Any) -> list[Any]:
    return list(http.post("/predict", json={"records": [ROW, OTHER]}).json()["predictions"])


def refused(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error_code", "message"]
    return str(answer.json()["message"])


TABLE = [list(ROW.values()), list(OTHER.values())]
POSITIONAL = [list({**CHURN_ROW, **row}.values()) for row in (ROW, OTHER)]
FORMS: list[dict[str, Any]] = [
    {"dataframe_split": {"columns": NAMES, "data": TABLE}},
    {"dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in TABLE], "index": [3, 4]}},
    {"dataframe_records": [ROW, OTHER]},
    {"instances": [ROW, OTHER]},
    {"inputs": {name: [ROW[name], OTHER[name]] for name in NAMES}},
    {"inputs": {name: [[ROW[name]], [OTHER[name]]] for name in NAMES}, "params": None},
    {"instances": POSITIONAL},
    {"dataframe_records": [ROW, OTHER], "params": {}},
    {"dataframe_split": {"columns": list(range(6)), "index": ["a", "b"], "data": POSITIONAL}},
    {"dataframe_split": {"columns": None, "index": None, "data": POSITIONAL}},
]


@pytest.mark.parametrize("body", FORMS)
def test_every_form_of_json(http: Any, body: Any) -> None:
    answer = invoke(http, body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"predictions": expected(http)}


def test_a_row_of_plain_values(http: Any) -> None:
    assert invoke(http, {"inputs": ROW}).json()["predictions"] == expected(http)[:1]


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; charset=utf-8", "Text/CSV;charset=UTF-8"])
def test_csv(http: Any, kind: str) -> None:
    lines = [",".join(NAMES), *(",".join(str(value) for value in row.values()) for row in (ROW, OTHER))]
    assert invoke(http, "\n".join(lines), kind).json() == {"predictions": expected(http)}


@pytest.mark.parametrize("kind", ["text/csv", "text/csv; header=absent", 'text/csv; charset="utf-8"; header=absent'])
def test_csv_without_a_header_as_sagemaker_sends_it(http: Any, kind: str) -> None:
    lines = [",".join(str(row.get(name, "")) for name in CHURN_ROW) for row in (ROW, OTHER)]
    assert invoke(http, "\n".join(lines), kind).json() == {"predictions": expected(http)}
    refused = invoke(http, "\n".join([*lines, "x"]), kind)
    assert refused.status_code == 400
    assert "expected 6 cells" in refused.text


@pytest.mark.parametrize(
    ("first", "kind", "said"),
    [
        ("Age,x,country,channel,a,b", "text/csv", "no such field"),  # a header with a mistake is none the less a header
        ("years,money,land,way,a,b", "text/csv", "no such field"),
        ("41,10.5,ES,web,,true", "text/csv; header=present", "no such field"),
        ("age,balance,country,channel,a/b~c d,active", "text/csv; header=absent", "expected an integer"),
        ("41,10.5,ES,web,true", "text/csv", "no such field"),
    ],
)
def test_what_is_no_header_is_not_guessed(http: Any, first: str, kind: str, said: str) -> None:
    answer = invoke(http, f"{first}\n41,10.5,ES,web,,true", kind)
    assert answer.status_code == 400, answer.text
    assert said in answer.text


def test_a_first_line_of_counted_columns_is_refused(start_server: Callable[..., Live], tmp_path: Path) -> None:
    fields = tuple(Field(name=name, kind="number") for name in "abc")
    signature = Signature(fields=fields, head=Head(kind="values", names=("sum",)))
    open_registry(tmp_path / "registry").push(toy("three", signature, dict.fromkeys("abc", 1.0), tmp_path))
    live = start_server("three", registry=str(tmp_path / "registry"))
    with httpx.Client(base_url=live.url, timeout=30) as client:
        text = "0,1,2\n4,5,6\n"
        assert "header=absent" in refused(invoke(client, text, "text/csv"))
        assert len(invoke(client, text, "text/csv; header=absent").json()["predictions"]) == 2
        assert len(invoke(client, "0,1,2\n", "text/csv").json()["predictions"]) == 1
        assert len(invoke(client, "0,1,3\n4,5,6\n", "text/csv").json()["predictions"]) == 2
    assert live.stop() == 0


def test_one_part_of_a_prediction_as_a_plain_list(http: Any) -> None:
    found = invoke(http, {"dataframe_records": [ROW, OTHER], "params": {"output": "label"}}).json()
    assert found == {"predictions": [p["label"] for p in expected(http)]}


def test_pythons_nan_is_a_missing_value(http: Any) -> None:
    body = '{"dataframe_split": {"columns": ["age", "balance", "country", "channel", "a/b~c d", "active"], "data": '
    answer = invoke(http, body + '[[41, 10.5, "ES", "web", NaN, true]]}}')
    assert answer.json() == {"predictions": expected(http)[:1]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "JSON"),
        ("{NaN", "JSON"),
        ([ROW], "exactly one of"),
        ({}, "exactly one of"),
        ({"instances": [ROW], "inputs": [ROW]}, "exactly one of"),
        ({"instances": [ROW], "more": 1}, "not 'more'"),
        ({"instances": []}, "one row or more"),
        ({"instances": [ROW, 3]}, "row 1: expected an object"),
        ({"instances": [[1, 2]]}, "6 values"),
        ({"dataframe_records": [[1, 2]]}, "array of objects"),
        ({"dataframe_records": [{**ROW, "age": "old"}]}, "age in row 0: expected an integer"),
        ({"dataframe_records": [{**ROW, "agge": 1}]}, "did you mean 'age'"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1]]}}, "Row 0"),
        ({"dataframe_split": {"columns": [*NAMES[1:], "agee"], "data": TABLE}}, "did you mean 'age'"),
        ({"dataframe_split": {"columns": [*NAMES[1:], NAMES[1]], "data": TABLE}}, "twice"),
        ({"dataframe_split": [TABLE]}, "columns and data"),
        ({"dataframe_split": {"columns": [0, 1, 2], "data": [[1, 2, 3]]}}, "array of names"),
        ({"dataframe_split": {"columns": NAMES, "data": TABLE, "index": [0]}}, '"index"'),
        ({"dataframe_split": {"columns": NAMES, "data": TABLE, "index": 2}}, '"index"'),
        ({"inputs": {**ROW, "age": [41, 20]}}, "one array per field"),
        ({"inputs": {name: [] for name in NAMES}}, "one array per field"),
        ({"inputs": {}}, "missing"),
        ({"instances": [ROW], "params": {"output": [None]}}, "no output"),
        ({"instances": [ROW], "params": {"output": None}}, "no output"),
        ({"instances": [ROW], "params": {"output": "score"}}, "no output 'score'"),
        ({"instances": [ROW], "params": {"temperature": 1}}, "no params but"),
    ],
)
def test_what_is_wrong_is_said(http: Any, body: object, said: str) -> None:
    assert said in refused(invoke(http, body))


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/json; charset=latin-1", "application/json; version=2", "application/x-parquet"],
)
def test_other_media_types_are_refused_as_mlflow_does(http: Any, kind: str) -> None:
    answer = invoke(http, "{}", kind)
    assert answer.status_code == 415
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_get_is_refused_and_calls_are_counted(http: Any) -> None:
    assert "POST" in refused(http.get("/invocations"), 405)
    lines = [line for line in http.get("/metrics").text.splitlines() if 'protocol="mlflow"' in line]
    assert any('code="405"' in line for line in lines)


def test_ping_is_what_sagemaker_and_mlflow_ask(http: Any) -> None:
    answer = http.get("/ping")
    assert (answer.status_code, answer.content) == (200, b"\n")
    assert http.get("/health").status_code == 200
    assert http.get("/version").text.count(".") >= 2


@pytest.mark.slow
def test_several_models_without_a_default_are_told_so(start_server: Callable[..., Live]) -> None:
    live = start_server("churn", "price")
    with httpx.Client(base_url=live.url) as client:
        said = refused(invoke(client, {"instances": [ROW]}), 404)
    assert "default" in said
    assert live.stop() == 0


@pytest.fixture(scope="module")
def scoring(server: Live) -> Any:
    """MLflow's own client."""
    pytest.importorskip("mlflow")
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    return ScoringServerClient("127.0.0.1", server.port)


def test_mlflows_client_asks_with_a_dataframe(scoring: Any, http: Any) -> None:
    import pandas as pd

    scoring.wait_server_ready(timeout=10)
    frame = pd.DataFrame([ROW, OTHER]).assign(**{"a/b~c d": [float("nan"), 2.0]})
    found = scoring.invoke(frame).get_predictions()
    records = [{**ROW, "a/b~c d": None}, {**OTHER, "a/b~c d": 2.0}]
    answers = http.post("/predict", json={"records": records}).json()["predictions"]
    assert found["label"].tolist() == [p["label"] for p in answers]
    labels = scoring.invoke(frame, params={"output": "label"}).get_predictions(predictions_format="ndarray")
    assert labels.tolist() == found["label"].tolist()


def test_mlflows_client_asks_with_arrays_and_reads_the_version(scoring: Any, http: Any) -> None:
    import numpy as np

    rows = [list({**CHURN_ROW, **row}.values()) for row in (ROW, OTHER)]
    found = scoring.invoke(np.array(rows, dtype=object))
    assert found.get_predictions()["label"].tolist() == [p["label"] for p in expected(http)]
    assert scoring.get_version() == http.get("/version").text
    with pytest.raises(Exception, match="6 values"):
        scoring.invoke(np.array([[1.0, 2.0]]))
