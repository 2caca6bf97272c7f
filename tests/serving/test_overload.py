"""Several times more than the model can do: refusals are quick and honest, memory stays flat, and it passes.

ESTIBA_OVERLOAD_SECONDS makes the storm longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from dataclasses import dataclass

import httpx
import pytest
from open_loop import OpenLoop, Storm
from raw import post
from slow_server import seen, slow_server
from toys import Live, until

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("ESTIBA_OVERLOAD_SECONDS", "3"))
ROWS = 10
PER_ROW = 0.002
CAPACITY = 1 / (ROWS * PER_ROW)
"""Requests a second."""


def body(number: int) -> bytes:
    """Rows that bear the request's number; every second caller has little patience."""
    records = [{"x": float(number)}] * ROWS
    patience = b"X-Request-Timeout: 0.4\r\n" if number % 2 else b""
    return post(json.dumps({"records": records}).encode(), path="/predict", extra=patience)


@dataclass
class Weather:
    """The results of a period of overload."""

    storm: Storm
    reached: Counter[int]
    health: list[tuple[int, float]]
    resident: list[int]
    calm: list[float]
    metrics: str


async def watch(live: Live, weather: list[tuple[int, float]], resident: list[int]) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=10) as client:
        while True:
            began = time.monotonic()
            answer = await client.get("/health/ready")
            weather.append((answer.status_code, time.monotonic() - began))
            resident.append(live.resident())
            await asyncio.sleep(0.1)


async def storm(live: Live, health: list[tuple[int, float]], resident: list[int]) -> Storm:
    await OpenLoop(live.port, body, CAPACITY * 5).run(0.5)  # what it needs at all, it has now
    watching = asyncio.create_task(watch(live, health, resident))
    found = await OpenLoop(live.port, lambda n: body(n + 10**6), CAPACITY * 5).run(SECONDS)
    watching.cancel()
    return found


def seconds_of_one(live: Live) -> float:
    began = time.monotonic()
    answer = httpx.post(f"{live.url}/predict", json={"x": -1.0})
    assert answer.status_code == 200
    return time.monotonic() - began


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Weather:
    folder = tmp_path_factory.mktemp("storm")
    health: list[tuple[int, float]] = []
    resident: list[int] = []
    with slow_server(folder, PER_ROW, max_queued_rows=400, request_timeout=5) as live:
        found = asyncio.run(storm(live, health, resident))
        assert until(lambda: 'estiba_queue_rows{model="price"} 0' in httpx.get(f"{live.url}/metrics").text, 10)
        calm = [seconds_of_one(live) for _ in range(5)]
        metrics = httpx.get(f"{live.url}/metrics").text
    return Weather(found, Counter(seen(folder)), health, resident, calm, metrics)


def test_every_request_is_answered_and_honestly(weather: Weather) -> None:
    assert weather.storm.lost == []
    assert len(weather.storm.answers) == int(SECONDS * CAPACITY * 5)
    assert {answer.status for answer in weather.storm.answers} == {200, 503, 504}


def test_the_model_is_kept_busy_with_what_is_answered(weather: Weather) -> None:
    done = weather.storm.of(200)
    assert len(done) > SECONDS * CAPACITY / 3
    assert all(weather.reached[answer.number + 10**6] == ROWS for answer in done)


def test_who_is_refused_is_told_at_once_when_to_come_back(weather: Weather) -> None:
    refused = weather.storm.of(503)
    assert refused
    assert all("\r\nretry-after: 1\r\n" in answer.head for answer in refused)
    assert sorted(answer.seconds for answer in refused)[len(refused) // 2] < 0.2


def test_neither_refused_nor_expired_work_reaches_the_model(weather: Weather) -> None:
    expired = weather.storm.of(504)
    assert expired
    assert all(answer.number % 2 for answer in expired)
    assert not any(weather.reached[answer.number + 10**6] for answer in (*expired, *weather.storm.of(503)))


def test_the_metrics_say_the_same(weather: Weather) -> None:
    samples = [line.rpartition(" ") for line in weather.metrics.splitlines() if line[0] != "#"]
    counts = {series: float(value) for series, _, value in samples}
    reasons = {503: "full", 504: "deadline"}
    for status, reason in reasons.items():  # those of half a second before are among them
        assert counts[f'estiba_rejected_total{{model="price",reason="{reason}"}}'] >= len(weather.storm.of(status))
    assert counts['estiba_requests_in_flight{model="price"}'] == 0
    assert counts['estiba_rows_total{model="price",version="1"}'] == sum(weather.reached.values())


def test_health_is_told_truly_and_in_time(weather: Weather) -> None:
    assert len(weather.health) >= SECONDS * 2
    assert {status for status, _ in weather.health} == {200}
    assert sorted(seconds for _, seconds in weather.health)[len(weather.health) // 2] < 0.2


def test_memory_stays_flat(weather: Weather) -> None:
    assert max(weather.resident) - weather.resident[0] < 16 * 2**20


def test_after_the_storm_it_is_fast_again(weather: Weather) -> None:
    assert sorted(weather.calm)[2] < 0.2
