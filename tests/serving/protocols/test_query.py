"""The method QUERY (RFC 10008): it asks every prediction path as POST does."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from toys import CHURN_ROW

KINDS = {"age": "INT64", "balance": "FP64", "country": "BYTES", "channel": "BYTES", "active": "BOOL"}
TENSORS = [{"name": n, "datatype": k, "shape": [1, 1], "data": [CHURN_ROW[n]]} for n, k in KINDS.items()]
JSON = {"content-type": "application/json"}
PATHS = {
    "/predict": {"records": [CHURN_ROW]},
    "/models/churn/predict": CHURN_ROW,
    "/models/churn/versions/1/predict": CHURN_ROW,
    "/v2/models/churn/infer": {"inputs": TENSORS},
    "/v2/models/churn/versions/1/infer": {"inputs": TENSORS},
    "/v1/models/churn:predict": {"instances": [CHURN_ROW]},
    "/invocations": {"dataframe_records": [CHURN_ROW]},
}


def answer(http: Any, method: str, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    """The status, and the body without what differs from request to request."""
    found = http.request(method, path, content=body, headers={**JSON, **headers})
    content = found.json()
    for name in ("id", "instance"):
        content.pop(name, None)
    return found.status_code, content


@pytest.mark.parametrize("path", PATHS)
def test_it_asks_as_post_does(http: Any, path: str) -> None:
    body = json.dumps(PATHS[path]).encode()
    posted = answer(http, "POST", path, body)
    assert posted[0] == 200
    assert answer(http, "QUERY", path, body) == posted
    packed = gzip.compress(body)
    assert answer(http, "QUERY", path, packed, **{"content-encoding": "gzip"}) == posted
    for wrong in (b"{", b'{"records": []}', b"[" * 1000):
        refused = answer(http, "POST", path, wrong)
        assert refused[0] in (400, 422)
        assert answer(http, "QUERY", path, wrong) == refused


def test_csv_and_large_bodies(http: Any) -> None:
    names = list(CHURN_ROW)
    lines = [",".join(names), ",".join("" if CHURN_ROW[n] is None else str(CHURN_ROW[n]).lower() for n in names)]
    text = ("\n".join(lines).replace("es", "ES") + "\n").encode()
    posted = answer(http, "POST", "/predict", text, **{"content-type": "text/csv"})
    assert answer(http, "QUERY", "/predict", text, **{"content-type": "text/csv"}) == posted
    many = json.dumps({"records": [CHURN_ROW] * 2000}).encode()
    status, content = answer(http, "QUERY", "/predict", many)
    assert (status, len(content["predictions"])) == (200, 2000)


@pytest.mark.parametrize("path", PATHS)
def test_it_names_the_type_of_its_body(http: Any, path: str) -> None:
    found = http.request("QUERY", path, content=json.dumps(PATHS[path]).encode())
    assert (found.status_code, "Content-Type" in found.text) == (400, True)


@pytest.mark.parametrize(
    ("path", "methods", "kinds"),
    [
        ("/predict", "GET, POST, QUERY, OPTIONS", "application/json, text/csv, application/vnd.apache.arrow.stream"),
        ("/v2/models/churn/infer", "POST, QUERY, OPTIONS", "application/json, application/octet-stream"),
        ("/v1/models/churn:predict", "POST, QUERY, OPTIONS", "application/json"),
        ("/invocations", "POST, QUERY, OPTIONS", "application/json, text/csv"),
    ],
)
def test_options_says_how_a_path_is_asked(http: Any, path: str, methods: str, kinds: str) -> None:
    found = http.options(path)
    assert (found.status_code, found.content, found.headers["allow"]) == (200, b"", methods)
    assert found.headers["accept-query"].startswith(kinds)
    refused = http.put(path, json={})
    assert (refused.status_code, refused.headers["allow"]) == (405, methods)


def test_a_model_that_is_not_served(http: Any) -> None:
    assert http.request("QUERY", "/models/none/predict", json=CHURN_ROW).status_code == 404
    assert http.request("QUERY", "/v2/models/none/infer", json={}).status_code == 404


def test_metrics_and_the_description_know_it(http: Any) -> None:
    counter = 'estiba_requests_total{model="churn",version="1",variant="",protocol="v1",code="200"}'

    def count() -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(counter))

    before = count()
    http.request("QUERY", "/v1/models/churn:predict", json={"instances": [CHURN_ROW]})
    assert count() == before + 1
    assert "RFC 10008" in http.get("/openapi.json").json()["info"]["description"]
