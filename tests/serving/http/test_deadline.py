"""A caller may shorten its deadline, and expired work never reaches the model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from slow_server import seen, slow_server
from toys import Live

from estiba.core.errors import BadRequest
from estiba.serving.http.deadline import Expired, check, deadline
from estiba.serving.http.request import Request


def request(timeout: bytes = b"") -> Request:
    made = Request(b"POST", b"/predict", b"", [])
    made.timeout = timeout
    made.arrived_at = 1000.0
    return made


@pytest.mark.parametrize(("said", "seconds"), [(b"2.5", 2.5), (b"0.001", 0.001), (b"29", 29), (b"999999", 30)])
def test_a_caller_may_ask_for_less_than_the_server_s_limit(said: bytes, seconds: float) -> None:
    assert deadline(request(said), 30) == pytest.approx(1000 + seconds)
    assert deadline(request(), 30) == 1030


@pytest.mark.parametrize("said", [b"0", b"-1", b"0.0", b"1e3", b"nan", b"inf", b"1_0", b" 1", b"5s", b"1234567"])
def test_what_is_no_number_of_seconds_is_refused(said: bytes) -> None:
    with pytest.raises(BadRequest, match="X-Request-Timeout"):
        deadline(request(said), 30)


def test_checking() -> None:
    check(time.perf_counter() + 10)
    with pytest.raises(Expired) as found:
        check(time.perf_counter() - 0.001)
    assert (found.value.status, bool(found.value.hint)) == (504, True)


def test_a_wrong_timeout_is_the_caller_s_fault(http: Any) -> None:
    answer = http.post("/models/price/predict", json={"x": 1.0}, headers={"x-request-timeout": "soon"})
    assert answer.status_code == 400
    assert "X-Request-Timeout" in answer.json()["detail"]


@pytest.mark.slow
def test_a_call_that_expires_in_the_queue_is_told_so_and_never_asked(tmp_path: Path) -> None:
    with slow_server(tmp_path, 0.01) as live, ThreadPoolExecutor(4) as pool:
        ask = pool.submit(httpx.post, f"{live.url}/predict", json={"records": [{"x": 1.0}] * 200}, timeout=10)
        time.sleep(0.3)  # it computes for two seconds
        began = time.monotonic()
        late = httpx.post(f"{live.url}/predict", json={"x": 2.0}, headers={"x-request-timeout": "0.2"})
        waited = time.monotonic() - began
        patient = httpx.post(f"{live.url}/predict", json={"x": 3.0}, headers={"x-request-timeout": "20"}, timeout=10)
        metrics = httpx.get(f"{live.url}/metrics").text
    assert (late.status_code, late.json()["type"]) == (504, "urn:estiba:problem:deadline")
    assert 0.2 <= waited < 1.5  # it is told while the model still computes
    assert (ask.result().status_code, patient.status_code) == (200, 200)
    assert seen(tmp_path) == [1] * 200 + [3]
    assert 'estiba_rejected_total{model="price",reason="deadline"} 1' in metrics
    assert 'estiba_queue_rows{model="price"} 0' in metrics


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 9000])
def test_neither_small_nor_large_bodies_are_asked_too_late(start_server: Callable[..., Live], rows: int) -> None:
    live = start_server("price", request_timeout=0.000001)
    body = json.dumps({"records": [{"x": 1.0}] * rows})
    answer = httpx.post(f"{live.url}/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 504
    metrics = httpx.get(f"{live.url}/metrics").text
    assert 'estiba_rows_total{model="price",version="1"} 0' in metrics
    assert 'code="504"} 1' in metrics
