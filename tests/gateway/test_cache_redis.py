"""The cache of answers in a real Redis, which is stopped, hangs, is restarted, refuses and holds nonsense."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from redis_server import Redis, redis_server
from toys import Live, until

from estiba.core.errors import BadProject
from estiba.gateway.options import CacheOptions, GatewayOptions, check_cache, gateway_of
from estiba.serving.options import ServerOptions

pytestmark = pytest.mark.slow

PATTERN = "estiba:cache:price:*"


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module")
def servers(redis: Redis, start_server: Callable[..., Live]) -> list[Live]:
    """Two servers of one Redis. Their patience is that of a busy machine."""
    policies = {"cache": {"enabled": True, "ttl": 100, "store": redis.url, "timeout": 0.5}}
    found = [start_server("price", gateway=policies, workers=workers) for workers in (1, 2)]
    assert until(lambda: all(ask(live, 0.0).startswith("hit") for live in found), 5)
    return found


def ask(live: Live, value: float) -> str:
    """The Cache-Status of an answer, which must be the model's own."""
    answer = httpx.post(f"{live.url}/predict", json={"x": value}, timeout=10)
    assert (answer.status_code, answer.json()["value"]) == (200, pytest.approx(value / 100))
    return answer.headers["cache-status"].removeprefix("estiba; ")


def detail(live: Live) -> str:
    return str(httpx.get(f"{live.url}/health/ready").json().get("detail", ""))


def names(redis: Redis) -> list[str]:
    return redis.ask("KEYS", PATTERN).split()


def test_what_one_server_computed_others_know(redis: Redis, servers: list[Live]) -> None:
    one, other = servers
    assert ask(one, 1.0) == "fwd=uri-miss; stored"
    assert until(lambda: ask(other, 1.0).startswith("hit; ttl=9"), 2)
    assert ask(one, 1.0).startswith("hit; ttl=9")
    times = [int(redis.ask("PTTL", name)) for name in names(redis)]
    assert all(0 < each <= 100_000 for each in times)


@pytest.mark.parametrize("change", ["another value", "shorter", "a bit", "text", "a list", "of another row"])
def test_a_value_that_is_none_is_computed_again(redis: Redis, servers: list[Live], change: str) -> None:
    redis.ask("FLUSHDB")
    ask(servers[0], 2.0)
    (name,) = names(redis)
    good = redis.ask("--no-raw", "GET", name)
    match change:
        case "another value":
            redis.ask("SET", name, "1")
        case "shorter":
            redis.ask("EVAL", "redis.call('SET', KEYS[1], string.sub(redis.call('GET', KEYS[1]), 1, -2))", "1", name)
        case "a bit":
            redis.ask("SETBIT", name, str(8 * 14), "1" if redis.ask("GETBIT", name, str(8 * 14)) == "0" else "0")
        case "text":
            redis.ask("SET", name, "Ünsinn " * 20)
        case "a list":
            redis.ask("DEL", name)
            redis.ask("LPUSH", name, "x")
        case _:
            ask(servers[0], 3.0)
            (other,) = [each for each in names(redis) if each != name]
            redis.ask("EVAL", "redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]))", "2", name, other)
    assert redis.ask("--no-raw", "GET", name) != good
    assert ask(servers[0], 2.0) == "fwd=uri-miss; stored"
    assert until(lambda: ask(servers[1], 2.0).startswith("hit"), 2)


def test_a_redis_that_refuses_to_write_is_read_all_the_same(redis: Redis, servers: list[Live]) -> None:
    ask(servers[0], 4.0)
    redis.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        for value in (5.0, 5.0, 6.0):
            assert ask(servers[0], value).startswith("fwd=uri-miss")
        assert ask(servers[0], 4.0).startswith("hit")
        assert detail(servers[0]) == ""
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", "0")
    assert servers[0].log.read_text().count("the store of the cache refuses commands") == 1


def test_a_redis_that_hangs_stops_or_comes_back_harms_nothing(redis: Redis, servers: list[Live]) -> None:
    live = servers[0]
    assert redis.process is not None
    messages = [f"the store of the cache {said}" for said in ("cannot be reached", "can be reached again")]
    before = [live.log.read_text().count(each) for each in messages]
    redis.process.send_signal(signal.SIGSTOP)
    times = []
    for number in range(30):
        began = time.monotonic()
        ask(live, 100.0 + number)
        times.append(time.monotonic() - began)
    assert sorted(times)[-1] < 1.0  # the first waits for the timeout
    assert sorted(times)[-2] < 0.4  # and then none does
    text = "The store of the cache cannot be reached. The server's log says why."
    assert detail(live) == text
    metrics = f"{live.url}/metrics"
    assert until(lambda: "estiba_cache_store_failing 1" in httpx.get(metrics).text, 3)
    redis.process.send_signal(signal.SIGCONT)
    assert until(lambda: detail(live) == "", 5)
    redis.stop()
    assert [ask(live, value) for value in (201.0, 201.0)] == ["fwd=uri-miss"] * 2
    assert until(lambda: detail(live) == text, 3)
    redis.start()
    assert until(lambda: detail(live) == "", 5)
    assert ask(live, 202.0) == "fwd=uri-miss; stored"
    assert ask(live, 202.0).startswith("hit")
    assert [live.log.read_text().count(each) for each in messages] == [count + 2 for count in before]


def test_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadProject, match=r"gateway\.cache\.store: this is not the URL of a Redis server"):
        check_cache(CacheOptions(store="memcached://somewhere"))
    with pytest.raises(BadProject, match="both store and service"):
        check_cache(CacheOptions(store="redis://db/1", service="redis"))
    monkeypatch.setenv("ESTIBA_CACHE_STORE", "redis://db/4")
    options = GatewayOptions(cache=CacheOptions(enabled=True))
    assert gateway_of(options, ServerOptions(), "").cache.store == "redis://db/4"
    monkeypatch.setenv("ESTIBA_CACHE_STORE", "db")
    with pytest.raises(BadProject, match=r"\$ESTIBA_CACHE_STORE: this is not the URL"):
        gateway_of(options, ServerOptions(), "")
