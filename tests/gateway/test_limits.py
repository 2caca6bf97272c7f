"""Limits kept by a real server: exact over its workers, in every protocol's form, changed while it runs."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from toys import SLOW_ROW, Live, children, until

from estiba import project
from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.gateway import keys
from estiba.gateway.keys import KeyRequest
from estiba.gateway.options import Limit, LimitsOptions, check_limits
from estiba.state.database import Database
from estiba.state.store import open_state

ROW = {"x": 1.0}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_state(f"sqlite:///{tmp_path}/state.db")
    yield opened
    opened.close()


def with_keys(database: Database, **limits: Any) -> dict[str, Any]:
    with database.transaction(write=False) as reading:
        ((_, _, file),) = reading.execute("PRAGMA database_list")
    return {"state": f"sqlite:///{file}", "needs_keys": True, "limits": limits}


def ask(live: Live, path: str = "/predict", body: Any = ROW, key: str = "") -> httpx.Response:
    return httpx.post(live.url + path, json=body, headers={"x-api-key": key} if key else {})


def flood(live: Live, connections: int, requests: int, key: str = "") -> Counter[int]:
    """Statuses of requests that as many connections send at once."""
    found: Counter[int] = Counter()
    start = threading.Barrier(connections)

    def send() -> None:
        client = http.client.HTTPConnection("127.0.0.1", live.port, timeout=10)
        client.connect()
        start.wait()
        for _ in range(requests):
            client.request("POST", "/predict", json.dumps(ROW), {"x-api-key": key, "content-type": "application/json"})
            answer = client.getresponse()
            answer.read()
            found[answer.status] += 1
        client.close()

    threads = [threading.Thread(target=send) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


# Options


def test_own_limits_come_before_those_of_the_project_field_by_field() -> None:
    default = Limit(rate=10, burst=50, concurrent=4)
    assert Limit(rate=5).over(default) == Limit(rate=5, concurrent=4)
    assert Limit(concurrent=1, rows_per_day=7).over(default) == Limit(rate=10, burst=50, concurrent=1, rows_per_day=7)
    assert Limit().over(default) == default


def test_a_burst_needs_a_rate(database: Database) -> None:
    with pytest.raises(BadProject, match=r"gateway\.limits\.models\.price\.burst: there is no rate"):
        check_limits(LimitsOptions(models={"price": Limit(burst=5)}))
    with pytest.raises(EstibaError, match="A burst needs a rate"):
        keys.create(database, KeyRequest("ada", limits=Limit(burst=5)))
    keys.create(database, KeyRequest("ada"))
    with pytest.raises(EstibaError, match="A burst needs a rate"):
        keys.limit(database, "ada", Limit(burst=5))
    with pytest.raises(NotFound, match="no key 'adda'; did you mean 'ada'"):
        keys.limit(database, "adda", Limit(rate=5))


def test_limits_are_listed_with_their_key(database: Database) -> None:
    keys.create(database, KeyRequest("ada", limits=Limit(rate=0.5, rows_per_day=9)))
    before = keys.generation(database)
    (ada,) = keys.listed(database)
    assert ada.limits == Limit(rate=0.5, rows_per_day=9)
    keys.limit(database, "ada", Limit(concurrent=3))
    (ada,) = keys.listed(database)
    assert (ada.limits, keys.generation(database)) == (Limit(concurrent=3), before + 1)


# Servers


@pytest.mark.slow
def test_a_rate_is_exact_over_all_workers(database: Database, start_server: Callable[..., Live]) -> None:
    ada, _ = keys.create(database, KeyRequest("ada", limits=Limit(rate=0.01, burst=100)))
    bob, _ = keys.create(database, KeyRequest("bob", limits=Limit(rate=100, burst=20)))
    live = start_server("price", gateway=with_keys(database), workers=3)
    assert flood(live, 9, 40, ada) == {200: 100, 429: 260}
    began = time.monotonic()
    found = flood(live, 6, 200, bob)
    assert 20 < found[200] <= 20 + 100 * (time.monotonic() - began)
    lines = httpx.get(f"{live.url}/metrics", headers={"x-api-key": _reader(database, live)}).text.splitlines()
    assert 'estiba_limited_total{model="price",key="ada",policy="key"} 260' in lines
    assert f'estiba_limited_total{{model="price",key="bob",policy="key"}} {found[429]}' in lines


def _reader(database: Database, live: Live) -> str:
    secret, _ = keys.create(database, KeyRequest("reader", ("read",)))
    assert until(lambda: httpx.get(f"{live.url}/metrics", headers={"x-api-key": secret}).status_code == 200, 5)
    return secret


@pytest.mark.slow
def test_a_refusal_has_the_form_of_its_protocol(start_server: Callable[..., Live]) -> None:
    limits = {"models": {"price": {"rate": 0.1, "burst": 1}}}
    live = start_server("price", "churn", default="price", gateway={"limits": limits})
    admitted = ask(live)
    assert admitted.status_code == 200
    assert admitted.headers["ratelimit-policy"] == '"model";q=1;w=10'
    assert admitted.headers["ratelimit"] == '"model";r=0;t=10'
    assert admitted.headers["x-model-version"] == "1"
    native = ask(live)
    assert (native.status_code, native.headers["content-type"]) == (429, "application/problem+json")
    problem = native.json()
    assert (problem["type"], problem["status"], problem["model"]) == ("urn:estiba:problem:rate-limited", 429, "price")
    assert problem["violated-policies"] == ["model"]
    assert problem["detail"].startswith("The rate of the model price, 0.1 requests a second, is used up. Retry after ")
    assert 8 <= int(native.headers["retry-after"]) <= 10
    assert native.headers["ratelimit-policy"] == '"model";q=1;w=10'
    assert native.headers["ratelimit"] == f'"model";r=0;t={native.headers["retry-after"]}'
    detail = "The rate of the model price"
    v2 = ask(live, "/v2/models/price/infer", {"inputs": []})
    v1 = ask(live, "/v1/models/price:predict", {"instances": [ROW]})
    mlflow = ask(live, "/invocations", {"dataframe_records": [ROW]})
    assert [each.status_code for each in (v2, v1, mlflow)] == [429] * 3
    assert v2.json()["error"].startswith(detail)
    assert v1.json()["error"].startswith(detail)
    assert mlflow.json()["message"].startswith(detail)
    assert all("retry-after" in each.headers and "ratelimit" in each.headers for each in (v2, v1, mlflow))
    other = ask(live, "/models/churn/predict", {})
    assert other.status_code != 429
    assert "ratelimit" not in other.headers
    assert httpx.get(f"{live.url}/models").status_code == 200


@pytest.mark.slow
def test_the_fields_can_be_left_out(start_server: Callable[..., Live]) -> None:
    live = start_server("price", gateway={"limits": {"rate": 0.1, "headers": False}})
    answers = [ask(live), ask(live)]
    assert [each.status_code for each in answers] == [200, 429]
    assert not any("ratelimit" in each.headers or "ratelimit-policy" in each.headers for each in answers)
    assert "retry-after" in answers[1].headers
    assert "all callers" in answers[1].json()["detail"]


@pytest.mark.slow
def test_a_change_takes_effect_within_a_second(database: Database, start_server: Callable[..., Live]) -> None:
    ada, _ = keys.create(database, KeyRequest("ada", limits=Limit(rate=0.01, burst=1)))
    live = start_server("price", gateway=with_keys(database), workers=3)
    assert flood(live, 3, 2, ada) == {200: 1, 429: 5}
    keys.limit(database, "ada", Limit(rate=1000))
    assert until(lambda: ask(live, key=ada).status_code == 200, 1)
    time.sleep(1.0)
    assert flood(live, 3, 20, ada) == {200: 60}
    keys.limit(database, "ada", Limit())
    time.sleep(1.0)
    free = ask(live, key=ada)
    assert (free.status_code, "ratelimit" in free.headers) == (200, False)
    keys.limit(database, "ada", Limit(rate=0.01, burst=2))
    time.sleep(1.0)
    assert flood(live, 3, 3, ada)[200] <= 2
    keys.revoke(database, "ada")
    time.sleep(1.0)
    assert ask(live, key=ada).status_code == 401


@pytest.mark.slow
def test_rows_are_counted_in_small_and_in_large_bodies(start_server: Callable[..., Live]) -> None:
    live = start_server("price", gateway={"limits": {"rows_per_day": 10_000}})
    first = ask(live, body={"records": [ROW] * 10})
    assert first.status_code == 200
    assert first.headers["ratelimit-policy"] == '"key-rows";q=10000;w=86400;estiba-unit="rows"'
    assert first.headers["ratelimit"] == '"key-rows";r=10000'
    large = {"records": [ROW] * 9_000}
    assert len(json.dumps(large)) > 64 * 1024
    assert ask(live, body=large).status_code == 200
    again = ask(live, body=large)
    assert (again.status_code, again.json()["violated-policies"]) == (429, ["key-rows"])
    assert again.json()["detail"].startswith(
        "The request has 9000 rows; of the 10000 rows a day of all callers, 990 are left. The day ends at midnight"
    )
    assert 0 < int(again.headers["retry-after"]) <= 86_400
    assert ask(live, body={"records": [ROW] * 990}).status_code == 200
    spent = ask(live)
    assert (spent.status_code, "are used up" in spent.json()["detail"]) == (429, True)
    bad = ask(live, body={"records": [{"x": "one"}]})
    assert bad.status_code == 429


@pytest.mark.slow
def test_requests_at_a_time_are_freed_even_if_their_worker_is_killed(start_server: Callable[..., Live]) -> None:
    live = start_server("price", gateway={"limits": {"concurrent": 2}}, workers=3)
    assert flood(live, 2, 30) == {200: 60}
    found: list[int] = []

    def slow() -> None:
        found.append(ask(live, body={"x": SLOW_ROW}).status_code)

    threads = [threading.Thread(target=slow) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert until(lambda: ask(live).status_code == 429, 2)
    refused = ask(live)
    if refused.status_code == 429:
        assert refused.json()["detail"].startswith("2 requests of all callers are being answered, the most at a time.")
        assert refused.headers["ratelimit"] == '"key-concurrent";r=0'
    for worker in children(live.process.pid):
        os.kill(worker, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert until(lambda: ask(live).status_code == 200, 10)
    assert flood(live, 2, 10) == {200: 20}
    assert ask(live, body={"x": "one"}).status_code == 422
    assert flood(live, 2, 10) == {200: 20}


def test_the_project_file_names_models_that_it_has(tmp_path: Path) -> None:
    file = tmp_path / "estiba.toml"
    models = '[models.price]\ntrain = "own:train"\n'
    file.write_text(models + "[gateway.limits]\nrate = 50\n[gateway.limits.models.price]\nconcurrent = 4\n")
    limits = project.load(file).gateway.limits
    assert (limits.for_keys, limits.models) == (Limit(rate=50), {"price": Limit(concurrent=4)})
    file.write_text(models + '[gateway.limits]\nrate = 50\nstore = "redis://a.example"\nservice = "cache"\n')
    with pytest.raises(BadProject, match=r"gateway\.limits: both store and service say"):
        project.load(file)
    for wrong, said in {
        "[gateway.limits.models.prise]\nrate = 1": "gateway.limits.models.prise: there is no model 'prise'; did",
        "[gateway.limits]\nburst = 5": "gateway.limits.burst: there is no rate",
        "[gateway.limits]\nrate = 0": "gateway.limits.rate: must be more than 0",
        '[gateway.limits]\nrate = "fast"': "gateway.limits.rate: must be a number, not text",
        "[gateway.limits]\nrates = 5": "gateway.limits.rates: unknown key; did you mean 'rate'",
    }.items():
        file.write_text(f"{models}{wrong}\n")
        with pytest.raises(BadProject, match=re.escape(said)):
            project.load(file)
