"""Each seam of the pipeline, exercised through a real server whose worker module builds it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from policies import policy_server
from toys import CHURN_ROW, Live, children, until

pytestmark = pytest.mark.slow

KEY = {"x-key": "ada"}


@pytest.fixture(scope="module")
def live(toy_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    spec = {"registry": str(toy_registry), "models": ["churn", "price"], "worker": "policy_worker"}
    with policy_server(spec, tmp_path_factory.mktemp("policies")) as server:
        yield server


REFUSED = {"": 401, "stranger": 403, "greedy": 429}
BODIES: dict[str, Any] = {
    "/models/price/predict": {"x": 1.0},
    "/predict": {"x": 1.0},
    "/v2/models/price/infer": {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]},
    "/v1/models/price:predict": {"instances": [{"x": 1.0}]},
    "/invocations": {"dataframe_records": [{"x": 1.0}]},
}


@pytest.mark.parametrize("path", BODIES)
def test_a_caller_that_is_admitted_is_answered(live: Live, path: str) -> None:
    assert httpx.post(live.url + path, json=BODIES[path], headers=KEY).status_code == 200


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("key", REFUSED)
def test_a_refusal_has_the_form_of_its_protocol(live: Live, path: str, key: str) -> None:
    answer = httpx.post(live.url + path, json=BODIES[path], headers={"x-key": key} if key else {})
    status = REFUSED[key]
    assert answer.status_code == status
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
    body = answer.json()
    text = {401: "A key is missing. Send it as X-Key.", 403: "not for this model", 429: "used up"}[status]
    if path.startswith(("/v1", "/v2")):
        assert text in body["error"]
    elif path == "/invocations":
        code = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 429: "REQUEST_LIMIT_EXCEEDED"}[status]
        assert (body["error_code"], text in body["message"]) == (code, True)
    else:
        kind = {401: "unauthorized", 403: "forbidden", 429: "rate-limited"}[status]
        assert answer.headers["content-type"] == "application/problem+json"
        assert (body["type"], body["status"], text in body["detail"]) == (f"urn:estiba:problem:{kind}", status, True)
        assert body["instance"] == f"urn:request:{answer.headers['x-request-id']}"


def test_management_routes_are_guarded_too_and_probes_are_not(live: Live) -> None:
    refused = httpx.get(f"{live.url}/models")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "urn:estiba:problem:unauthorized"
    assert refused.json()["instance"] == f"urn:request:{refused.headers['x-request-id']}"
    assert httpx.get(f"{live.url}/v2/models/price").json() == {"error": "A key is missing. Send it as X-Key."}
    assert httpx.get(f"{live.url}/models", headers=KEY).status_code == 200
    for probe in ("/health", "/health/ready", "/livez", "/v2/health/ready", "/ping"):
        assert httpx.get(live.url + probe).status_code == 200


def test_refusals_are_counted_and_leave_nothing_in_flight(live: Live) -> None:
    httpx.post(f"{live.url}/predict", json={"x": 1.0})
    metrics = httpx.get(f"{live.url}/metrics", headers=KEY).text
    assert 'estiba_rejected_total{model="price",reason="unauthorized"}' in metrics
    assert 'estiba_requests_in_flight{model="price"} 0' in metrics
    assert 'protocol="native",code="401"' in metrics


def observed(live: Live) -> list[dict[str, Any]]:
    file = shared_folder(live) / "observed"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def shared_folder(live: Live) -> Path:
    """The folder that the server's processes share, from the files that its worker has mapped."""
    (worker,) = children(live.process.pid)
    maps = Path(f"/proc/{worker}/maps").read_text().splitlines()
    (folder,) = {Path(line.split()[-1]).parent for line in maps if line.endswith(".metrics")}
    return folder


def rows_seen(live: Live, value: float) -> list[dict[str, Any]]:
    return [batch for batch in observed(live) if value in batch["rows"]]


def test_a_batch_is_observed_once_with_its_rows_and_raw_answers(live: Live) -> None:
    answer = httpx.post(f"{live.url}/predict", json={"records": [{"x": 41.0}, {"x": 42.0}]}, headers=KEY)
    assert [p["value"] for p in answer.json()["predictions"]] == pytest.approx([0.41, 0.42])
    (batch,) = rows_seen(live, 41.0)
    assert batch["callers"] == ["ada"]
    assert (batch["rows"], batch["version"]) == ([41.0, 42.0], "1")
    assert batch["raw"] == pytest.approx([0.41, 0.42])
    assert 0 < batch["seconds"] < 5


def test_a_large_request_is_observed_slice_by_slice(live: Live) -> None:
    body = {"records": [{"x": 43.0}] * 9000}
    assert httpx.post(f"{live.url}/predict", json=body, headers=KEY, timeout=30).status_code == 200
    assert sum(len(batch["rows"]) for batch in rows_seen(live, 43.0)) == 9000


def test_what_the_cache_holds_is_not_asked_again(live: Live) -> None:
    answers = [httpx.post(f"{live.url}/predict", json={"x": 51.0}, headers=KEY) for _ in range(3)]
    assert [answer.json()["value"] for answer in answers] == pytest.approx([0.51] * 3)
    assert len({answer.json()["id"] for answer in answers}) == 3
    assert len(rows_seen(live, 51.0)) == 1


def test_a_policy_that_fails_costs_no_answer_and_is_logged(live: Live) -> None:
    for x in (17.0, 17.5, 13.0):
        assert httpx.post(f"{live.url}/predict", json={"x": x}, headers=KEY).status_code == 200
    assert httpx.post(f"{live.url}/models/churn/predict", json=CHURN_ROW, headers=KEY).status_code == 200
    assert until(lambda: "does not like 17" in live.log.read_text() and "does not like 13" in live.log.read_text())
