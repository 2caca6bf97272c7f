"""The supervisor under constant load: killed, stopped, starved and replaced workers, newer versions, the end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from constant_load import Load
from sklearn.linear_model import LogisticRegression

import estiba
from estiba.model.registry import open_registry

RECORD = {"x0": 0.5, "x1": -1.0}
BODY = {"records": [RECORD]}


def pack(registry: Path, shift: float = 0.0) -> estiba.Packed:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 2)) + shift
    model = LogisticRegression().fit(rows, (rows[:, 0] > shift).astype(int))
    return estiba.pack(model, rows, name="toy", registry=registry)


class Server:
    """`estiba serve` as a user starts it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def workers(self) -> list[int]:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def metric(self, name: str) -> float:
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def wait(self, condition: object, seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():  # type: ignore[operator]
                return
            time.sleep(0.05)
        pytest.fail("it did not happen in time")


@contextmanager
def serving(registry: Path, *options: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "estiba", "serve", "toy", "--registry", str(registry), "--port", "0", *options]
    log = registry.parent / "server.log"
    with log.open("w") as errors:  # a pipe that nobody reads would fill up, and stop the server
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "http://127.0.0.1:" in line:
                yield Server(process, int(line.split("http://127.0.0.1:")[1].split()[0].strip("/")))
                break
        else:
            pytest.fail(f"the server did not start: {log.read_text()}")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    pack(tmp_path / "registry")
    return tmp_path / "registry"


def test_a_killed_worker_costs_only_what_it_was_answering(registry: Path) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            await asyncio.sleep(0.5)
            os.kill(server.workers()[0], signal.SIGKILL)
            await asyncio.sleep(2)
        assert not tally.lost
        assert set(tally.statuses) <= {200, 503}
        assert tally.statuses[503] <= 8
        assert tally.slowest < 2

    with serving(registry, "--workers", "2") as server:
        asyncio.run(run(server))
        server.wait(lambda: json.loads(server.get("/health")[1])["workers"]["ready"] == 2)
        assert server.metric("estiba_worker_restarts_total") == 1


def test_the_only_worker_killed_is_replaced_while_clients_wait(registry: Path) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY, connections=4) as tally:
            await asyncio.sleep(0.5)
            os.kill(server.workers()[0], signal.SIGKILL)
            await asyncio.sleep(3)
        assert not tally.lost
        assert set(tally.statuses) <= {200, 503}
        assert tally.statuses[503] <= 8

    with serving(registry, "--workers", "1") as server:
        asyncio.run(run(server))


def test_a_stopped_worker_is_noticed_within_two_seconds(registry: Path) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            await asyncio.sleep(0.5)
            os.kill(server.workers()[0], signal.SIGSTOP)
            await asyncio.sleep(3)
        assert not tally.lost
        assert set(tally.statuses) <= {200, 503}
        assert tally.slowest < 2

    with serving(registry, "--workers", "2") as server:
        asyncio.run(run(server))
        assert server.metric("estiba_worker_restarts_total") == 1


def test_a_starved_worker_is_slow_but_left_alone(registry: Path) -> None:
    """A worker that only waits for a processor is not dead: replacing it would make matters worse."""
    with serving(registry, "--workers", "1") as server:
        for pid in server.workers():
            os.setpriority(os.PRIO_PROCESS, pid, 19)
        hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
        time.sleep(3)
        for hog in hogs:
            hog.kill()
            hog.wait()
        assert server.get("/health/ready")[0] == 200
        assert server.metric("estiba_worker_restarts_total") == 0


def test_replacing_all_workers_loses_nothing(registry: Path) -> None:
    async def run(server: Server) -> None:
        before = set(server.workers())
        async with Load(server.port, "/predict", BODY) as tally:
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(4)
        assert not tally.lost
        assert set(tally.statuses) == {200}
        assert not before & set(server.workers())

    with serving(registry, "--workers", "2") as server:
        asyncio.run(run(server))


def test_a_newer_version_is_taken_into_service_without_loss(registry: Path) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(pack, registry, 0.3)
            await asyncio.to_thread(server.wait, lambda: tally.versions["2"] > 50)
        assert not tally.lost
        assert set(tally.statuses) == {200}
        assert set(tally.versions) == {"1", "2"}

    with serving(registry, "--workers", "2") as server:
        asyncio.run(run(server))
        assert json.loads(server.get("/models")[1])["models"][0]["version"] == "2"


def test_a_bad_version_leaves_the_old_one_serving(registry: Path) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            packed = pack(registry, 0.3)
            (packed.artifact.path / "golden.json").chmod(0o644)
            (packed.artifact.path / "golden.json").write_bytes(b"{}")
            open_registry(registry).set_alias("toy", "production", packed.version)
            await asyncio.to_thread(server.wait, lambda: server.metric("estiba_swap_failures_total") > 0)
        assert not tally.lost
        assert set(tally.versions) == {"1"}

    with serving(registry, "--workers", "2") as server:
        asyncio.run(run(server))
        server.wait(lambda: "golden.json" in server.get("/models")[1])
        model = json.loads(server.get("/models")[1])["models"][0]
        assert model["version"] == "1"
        assert "golden.json" in model["refused"]
        assert server.get("/health/ready")[0] == 200


def test_sigterm_answers_everything_and_ends_with_zero(registry: Path) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.process.wait, 20)
        assert {loss for loss in tally.lost if not loss.startswith("connect")} == set()
        assert set(tally.statuses) == {200}

    with serving(registry, "--workers", "2") as server:
        asyncio.run(run(server))
        assert server.process.returncode == 0


def test_the_announced_delay_says_not_ready_and_answers(registry: Path) -> None:
    with serving(registry, "--workers", "1", "--shutdown-delay", "3") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.get("/health/ready")[0] == 503, 3)
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/predict", json.dumps(BODY).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200
        assert server.process.wait(20) == 0


def test_liveness_fails_when_workers_keep_dying(registry: Path) -> None:
    with serving(registry, "--workers", "1") as server:
        for count in range(1, 6):
            server.wait(lambda: bool(server.workers()))
            for pid in server.workers():
                os.kill(pid, signal.SIGKILL)
            server.wait(lambda count=count: server.metric("estiba_worker_restarts_total") >= count)
        server.wait(lambda: server.get("/health/live")[0] == 503)


def test_a_worker_that_started_during_a_swap_is_not_left_behind(registry: Path) -> None:
    """SIGHUP starts fresh workers of the old version; the switch happens before they are ready."""

    def versions(server: Server) -> set[str]:
        return {ask(server).headers["x-model-version"] for _ in range(20)}

    with serving(registry, "--workers", "2") as server:
        server.process.send_signal(signal.SIGHUP)
        pack(registry, 0.3)
        server.wait(lambda: versions(server) == {"2"})
        time.sleep(2)
        assert versions(server) == {"2"}


def test_a_signal_to_the_whole_group_still_drains(registry: Path) -> None:
    """systemd and terminals signal every process of the group, not the supervisor alone."""
    with serving(registry, "--workers", "1", "--shutdown-delay", "2") as server:
        for pid in (*server.workers(), server.process.pid):
            os.kill(pid, signal.SIGTERM)
        server.wait(lambda: server.get("/health/ready")[0] == 503, 3)
        assert ask(server).status == 200
        assert server.process.wait(20) == 0


def test_a_client_that_reads_slowly_keeps_its_answer_when_workers_are_replaced(registry: Path) -> None:
    body = json.dumps({"records": [RECORD] * 60_000}).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with serving(registry, "--workers", "1") as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
        client.sendall(head.encode() + body)
        received = client.recv(4096)
        server.process.send_signal(signal.SIGHUP)
        time.sleep(2)
        start, _, begun = received.partition(b"\r\n\r\n")
        length = int(start.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        parts, missing = [begun], length - len(begun)
        while missing:
            parts.append(client.recv(1 << 20))
            assert parts[-1], f"the answer was cut off: {missing} of {length} bytes are missing"
            missing -= len(parts[-1])
        assert len(json.loads(b"".join(parts))["predictions"]) == 60_000


def test_stopping_does_not_wait_for_a_worker_that_is_not_there(registry: Path) -> None:
    with serving(registry, "--workers", "1") as server:
        for count in range(1, 4):
            server.wait(lambda: bool(server.workers()))
            os.kill(server.workers()[0], signal.SIGKILL)
            server.wait(lambda count=count: server.metric("estiba_worker_restarts_total") >= count)
        os.kill(server.workers()[0], signal.SIGKILL)
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 5


def ask(server: Server) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/predict", json.dumps(BODY).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()
        return answer
