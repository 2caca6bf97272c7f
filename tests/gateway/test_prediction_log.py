"""The log of predictions of a real server: what was asked is in it, or counted as missing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres import postgres_server
from toys import CHURN_ROW, Live, children, until

from estiba.core.errors import BadRequest
from estiba.gateway import keys
from estiba.gateway.keys import KeyRequest
from estiba.gateway.log_query import Condition, Follower, Logged, Query, condition, find
from estiba.gateway.log_retention import LogKeeper
from estiba.gateway.options import LogOptions
from estiba.gateway.prediction_log import PredictionLog
from estiba.model.inference.load import load
from estiba.serving.exchange import Exchange
from estiba.serving.http.request import Request
from estiba.serving.pipeline import Batch
from estiba.serving.telemetry.metrics import Metrics
from estiba.state.store import open_log, open_state

pytestmark = pytest.mark.slow

Start = Callable[..., Live]


def logging(folder: Path, **settings: Any) -> dict[str, Any]:
    """The policies of a server that logs into a folder."""
    return {"state": f"sqlite:///{folder}/state.db", "log": {"enabled": True, **settings}}


def logged(url: str, query: Query = Query()) -> list[Logged]:  # noqa: B008 - it is immutable
    database = open_log(url)
    try:
        return find(database, query)
    finally:
        database.close()


def counts(live: Live) -> dict[str, float]:
    """The metric of rows by their outcome."""
    lines = httpx.get(f"{live.url}/metrics").text.splitlines()
    named = [line.split() for line in lines if line.startswith("estiba_log_rows_total{")]
    return {name.split('"')[1]: float(value) for name, value in named}


def settled(live: Live, rows: int) -> bool:
    return until(lambda: counts(live)["written"] + counts(live)["dropped"] >= rows, 10)


def test_inputs_and_answers_are_kept_as_they_were(tmp_path: Path, start_server: Start) -> None:
    live = start_server("churn", "price", default="price", gateway=logging(tmp_path))
    body = {"records": [CHURN_ROW, {**CHURN_ROW, "age": 64, "a/b~c d": 2.5}]}
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    answer = httpx.post(f"{live.url}/models/churn/predict", json=body, headers={"traceparent": trace}).json()
    csv = httpx.post(f"{live.url}/predict", content="x\n1\n2\n3\n", headers={"content-type": "text/csv"}).json()
    refused = httpx.post(f"{live.url}/models/churn/predict", json={"records": [{"age": 1}]})
    assert settled(live, 5)
    found = logged(f"sqlite:///{tmp_path}/state.db", Query("churn"))
    assert refused.status_code == 422
    assert [(each.id, each.row) for each in found] == [(answer["id"], 0), (answer["id"], 1)]
    assert [each.input for each in found] == body["records"]
    assert [each.output for each in found] == answer["predictions"]
    assert {(each.model, each.version, each.trace, each.key) for each in found} == {("churn", "1", "ab" * 16, "")}
    assert all(0 < each.ms < 1000 for each in found)
    others = logged(f"sqlite:///{tmp_path}/state.db", Query("price"))
    assert [each.input for each in others] == [{"x": 1.0}, {"x": 2.0}, {"x": 3.0}]
    assert [each.output for each in others] == csv["predictions"]


def test_every_row_that_was_answered_is_in_the_log(tmp_path: Path, start_server: Start) -> None:
    live = start_server("price", gateway=logging(tmp_path), workers=2)

    def ask(start: int) -> None:
        with httpx.Client(base_url=live.url) as client:
            for i in range(start, start + 100):
                assert client.post("/predict", json={"records": [{"x": i + 0.5}, {"x": -i - 0.5}]}).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(0, 800, 100)))
    assert settled(live, 1600)
    found = logged(f"sqlite:///{tmp_path}/state.db")
    asked = [sign * (i + 0.5) for i in range(800) for sign in (1, -1)]
    assert sorted(each.input["x"] for each in found) == sorted(asked)
    assert counts(live) == {"offered": 1600, "written": 1600, "dropped": 0, "failed": 0}


def test_rows_of_a_large_request_are_numbered_through(tmp_path: Path, start_server: Start) -> None:
    live = start_server("price", gateway=logging(tmp_path))
    body = {"records": [{"x": float(i)} for i in range(20_000)]}
    assert httpx.post(f"{live.url}/predict", json=body, timeout=30).status_code == 200
    assert settled(live, 20_000)
    found = logged(f"sqlite:///{tmp_path}/state.db")
    assert sorted((each.row, each.input["x"]) for each in found) == [(i, float(i)) for i in range(20_000)]
    assert len({each.id for each in found}) == 1


def test_what_a_killed_worker_took_with_it_is_the_difference(tmp_path: Path, start_server: Start) -> None:
    live = start_server("price", gateway=logging(tmp_path))
    answered = 0
    with httpx.Client(base_url=live.url) as client:
        for i in range(300):
            answered += client.post("/predict", json={"x": float(i)}).status_code == 200
    os.kill(children(live.process.pid)[0], signal.SIGKILL)
    assert until(lambda: httpx.get(f"{live.url}/health/ready").status_code == 200, 10)
    assert httpx.post(f"{live.url}/predict", json={"x": 1000.0}).status_code == 200
    assert until(lambda: any(each.input["x"] == 1000.0 for each in logged(f"sqlite:///{tmp_path}/state.db")), 10)
    counted = counts(live)
    assert counted["offered"] == answered + 1
    assert counted["written"] == len(logged(f"sqlite:///{tmp_path}/state.db"))


def test_answers_go_on_while_the_log_cannot_be_written(tmp_path: Path, start_server: Start) -> None:
    file = tmp_path / "log.db"
    file.write_text("no database " * 200)
    live = start_server("price", gateway=logging(tmp_path))
    for i in range(20):
        assert httpx.post(f"{live.url}/predict", json={"x": float(i)}).status_code == 200
    assert until(lambda: "estiba_log_failing 1" in httpx.get(f"{live.url}/metrics").text, 10)
    assert counts(live)["written"] == 0
    file.unlink()
    assert settled(live, 20)
    assert until(lambda: "estiba_log_failing 0" in httpx.get(f"{live.url}/metrics").text, 10)
    assert len(logged(f"sqlite:///{tmp_path}/state.db")) == 20


def test_fields_are_redacted_and_requests_sampled(tmp_path: Path, start_server: Start) -> None:
    live = start_server("churn", gateway=logging(tmp_path, redact=["country", "age"], sample=0.3))
    with httpx.Client(base_url=live.url) as client:
        for _ in range(200):
            assert client.post("/predict", json=CHURN_ROW).status_code == 200
    time.sleep(0.5)
    found = logged(f"sqlite:///{tmp_path}/state.db")
    assert 30 <= len(found) <= 90  # 60 expected; beyond 4 sigma
    assert all(each.input == {**CHURN_ROW, "country": None, "age": None} for each in found)
    assert counts(live)["offered"] == len(found)


def test_the_caller_is_the_name_of_the_key(tmp_path: Path, start_server: Start) -> None:
    own = open_state(f"sqlite:///{tmp_path}/state.db")
    secret, _ = keys.create(own, KeyRequest("ada"))
    own.close()
    live = start_server("price", gateway={**logging(tmp_path), "needs_keys": True})
    assert httpx.post(f"{live.url}/predict", json={"x": 1.0}, headers={"x-api-key": secret}).status_code == 200
    assert httpx.post(f"{live.url}/predict", json={"x": 2.0}).status_code == 401
    assert until(lambda: len(logged(f"sqlite:///{tmp_path}/state.db")) == 1, 5)
    assert [each.key for each in logged(f"sqlite:///{tmp_path}/state.db")] == ["ada"]
    assert secret.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_postgresql_keeps_the_log_too(start_server: Start) -> None:
    with postgres_server() as server:
        live = start_server("price", gateway={"state": server.url, "log": {"enabled": True}})
        assert httpx.post(f"{live.url}/predict", json={"records": [{"x": 1.0}, {"x": 2.0}]}).status_code == 200
        assert until(lambda: len(logged(server.url)) == 2, 10)
        server.stop()
        assert httpx.post(f"{live.url}/predict", json={"x": 3.0}).status_code == 200
        assert until(lambda: "estiba_log_failing 1" in httpx.get(f"{live.url}/metrics").text, 15)
        server.start()
        assert until(lambda: len(logged(server.url)) == 3, 15)
        keeper = LogKeeper(server.url, 1e-9)
        keeper.tick()
        keeper.close()
        assert logged(server.url) == []
        live.stop()


def test_old_rows_are_removed_and_new_ones_stay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    fill(url, 12_000, at=time.time() - 3 * 86400)
    fill(url, 10, at=time.time())
    for keep_days, left in ((4, 12_010), (2, 10)):
        keeper = LogKeeper(url, keep_days)
        keeper.tick()
        keeper.close()
        assert len(logged(url)) == left


def test_rows_of_one_moment_are_removed_however_many_they_are(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    fill(url, 12_000, at=time.time() - 3 * 86400, moments=1)
    fill(url, 10, at=time.time())
    keeper = LogKeeper(url, keep_days=2)
    keeper.tick()
    keeper.close()
    assert len(logged(url)) == 10


def test_followers_see_each_row_once_also_those_that_are_written_late(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    now = time.time()
    fill(url, 3, at=now - 60)
    database = open_log(url)
    follower = Follower(database, Query(), since=now - 2)
    assert follower.newer() == []
    fill(url, 2, at=now)
    assert [each.id for each in follower.newer()] == ["r0", "r1"]
    fill(url, 1, at=now - 1)  # another worker wrote what was answered before
    assert [each.id for each in follower.newer()] == ["r0"]
    assert follower.newer() == []
    database.close()


def test_a_batch_that_cannot_be_kept_is_counted_and_holds_up_no_other(tmp_path: Path, toy_registry: Path) -> None:
    model = load("price", registry=toy_registry)
    metrics = Metrics(tmp_path / "0.metrics")
    kept = PredictionLog(f"sqlite:///{tmp_path}/state.db", LogOptions(enabled=True), metrics)
    coded = model.coder.check([{"x": 1.0}])
    for width in (0, 1):  # the first has no answer for its row
        exchange = Exchange(None, Request(b"POST", b"/predict", b"", []), f"r{width}")  # type: ignore[arg-type]
        exchange.count = 1
        kept.observe(Batch(model, (exchange,), coded, model.answer(coded)[:width], 0.0, 0.1))
        assert until(lambda: len(kept._sink._items) == 0, 5)
        time.sleep(0.2)
    kept.close()
    assert [each.id for each in logged(f"sqlite:///{tmp_path}/state.db")] == ["r1"]
    shown = metrics.render().decode()
    for outcome, rows in (("offered", 2), ("written", 1), ("failed", 1), ("dropped", 0)):
        assert f'estiba_log_rows_total{{outcome="{outcome}"}} {rows}' in shown


def fill(url: str, rows: int, at: float, *, moments: int = 7) -> None:
    """Write rows, in SQLite; several share a moment, and with `moments` of 1 all do."""
    database = open_log(url)
    with database.transaction() as writing:
        writing.execute("INSERT INTO deployment VALUES ('d', 'price', '1', '[\"x\"]', '') ON CONFLICT DO NOTHING")
        about = ("price", "1", "d", "", "", 0.1, b"\x91\x01", b"\x80", "", 0)
        moment = int(at * 1e6)
        writing.insert(
            "prediction", [(moment + (i // 7 if moments > 1 else 0), f"r{i}", 0, *about) for i in range(rows)]
        )
    database.close()


def test_pages_hand_over_every_row_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    fill(url, 3_500, at=1_000_000.0)
    fill(url, 2_500, at=2_000_000.0)
    found = logged(url)
    assert len(found) == 6_000
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert len({(each.at, each.id) for each in found}) == 6_000
    assert len(logged(url, Query(limit=7))) == 7
    assert len(logged(url, Query(since=1_500_000.0))) == 2_500
    assert len(logged(url, Query(until=1_500_000.0))) == 3_500


def test_conditions_compare_numbers_words_and_missing_values() -> None:
    one = Logged(
        "", "", 0, "m", "2", "ada", "", 0.0, {"age": 40, "country": "ES", "gap": None, "on": True}, {"p": 0.25}
    )
    holding = [
        "age>=40",
        "age<41",
        "country=ES",
        "country != FR",
        "gap=null",
        "on=true",
        "p<0.3",
        "version=2",
        "key=ada",
    ]
    assert [text for text in holding if not condition(text).holds(one)] == []
    for text in ("age>40", "country=FR", "gap>1", "on=false", "p=1", "key=bob", "nothing=1", "age=word"):
        assert not condition(text).holds(one)
    assert condition(" a b >= c d ") == Condition("a b", ">=", "c d")
    for text in ("age", "", "=3", "age ? 3"):
        with pytest.raises(BadRequest, match="is no condition"):
            condition(text)


def test_a_condition_on_no_value_of_the_model_is_an_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    fill(url, 3, at=time.time())
    with pytest.raises(BadRequest, match="price has no value 'y'"):
        logged(url, Query("price", conditions=[condition("y>1")]))
    found = logged(url, Query("price", conditions=[condition("x=1")]))
    assert [each.input for each in found] == [{"x": 1}] * 3
