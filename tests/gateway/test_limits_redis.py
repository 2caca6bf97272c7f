"""Limits over several servers, counted by a real Redis that is stopped, slow and restarted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from redis_server import Redis, redis_server
from toys import SLOW_ROW, Live, children, until

from estiba.core.errors import BadProject
from estiba.gateway.options import GatewayOptions, LimitsOptions, StoreAddress, check_limits, gateway_of
from estiba.serving.options import ServerOptions

pytestmark = pytest.mark.slow

ROW = {"x": 1.0}


@pytest.fixture
def redis() -> Iterator[Redis]:
    with redis_server() as server:
        yield server


def limits(redis: Redis, *, timeout: float = 3.0, **options: Any) -> dict[str, Any]:
    """Policies of a server. Its patience is that of a busy machine: these tests count what the store decides."""
    return {"limits": {"store": redis.url, "timeout": timeout, **options}}


def ask(live: Live, body: Any = ROW) -> int:
    return httpx.post(f"{live.url}/predict", json=body, timeout=10).status_code


def both(servers: list[Live], count: int) -> list[int]:
    """Statuses of requests that go to all servers at once, from three connections each."""
    found: list[int] = []

    def send(live: Live) -> None:
        with httpx.Client(base_url=live.url) as client:
            found.extend(client.post("/predict", json=ROW).status_code for _ in range(count))

    threads = [threading.Thread(target=send, args=(live,)) for live in servers for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def detail(live: Live) -> str:
    return str(httpx.get(f"{live.url}/health/ready").json().get("detail", ""))


def metric(live: Live, name: str) -> float:
    lines = httpx.get(f"{live.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_a_limit_is_exact_over_servers(redis: Redis, start_server: Callable[..., Live]) -> None:
    options = limits(redis, rate=0.01, burst=60, rows_per_day=100)
    servers = [start_server("price", gateway=options, workers=2) for _ in range(2)]
    found = both(servers, 40)
    assert (found.count(200), found.count(429)) == (60, 180)
    answer = httpx.post(f"{servers[0].url}/predict", json=ROW)
    assert answer.headers["ratelimit-policy"] == '"key";q=60;w=6000, "key-rows";q=100;w=86400;estiba-unit="rows"'
    assert answer.headers["ratelimit"] == f'"key";r=0;t={answer.headers["retry-after"]}'
    assert 0 < int(answer.headers["retry-after"]) <= 100
    assert redis.ask("HGET", "estiba:limits:key:", "rows") == "60"
    assert metric(servers[0], "estiba_limits_without_store_total") == 0


def test_rows_end_at_midnight_and_large_bodies_count(redis: Redis, start_server: Callable[..., Live]) -> None:
    live = start_server("price", gateway=limits(redis, rows_per_day=10_000))
    assert ask(live, {"records": [ROW] * 9_000}) == 200
    assert [ask(live, {"records": [ROW] * count}) for count in (9_000, 1_001, 1_000, 1)] == [429, 429, 200, 429]
    today = int(redis.ask("HGET", "estiba:limits:key:", "day"))
    redis.ask("HSET", "estiba:limits:key:", "day", str(today - 1))
    assert ask(live, {"records": [ROW] * 9_000}) == 200


def test_requests_of_a_worker_that_is_killed_are_freed(redis: Redis, start_server: Callable[..., Live]) -> None:
    first, second = (start_server("price", gateway=limits(redis, concurrent=1)) for _ in range(2))
    assert [ask(first), ask(second), ask(first)] == [200, 200, 200]
    # One of the requests below may be on its way when the slow one comes, which is refused then.
    thread = threading.Thread(target=until, args=(lambda: ask(first, {"x": SLOW_ROW}) != 429, 2))
    thread.start()
    assert until(lambda: ask(second) == 429, 2)
    (worker,) = children(first.process.pid)
    os.kill(worker, signal.SIGKILL)
    thread.join()
    assert until(lambda: ask(second) == 200, 6)


def test_without_redis_each_server_has_its_share(redis: Redis, start_server: Callable[..., Live]) -> None:
    options = limits(redis, rate=0.01, burst=60)
    servers = [start_server("price", gateway=options) for _ in range(2)]
    assert both(servers, 1) == [200] * 6
    time.sleep(2.2)  # until both have heard of each other
    redis.stop()
    found, times = [], []
    for _ in range(40):
        began = time.monotonic()
        found.append(ask(servers[0]))
        times.append(time.monotonic() - began)
    assert (found.count(200), found.count(429)) == (30, 10)
    assert max(times) < 1.0
    assert detail(servers[0]) == "The store of the limits cannot be reached. The server's log says why."
    assert until(lambda: metric(servers[0], "estiba_limits_store_failing") == 1, 5)
    assert metric(servers[0], 'estiba_limits_without_store_total{decision="local"}') == 40
    redis.start()
    assert until(lambda: detail(servers[0]) == "" and detail(servers[1]) == "", 5)
    found = both(servers, 40)
    assert (found.count(200), found.count(429)) == (60, 180)
    log = servers[0].log.read_text()
    assert log.count("the store of the limits cannot be reached") == 1
    assert log.count("the store of the limits can be reached again") == 1
    assert "geheim" not in log


def test_a_redis_that_hangs_delays_no_request_for_long(redis: Redis, start_server: Callable[..., Live]) -> None:
    live = start_server("price", gateway=limits(redis, timeout=0.05, rate=100_000, concurrent=50))
    assert ask(live) == 200
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    times = []
    with httpx.Client(base_url=live.url) as client:
        for _ in range(200):
            began = time.monotonic()
            assert client.post("/predict", json=ROW).status_code == 200
            times.append(time.monotonic() - began)
    assert sorted(times)[-3] < 0.1
    assert max(times) < 0.5
    redis.process.send_signal(signal.SIGCONT)
    assert until(lambda: detail(live) == "", 5)
    assert until(lambda: redis.ask("HVALS", "estiba:limits:key::held") == "0", 5)


@pytest.mark.parametrize(("without_store", "status"), [("open", 200), ("closed", 503)])
def test_what_happens_without_redis_is_a_setting(
    redis: Redis, start_server: Callable[..., Live], without_store: str, status: int
) -> None:
    redis.stop()
    live = start_server("price", gateway=limits(redis, rate=0.01, burst=1, rows_per_day=5, without_store=without_store))
    assert [ask(live) for _ in range(3)] == [status] * 3
    redis.start()
    assert until(lambda: detail(live) == "", 5)
    assert [ask(live) for _ in range(2)] == [200, 429]


def test_a_wrong_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://db", "redis://", "redis://db/zero", "db:6379", "redis://db:port/0"):
        with pytest.raises(BadProject, match=r"gateway\.limits\.store: this is not the URL of a Redis server"):
            check_limits(LimitsOptions(store=url))
    assert StoreAddress.of("rediss://ada:g%40h@db") == StoreAddress("db", 6379, True, ("ada", "g@h"), 0)
    monkeypatch.setenv("ESTIBA_LIMITS_STORE", "redis://db/2")
    assert gateway_of(GatewayOptions(), ServerOptions(), "").limits.store == "redis://db/2"


def test_a_redis_that_is_full_is_one_that_cannot_be_asked(redis: Redis, start_server: Callable[..., Live]) -> None:
    live = start_server("price", gateway=limits(redis, rate=0.01, burst=4, without_store="open"))
    assert ask(live) == 200
    redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    assert "OOM" in redis.ask("SET", "a", "1")
    assert [ask(live) for _ in range(10)] == [200] * 10
    assert metric(live, 'estiba_limits_without_store_total{decision="open"}') == 10
    redis.ask("CONFIG", "SET", "maxmemory", "0")
    assert until(lambda: [ask(live) for _ in range(5)][-1] == 429, 5)
