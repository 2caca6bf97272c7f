"""The route of a model over HTTP, with keys and without."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from toys import PRICE, Live, toy, until

from estiba.gateway import keys
from estiba.gateway.keys import KeyRequest
from estiba.model.registry.registry import open_registry
from estiba.state.store import open_state

pytestmark = pytest.mark.slow

ROUTE = "/models/price/route"
CANARY = {"weights": {"production": 95, "candidate": 5}}
Start = Callable[..., Live]


@pytest.fixture
def registry(toy_registry: Path, tmp_path: Path) -> str:
    """A registry with price@1, the production, and price@2, the candidate."""
    shutil.copytree(toy_registry, tmp_path / "registry")
    opened = open_registry(tmp_path / "registry")
    opened.set_alias("price", "production", 1)
    opened.push(toy("price", PRICE, {"x": 1.0}, tmp_path), ["candidate"])
    return str(tmp_path / "registry")


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


def test_a_route_is_read_changed_and_removed(registry: str, start_server: Start) -> None:
    with httpx.Client(base_url=start_server("price", "churn", registry=registry).url, timeout=20) as client:
        none = client.get(ROUTE)
        assert none.json() == {"model": "price", "decided_by": None, "version": "1", "targets": []}
        made = client.put(ROUTE, json={**CANARY, "sticky": "header:X-User", "shadow": "2"})
        assert made.status_code == 200
        assert made.json() == {
            "model": "price", "decided_by": "registry", "version": "1", "generation": 1, "followed": True,
            "targets": [
                {"target": "production", "version": "1", "weight": 95},
                {"target": "candidate", "version": "2", "weight": 5},
            ],
            "sticky": "header:X-User", "shadow": {"target": "2", "version": "2"}, "when": [],
        }  # fmt: skip
        found = client.get(ROUTE)
        assert found.json() == {name: value for name, value in made.json().items() if name != "followed"}
        assert found.headers["etag"] == made.headers["etag"] == '"1"'
        assert client.put(ROUTE, json=CANARY, headers={"if-match": '"1"'}).json()["generation"] == 2
        late = client.put(ROUTE, json=CANARY, headers={"if-match": '"1"'})
        assert problem(late) == (412, problem(late)[1])
        assert "changed by somebody else meanwhile" in problem(late)[1]
        gone = client.delete(ROUTE, params={"reason": " it is slow "})
        assert (gone.status_code, gone.json()["targets"], gone.json()["followed"]) == (200, [], True)
        assert client.post("/models/price/predict", json={"x": 1.0}).status_code == 200
        changes = client.get(f"{ROUTE}/history").json()["changes"]
        assert [(each["generation"], each["reason"]) for each in changes] == [(3, "it is slow"), (2, ""), (1, "")]
        assert [each["route"] and each["route"]["weights"] for each in changes] == [None, *[CANARY["weights"]] * 2]
        assert changes[2]["route"]["sticky"] == "header:X-User"
        assert client.get("/models/prise/route/history").status_code == 404
        assert client.put(ROUTE, json=CANARY, params={"reason": "two\nlines"}).status_code == 400


def test_mistakes_are_refused_and_nothing_changes(registry: str, start_server: Start) -> None:
    with httpx.Client(base_url=start_server("price", "churn", registry=registry).url) as client:
        wrong: list[tuple[Any, str]] = [
            ({"weights": {"production": 95, "candidate": 4}}, "add up to 99, not to 100"),
            ({"weights": {"production": 95, "blue": 5}}, "price has no alias 'blue'"),
            ({"weights": {"production": "95"}}, "The body is no route"),
            ({"weights": {"production": 101}}, "The body is no route"),
            ({"weight": {}}, "The body is no route"),
            ([], "The body is no route"),
        ]
        for body, message in wrong:
            answer = client.put(ROUTE, json=body)
            assert (answer.status_code, message in answer.json()["detail"]) == (400, True), answer.text
        assert client.put(ROUTE, content=b"\xff").status_code == 400
        assert client.put(ROUTE, json=CANARY, headers={"if-match": "x"}).status_code == 400
        assert client.delete(ROUTE, headers={"if-match": ""}).status_code == 400
        assert client.put("/models/prise/route", json=CANARY).status_code == 404
        assert client.get("/models/prise/route").status_code == 404
        assert client.patch(ROUTE).status_code == 405
    assert open_registry(registry).route_generation("price") == 0


def test_a_registry_that_cannot_be_written_is_said(registry: str, start_server: Start) -> None:
    live = start_server("price", registry=registry)
    (Path(registry) / "models" / "price" / "routes").write_bytes(b"")
    status, detail = problem(httpx.put(live.url + ROUTE, json=CANARY))
    assert (status, str(Path(registry) / "models" / "price" / "routes") in detail) == (503, True)
    assert httpx.post(live.url + "/predict", json={"x": 1.0}).status_code == 200


def test_the_project_file_decides(registry: str, start_server: Start) -> None:
    live = start_server("price", registry=registry, gateway={"routes": {"price": CANARY}})
    assert httpx.get(live.url + ROUTE).json()["decided_by"] == "file"
    for answer in (httpx.put(live.url + ROUTE, json=CANARY), httpx.delete(live.url + ROUTE)):
        assert problem(answer)[0] == 409
        assert "The project file decides the route of price. Change [gateway.routes.price]" in problem(answer)[1]


def test_only_an_admin_changes_a_route(registry: str, start_server: Start, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    database = open_state(url)
    requests = [
        KeyRequest("ada", ("admin",)), KeyRequest("bob"), KeyRequest("eve", ("read",)),
        KeyRequest("kim", ("admin",), ["churn"]),
    ]  # fmt: skip
    made = {request.name: keys.create(database, request)[0] for request in requests}
    database.close()
    live = start_server("price", "churn", registry=registry, gateway={"state": url, "needs_keys": True})

    def put(name: str, method: str = "PUT") -> httpx.Response:
        headers = {"authorization": f"Bearer {made[name]}"} if name else {}
        return httpx.request(method, live.url + ROUTE, json=CANARY, headers=headers, timeout=20)

    assert until(lambda: httpx.get(live.url + ROUTE, headers={"x-api-key": made["bob"]}).status_code == 200)
    for method in ("PUT", "DELETE"):
        assert put("", method).status_code == 401
        for name in ("bob", "eve"):
            refused = put(name, method)
            assert (refused.status_code, "lacks the role admin" in refused.json()["detail"]) == (403, True)
            assert refused.headers["www-authenticate"].endswith('error="insufficient_scope", scope="admin"')
        assert "not for the model 'price'" in put("kim", method).json()["detail"]
    assert open_registry(registry).route_generation("price") == 0
    assert put("ada").json()["followed"]
    for name, status in (("", 401), ("bob", 403), ("eve", 200), ("ada", 200)):
        found = httpx.get(f"{live.url}{ROUTE}/history", headers={"x-api-key": made[name]} if name else {})
        assert found.status_code == status
    assert [(each["by"], each["generation"]) for each in found.json()["changes"]] == [("ada", 1)]
    stored = open_registry(registry).route("price")
    assert stored is not None
    assert stored.by == "ada"


def test_a_server_for_others_without_keys_takes_no_change(registry: str, start_server: Start) -> None:
    live = start_server("price", registry=registry, host="0.0.0.0", insecure=True)
    status, detail = problem(httpx.put(live.url + ROUTE, json=CANARY))
    assert (status, "takes changes from its own machine only" in detail) == (403, True)
    assert httpx.get(live.url + ROUTE).status_code == 200
