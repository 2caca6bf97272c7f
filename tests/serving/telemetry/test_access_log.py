"""The access log has a line for each request, within limits, and no feature values."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from raw import Reader, post, price
from toys import CHURN_ROW, SUPPORT, Live, until

from estiba.core.log import Log
from estiba.serving.http.request import Request
from estiba.serving.http.trace_context import trace_id
from estiba.serving.telemetry.access_log import ATOMIC_BYTES, AccessLog, is_probe, template
from estiba.serving.telemetry.metrics import Metrics

pytestmark = pytest.mark.slow

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


def lines(live: Live, wanted: int = 1) -> list[dict[str, Any]]:
    """Lines of requests, once there are so many."""

    def found() -> list[dict[str, Any]]:
        all_lines = map(json.loads, live.log.read_text().splitlines())
        return [line for line in all_lines if line["message"] == "request"]

    assert until(lambda: len(found()) >= wanted), live.log.read_text()
    return found()


def test_a_prediction_s_line(start_server: Callable[..., Live]) -> None:
    live = start_server("churn")
    headers = {"x-request-id": "mine", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    rows = [CHURN_ROW, {**CHURN_ROW, "balance": 777123.25}]
    httpx.post(f"{live.url}/models/churn/versions/1/predict?why=1", json={"records": rows}, headers=headers)
    (line,) = lines(live)
    assert line.pop("timestamp").endswith("Z")
    assert 0 < line.pop("duration_ms") < 10_000
    about = {"model": "churn", "model_version": "1", "protocol": "native", "rows": 2}
    request = {"method": "POST", "route": "/models/{name}/versions/{version}/predict", "status": 200}
    ids = {"request_id": "mine", "trace_id": TRACE}
    assert line == {"level": "info", "message": "request", **request, **ids, **about}
    assert "777123" not in live.log.read_text()


def test_failures_and_other_requests_have_lines_and_probes_have_none(start_server: Callable[..., Live]) -> None:
    live = start_server("churn")
    for path in ("/health", "/health/ready", "/livez", "/metrics", "/v2/health/live", "/ping", "/models/churn"):
        assert httpx.get(live.url + path).status_code == 200
    httpx.get(f"{live.url}/nowhere/secret")
    httpx.post(f"{live.url}/predict", json={"age": "secret"})
    with live.connect() as sock:
        sock.sendall(b"secret\r\n\r\n")
        assert Reader(sock).answer()
    found = [(line.get("method"), line.get("route"), line["status"]) for line in lines(live, 4)]
    expected = [("GET", "/models/{name}", 200), ("GET", None, 404), ("POST", "/predict", 422), (None, None, 400)]
    assert found == expected
    assert "secret" not in live.log.read_text()


def test_a_share_of_none_leaves_failures_of_the_server(start_server: Callable[..., Live]) -> None:
    live = start_server("price", access_log=0)
    for x in (1.0, "wrong", -99.0):
        httpx.post(f"{live.url}/predict", json={"x": x})
    (line,) = lines(live)
    assert (line["level"], line["status"]) == ("warning", 500)
    reasons = [json.loads(text) for text in live.log.read_text().splitlines() if "secret-of-the-house" in text]
    assert [reason["request_id"] for reason in reasons] == [line["request_id"]]


def skipped(client: httpx.Client) -> int:
    found = re.search(r"^estiba_log_lines_skipped_total (\d+)$", client.get("/metrics").text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_lines_beyond_the_limit_are_counted_instead(start_server: Callable[..., Live]) -> None:
    live = start_server("price", access_log_limit=5)
    with httpx.Client(base_url=live.url) as client:
        statuses = [client.post("/predict", json={"x": x}).status_code for x in [1.0] * 20 + [-99.0] * 8]
        assert statuses == [200] * 20 + [500] * 8
        assert until(lambda: skipped(client) + len(lines(live)) == 28)
        before = [line["status"] for line in lines(live)]
        assert before[:5] == [200] * 5
        assert 5 <= before.count(500) < 8 or before.count(200) < 20
        client.post("/predict", json={"x": 1.0})
    assert len(lines(live, len(before) + 1)) == len(before) + 1


def test_a_log_that_nobody_reads_costs_no_answer(toy_registry: Path) -> None:
    settings = {"access_log_limit": 100_000}
    spec = {"registry": str(toy_registry), "models": ["price"], "settings": settings}
    command = [sys.executable, str(SUPPORT / "toy_server.py"), msgspec.json.encode(spec).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        live = Live(process, int(process.stdout.readline().rsplit(":", 1)[1]), Path())
        with live.connect() as sock:
            reader = Reader(sock)
            for _ in range(100):  # far more than a pipe holds
                sock.sendall(post() * 16)
                assert [price(reader.answer()) for _ in range(16)] == [0.01] * 16
        process.terminate()
        written = process.communicate(timeout=15)[1].splitlines()
    assert process.returncode == 0
    assert {json.loads(line)["status"] for line in written} == {200}
    assert len(written) <= 1600


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no pipes that keep each write apart")
def test_lines_stay_whole_and_together_as_far_as_a_pipe_keeps_them() -> None:
    made = [str(n) * (n * 100) + "\n" for n in range(1, 10)] * 5 + ["x" * 9000 + "\n"]
    waiting, packets = deque(made), list[bytes]()
    source, target = os.pipe2(os.O_DIRECT)  # a read gets one write, or the next 4096 bytes of a longer one
    with os.fdopen(source, "rb", buffering=0) as reader, os.fdopen(target, "w") as stream:
        os.set_blocking(source, False)
        capacity = fcntl.fcntl(target, fcntl.F_GETPIPE_SZ)
        log = AccessLog(Log("json", stream), 1.0, 100, Metrics().slot("estiba_log_lines_skipped_total"))
        while waiting:
            before = len(packets)
            log._drain(waiting, threading.Event())
            while packet := reader.read(capacity):
                packets.append(packet)
            assert 0 < sum(map(len, packets[before:])) <= capacity // 4
    assert b"".join(packets).decode() == "".join(made)
    together, long = packets[:-3], packets[-3:]
    assert [len(packet) for packet in long] == [ATOMIC_BYTES, ATOMIC_BYTES, 9001 - 2 * ATOMIC_BYTES]
    assert all(packet.endswith(b"\n") for packet in together)
    for packet, following in pairwise(together):
        assert len(packet) + following.index(b"\n") + 1 > ATOMIC_BYTES


def traced(*said: str) -> str:
    return trace_id(Request(b"GET", b"/", b"", [(b"traceparent", value.encode()) for value in said]))


@pytest.mark.parametrize("form", ["00-{}-{}-01", "00-{}-{}-00", "00-{}-{}-ff", "01-{}-{}-01", "cc-{}-{}-01-more"])
def test_a_valid_trace(form: str) -> None:
    assert traced(form.format(TRACE, PARENT)) == TRACE


@pytest.mark.parametrize(
    "said",
    [
        "",
        "junk",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"cc-{TRACE}-{PARENT}-01more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f" 00-{TRACE}-{PARENT}-01",
    ],
)
def test_an_invalid_trace_is_ignored(said: str) -> None:
    assert traced(said) == ""


def test_two_traces_are_none() -> None:
    assert traced() == traced(*[f"00-{TRACE}-{PARENT}-01"] * 2) == ""


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/predict", "/predict"),
        ("/models/models/predict", "/models/{name}/predict"),
        ("/models/m/versions/7/predict", "/models/{name}/versions/{version}/predict"),
        ("/v2/models/m/versions/7/infer", "/v2/models/{name}/versions/{version}/infer"),
        ("/v1/models/m:predict", "/v1/models/{name}:predict"),
    ],
)
def test_the_route_of_a_path(path: str, route: str) -> None:
    assert template(path) == route


def test_probes() -> None:
    assert is_probe(b"/v2/models/m/ready")
    assert not is_probe(b"/predict")
