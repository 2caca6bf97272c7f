"""Keys asked for by a real server: who is admitted where, and how fast changes take effect."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from toys import Live, children, until

import estiba
from estiba.core.errors import BadRequest, EstibaError
from estiba.gateway import keys
from estiba.gateway.access import KeyAccess
from estiba.gateway.keys import KeyRequest
from estiba.gateway.policy import Policy
from estiba.serving.api.management_routes import application
from estiba.serving.catalog import CurrentCatalog
from estiba.serving.exchange import Exchange
from estiba.serving.http.request import Request
from estiba.serving.pipeline import Forbidden
from estiba.serving.server_status import Health
from estiba.serving.telemetry.access_log import is_health_check
from estiba.serving.telemetry.metrics import Metrics
from estiba.state.database import Database
from estiba.state.store import open_state

pytestmark = pytest.mark.slow

ROW = {"x": 1.0}
PREDICT = "/models/price/predict"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_state(f"sqlite:///{tmp_path_factory.mktemp('state')}/state.db")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def live(database: Database, start_server: Callable[..., Live]) -> Live:
    return start_server("churn", "price", default="price", gateway=keys_in(f"sqlite:///{_file(database)}"))


@pytest.fixture(scope="module")
def ada(database: Database, live: Live) -> str:
    return make(database, live, KeyRequest("ada"))


def keys_in(url: str) -> dict[str, Any]:
    """The policies of a server whose keys are in a state store."""
    return {"state": url, "needs_keys": True}


def _file(database: Database) -> Path:
    with database.transaction(write=False) as reading:
        ((_, _, file),) = reading.execute("PRAGMA database_list")
    return Path(file)


def make(database: Database, live: Live, request: KeyRequest) -> str:
    """A key that the server knows."""
    secret, _ = keys.create(database, request)
    assert until(lambda: httpx.get(f"{live.url}/models", headers=bearer(secret)).status_code in (200, 403), 5)
    return secret


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def ask(live: Live, path: str = PREDICT, body: Any = ROW, **headers: str) -> httpx.Response:
    return httpx.post(live.url + path, json=body, headers={name.replace("_", "-"): v for name, v in headers.items()})


def test_both_headers_carry_a_key(live: Live, ada: str) -> None:
    answer = ask(live, authorization=f"Bearer {ada}")
    assert answer.status_code == 200, answer.text
    assert ask(live, authorization=f"bearer  {ada}").status_code == 200
    assert ask(live, x_api_key=ada).status_code == 200
    assert ask(live, x_api_key=ada, authorization=f"Bearer {ada}").status_code == 200


def paths() -> list[str]:
    """Every path of the route tables: of the management application, and those of predictions."""
    served = [getattr(route, "path", "") for route in application(CurrentCatalog(), Health(), Metrics()).routes]
    predictions = [
        "/predict", "/invocations", PREDICT, "/models/price/versions/1/predict", "/v1/models/price:predict",
        "/v2/models/price/infer", "/v2/models/price/versions/1/infer",
    ]  # fmt: skip
    filled = {path.replace("{name}", "price").replace("{version}", "1") for path in served} - {""}
    return sorted(filled | set(predictions) | {"/nothing/here"})


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_route_but_health_checks_asks_for_a_key(live: Live, method: str) -> None:
    for path in paths():
        answer = httpx.request(method, live.url + path, content=b"{}")
        if is_health_check(path.encode()):
            assert answer.status_code in (200, 405), path
        else:
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == 'Bearer realm="estiba"'


def test_a_path_that_only_looks_like_a_health_check_is_none(live: Live) -> None:
    for path in ("/models/price/ready", "/healthx", "/v2/models/price/ready", "/models/live", "/metrics"):
        assert httpx.get(live.url + path).status_code == 401


def test_wrong_keys_are_named_as_such(live: Live, ada: str, database: Database) -> None:
    other = "est_" + "0" * 43 + "0A0A0A"
    foreign = keys.generate()
    for given, text in (
        (ada[:-1], "no key of Estiba"), (other, "no key of Estiba"), (foreign, "not valid here")
    ):  # fmt: skip
        answer = ask(live, authorization=f"Bearer {given}")
        assert (answer.status_code, text in answer.json()["detail"]) == (401, True)
        assert answer.headers["www-authenticate"] == 'Bearer realm="estiba", error="invalid_token"'
        assert given not in answer.text
    assert ask(live, authorization="Bearer").status_code == 401
    assert ask(live, authorization="Basic YWRhOmFkYQ==").status_code == 401
    second = make(database, live, KeyRequest("second"))
    twice = ask(live, authorization=f"Bearer {ada}", x_api_key=second)
    assert (twice.status_code, "two keys that differ" in twice.json()["detail"]) == (400, True)


def test_a_key_in_the_query_string_is_no_key(live: Live, ada: str) -> None:
    assert ask(live, f"{PREDICT}?key={ada}&x-api-key={ada}&access_token={ada}").status_code == 401


def test_roles_and_models_bound_what_a_key_may_do(live: Live, database: Database) -> None:
    only_price = bearer(make(database, live, KeyRequest("only-price", models=("price",))))
    reader = bearer(make(database, live, KeyRequest("reader", ("read",))))
    admin = bearer(make(database, live, KeyRequest("admin", ("admin",))))
    churn = "/models/churn/predict"
    assert ask(live, **only_price).status_code == 200
    refused = ask(live, churn, **only_price)
    assert (refused.status_code, "not for the model 'churn'" in refused.json()["detail"]) == (403, True)
    assert refused.headers["www-authenticate"].endswith('error="insufficient_scope", scope="predict"')
    assert ask(live, "/v2/models/churn/infer", **only_price).json()["error"].startswith("This key is not for")
    assert ask(live, **reader).status_code == 403
    assert "role predict" in ask(live, **reader).json()["detail"]
    assert ask(live, churn, **admin).status_code == 422  # it was admitted
    for path, may_predict in (("/models", 200), ("/models/price/schema", 200), ("/v2/models/price", 200),
                              ("/openapi.json", 200), ("/docs", 200), ("/metrics", 403)):  # fmt: skip
        assert httpx.get(live.url + path, headers=only_price).status_code == may_predict, path
        assert httpx.get(live.url + path, headers=reader).status_code == 200, path
        assert httpx.get(live.url + path, headers=admin).status_code == 200, path


def test_a_key_ends_when_it_expires(live: Live, database: Database) -> None:
    short = bearer(make(database, live, KeyRequest("short", lifetime=2)))
    assert ask(live, **short).status_code == 200
    assert until(lambda: ask(live, **short).status_code == 401, 5)
    assert "expired" in ask(live, **short).json()["detail"]


@pytest.mark.slow
def test_a_key_that_is_revoked_is_refused_by_every_worker_within_a_second(
    database: Database, start_server: Callable[..., Live]
) -> None:
    live = start_server("price", gateway=keys_in(f"sqlite:///{_file(database)}"), workers=3)
    key = bearer(make(database, live, KeyRequest("leaked")))
    clients = [httpx.Client(base_url=live.url, headers=key) for _ in range(9)]
    assert until(lambda: all(client.post("/predict", json=ROW).status_code == 200 for client in clients), 5)
    keys.revoke(database, "leaked")
    time.sleep(1.0)
    assert [client.post("/predict", json=ROW).status_code for client in clients] == [401] * 9
    for client in clients:
        client.close()


@pytest.mark.slow
def test_a_worker_that_is_restarted_asks_for_keys_too(
    database: Database, ada: str, start_server: Callable[..., Live]
) -> None:
    live = start_server("price", gateway=keys_in(f"sqlite:///{_file(database)}"))
    (worker,) = children(live.process.pid)
    os.kill(worker, signal.SIGKILL)
    assert until(lambda: children(live.process.pid) not in ([], [worker]), 10)
    assert until(lambda: ask(live, "/predict", x_api_key=ada).status_code == 200, 10)
    assert ask(live, "/predict").status_code == 401


@pytest.mark.slow
def test_a_store_that_is_lost_keeps_the_keys_in_force_and_is_said(
    tmp_path: Path, start_server: Callable[..., Live]
) -> None:
    file = tmp_path / "state.db"
    own = open_state(f"sqlite:///{file}")
    live = start_server("price", gateway=keys_in(f"sqlite:///{file}"))
    key = make(own, live, KeyRequest("ada"))
    own.close()
    for part in tmp_path.glob("state.db*"):
        part.unlink()
    file.write_text("no database any more " * 100)
    detail = "The keys are not up to date, as their store cannot be read. The server's log says why."
    assert until(lambda: httpx.get(f"{live.url}/health/ready").json().get("detail") == detail, 10)
    assert ask(live, "/predict", x_api_key=key).status_code == 200
    assert ask(live, "/predict").status_code == 401
    log = live.log.read_text()
    assert "policies cannot be read" in log
    assert log.count("policies cannot be read") == 1


@pytest.mark.slow
def test_without_its_store_a_server_starts_and_refuses_all(tmp_path: Path, start_server: Callable[..., Live]) -> None:
    file = tmp_path / "state.db"
    file.write_text("no database " * 100)
    live = start_server("price", gateway=keys_in(f"sqlite:///{file}"))
    answer = ask(live, "/predict")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "keys of this server cannot be read" in answer.json()["detail"]
    assert httpx.get(f"{live.url}/health/ready").status_code == 200
    file.unlink()
    own = open_state(f"sqlite:///{file}")
    key = make(own, live, KeyRequest("ada"))
    assert ask(live, "/predict", x_api_key=key).status_code == 200
    own.close()


def test_the_client_sends_its_key(live: Live, ada: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with estiba.Client(live.url, key=ada) as client:
        assert client.predict([ROW], model="price") == [{"value": pytest.approx(0.01)}]
        assert client.ready()
    with estiba.Client(live.url) as client, pytest.raises(EstibaError, match="A key is missing"):
        client.predict([ROW], model="price")
    monkeypatch.setenv("ESTIBA_KEY", f"{ada}\r\n")  # as a file of secrets has it
    with estiba.Client(live.url) as client:
        assert len(client.models()) == 2
    monkeypatch.setenv("ESTIBA_KEY", "\n")
    with estiba.Client(live.url) as client, pytest.raises(EstibaError, match="A key is missing"):
        client.predict([ROW], model="price")
    (file := tmp_path / "key").write_text(ada + "\n")
    monkeypatch.delenv("ESTIBA_KEY")
    monkeypatch.setenv("ESTIBA_KEY_FILE", str(file))
    with estiba.Client(live.url) as client:
        assert len(client.models()) == 2


def test_the_metrics_tell_the_age_of_the_policies(live: Live, database: Database) -> None:
    reader = bearer(make(database, live, KeyRequest("metrics", ("read",))))
    lines = httpx.get(f"{live.url}/metrics", headers=reader).text.splitlines()
    (age,) = [float(line.split()[1]) for line in lines if line.startswith("estiba_policy_age_seconds ")]
    assert 0 <= age < 5
    assert any('estiba_rejected_total{model="price",reason="unauthorized"}' in line for line in lines)


HOLDERS = {
    "asks another model": KeyRequest("asks", ("predict",), models=("churn",)),
    "reads": KeyRequest("reads", ("read",)),
    "has no role": KeyRequest("none", ()),
}


def spellings(path: str) -> set[str]:
    """The path with each of its characters percent-encoded, alone and all of them, and with a line end behind it."""
    single = {path[:i] + f"%{ord(path[i]):02x}" + path[i + 1 :] for i in range(1, len(path))}
    return {*single, "/" + "".join(f"%{ord(each):02X}" for each in path[1:]), f"{path}%0A", f"{path}%00"}


@pytest.mark.parametrize("request_of_key", HOLDERS.values(), ids=HOLDERS.keys())
def test_a_path_is_judged_as_it_is_matched(tmp_path: Path, request_of_key: KeyRequest) -> None:
    """No spelling of a path admits whom the path itself refuses."""
    url = f"sqlite:///{tmp_path}/state.db"
    with closing(open_state(url)) as database:
        secret, _ = keys.create(database, request_of_key)
        access = KeyAccess(Policy(url, tuple(keys.listed(database))))
    headers = [(b"x-api-key", secret.encode())]

    def admits(method: str, path: str) -> bool:
        request = Request(method.encode(), path.encode(), b"", headers)
        try:
            access(Exchange(None, request, "id"))  # type: ignore[arg-type]
        except (Forbidden, BadRequest):
            return False
        return True

    refused = [(m, path) for path in paths() for m in ("GET", "POST", "PUT", "DELETE") if not admits(m, path)]
    assert ("PUT", "/models/price/route") in refused
    assert ("GET", "/models/price/route/history") in refused or request_of_key.name == "reads"
    assert {(m, path, each) for m, path in refused for each in spellings(path) if admits(m, each)} == set()


def test_an_encoded_path_changes_and_reads_nothing(live: Live, database: Database) -> None:
    asks = bearer(make(database, live, KeyRequest("encoded-asks", ("predict",), models=("churn",))))
    reads = bearer(make(database, live, KeyRequest("encoded-reads", ("read",))))
    plain = [("PUT", "/models/price/route", asks), ("PUT", "/models/price/route", reads),
             ("DELETE", "/models/price/route", asks), ("POST", "/models/price/explain", asks),
             ("POST", "/models/price/explain", reads), ("POST", "/feedback", reads), ("GET", "/metrics", asks),
             ("GET", "/models/price/route/history", asks), ("GET", "/models/price/drift", asks),
             ("GET", "/models/price/quality", asks)]  # fmt: skip
    with httpx.Client(base_url=live.url) as client:
        for method, path, headers in plain:
            for spelling in (
                path,
                path.replace("/", "%2F", 2).replace("%2F", "/", 1),
                path.replace("e", "%65"),
                f"{path}%0A",
            ):
                answer = client.request(method, spelling, content=b"{}", headers=headers)
                assert answer.status_code == (400 if spelling.endswith("%0A") else 403), (method, spelling, answer.text)
