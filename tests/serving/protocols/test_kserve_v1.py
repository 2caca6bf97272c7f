"""The V1 protocol of TensorFlow Serving and KServe."""

from __future__ import annotations

from typing import Any

import pytest
from toys import CHURN_ROW

PATH = "/v1/models/churn:predict"


def refused(answer: Any, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


def test_models_are_listed(http: Any) -> None:
    assert http.get("/v1/models").json() == {"models": ["churn", "price"]}
    assert http.get("/v1/models/churn").json() == {"name": "churn", "ready": True}
    assert "nobody" in refused(http.get("/v1/models/nobody"), 404)


@pytest.mark.parametrize("instances", [[CHURN_ROW, CHURN_ROW], [list(CHURN_ROW.values())] * 2])
def test_instances_are_records_or_rows(http: Any, instances: Any) -> None:
    answer = http.post(PATH, json={"instances": instances})
    native = http.post("/models/churn/predict", json={"records": [CHURN_ROW] * 2}).json()
    assert answer.json() == {"predictions": native["predictions"]}
    assert answer.headers["x-model-version"] == "1"


def test_a_model_of_one_field_takes_plain_values(http: Any) -> None:
    answer = http.post("/v1/models/price:predict", json={"instances": [1, 2.5]})
    assert len(answer.json()["predictions"]) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "instances"),
        ([], "instances"),
        ({"instances": {}}, "one row or more"),
        ({"instances": [CHURN_ROW], "inputs": 1}, "only instances"),
        ({"instances": [{**CHURN_ROW, "age": 12}]}, "age in row 0: must be at least 18"),
        ({"instances": [CHURN_ROW, [1]]}, "row 1"),
        ({"instances": [[1], CHURN_ROW]}, "Row 0"),
    ],
)
def test_what_is_wrong_is_said(http: Any, body: Any, said: str) -> None:
    assert said in refused(http.post(PATH, json=body))


def test_other_methods_and_models_are_refused(http: Any) -> None:
    assert "POST" in refused(http.get(PATH), 405)
    assert "nobody" in refused(http.post("/v1/models/nobody:predict", json={"instances": [1]}), 404)
    assert "/v1/other" in refused(http.get("/v1/other"), 404)
    assert ":predict" in refused(http.post("/v1/models/churn:explain", json={"instances": [CHURN_ROW]}), 404)
    assert "nobody" in refused(http.post("/v1/models/nobody:explain", json={"instances": [1]}), 404)


def test_calls_are_counted(http: Any) -> None:
    http.post(PATH, json={"instances": [CHURN_ROW]})
    assert 'protocol="v1"' in http.get("/metrics").text


@pytest.mark.parametrize("path", ["/predict", "/models/churn/predict", "/models/churn/versions/1/predict"])
def test_a_record_may_come_as_the_query(http: Any, path: str) -> None:
    record = {**CHURN_ROW, "a/b~c d": 2.5}
    found = http.get(path, params={**record, "active": "true"})
    assert found.status_code == 200, found.text
    assert found.json()["predictions"] == http.post(path, json=record).json()["predictions"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("age=41", "#/balance"), ("age=x&balance=1&country=ES&channel=web&active=1", "#/age"), ("agge=1", "#/agge")],
)
def test_a_wrong_query_is_pointed_at(http: Any, query: str, pointer: str) -> None:
    answer = http.get(f"/predict?{query}")
    assert answer.status_code == 422
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}


@pytest.mark.parametrize(("query", "status"), [("age", 400), ("age=%ff", 400), ("age=1&age=2", 422), ("", 422)])
def test_what_is_no_query_of_a_record(http: Any, query: str, status: int) -> None:
    answer = http.get(f"/predict?{query}" if query else "/predict")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
