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
from open_loop import LoadResults, OpenLoop
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
    """Rows with the request's number; every second request has a short timeout."""
    records = [{"x": float(number)}] * ROWS
    timeout = b"X-Request-Timeout: 0.4\r\n" if number % 2 else b""
    return post(json.dumps({"records": records}).encode(), path="/predict", extra=timeout)


@dataclass
class OverloadResults:
    """The results of a period of overload."""

    results: LoadResults
    reached: Counter[int]
    health: list[tuple[int, float]]
    resident: list[int]
    calm: list[float]
    metrics: str


async def watch(live: Live, health: list[tuple[int, float]], resident: list[int]) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=10) as client:
        while True:
            began = time.monotonic()
            answer = await client.get("/health/ready")
            health.append((answer.status_code, time.monotonic() - began))
            resident.append(live.resident())
            await asyncio.sleep(0.1)


async def overload_server(live: Live, health: list[tuple[int, float]], resident: list[int]) -> LoadResults:
    await OpenLoop(live.port, body, CAPACITY * 5).run(0.5)  # memory that it needs in any case is allocated now
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
def overload(tmp_path_factory: pytest.TempPathFactory) -> OverloadResults:
    folder = tmp_path_factory.mktemp("overload")
    health: list[tuple[int, float]] = []
    resident: list[int] = []
    with slow_server(folder, PER_ROW, max_queued_rows=400, request_timeout=5) as live:
        found = asyncio.run(overload_server(live, health, resident))
        assert until(lambda: 'estiba_queue_rows{model="price"} 0' in httpx.get(f"{live.url}/metrics").text, 10)
        calm = [seconds_of_one(live) for _ in range(5)]
        metrics = httpx.get(f"{live.url}/metrics").text
    return OverloadResults(found, Counter(seen(folder)), health, resident, calm, metrics)


def test_every_request_is_answered(overload: OverloadResults) -> None:
    assert overload.results.lost == []
    assert len(overload.results.answers) == int(SECONDS * CAPACITY * 5)
    assert {answer.status for answer in overload.results.answers} == {200, 503, 504}


def test_the_model_is_kept_busy_with_what_is_answered(overload: OverloadResults) -> None:
    done = overload.results.of(200)
    assert len(done) > SECONDS * CAPACITY / 3
    assert all(overload.reached[answer.number + 10**6] == ROWS for answer in done)


def test_refused_requests_get_retry_after_at_once(overload: OverloadResults) -> None:
    refused = overload.results.of(503)
    assert refused
    assert all("\r\nretry-after: 1\r\n" in answer.head for answer in refused)
    assert sorted(answer.seconds for answer in refused)[len(refused) // 2] < 0.2


def test_neither_refused_nor_expired_work_reaches_the_model(overload: OverloadResults) -> None:
    expired = overload.results.of(504)
    assert expired
    assert all(answer.number % 2 for answer in expired)
    assert not any(overload.reached[answer.number + 10**6] for answer in (*expired, *overload.results.of(503)))


def test_the_metrics_say_the_same(overload: OverloadResults) -> None:
    samples = [line.rpartition(" ") for line in overload.metrics.splitlines() if line[0] != "#"]
    counts = {series: float(value) for series, _, value in samples}
    reasons = {503: "full", 504: "deadline"}
    for status, reason in reasons.items():  # the counters include the warm-up of half a second
        assert counts[f'estiba_rejected_total{{model="price",reason="{reason}"}}'] >= len(overload.results.of(status))
    assert counts['estiba_requests_in_flight{model="price"}'] == 0
    assert counts['estiba_rows_total{model="price",version="1"}'] == sum(overload.reached.values())


def test_health_checks_are_answered_in_time(overload: OverloadResults) -> None:
    assert len(overload.health) >= SECONDS * 2
    assert {status for status, _ in overload.health} == {200}
    assert sorted(seconds for _, seconds in overload.health)[len(overload.health) // 2] < 0.2


def test_memory_stays_flat(overload: OverloadResults) -> None:
    assert max(overload.resident) - overload.resident[0] < 16 * 2**20


def test_after_the_storm_it_is_fast_again(overload: OverloadResults) -> None:
    assert sorted(overload.calm)[2] < 0.2
