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
from pathlib import Path

import httpx
import pytest
from constant_load import Load
from supervised import BODY, RECORD, Server, ask, pack, serving

from estiba.model.registry.registry import open_registry

pytestmark = pytest.mark.slow


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


def test_a_stopped_worker_is_noticed_at_once(registry: Path) -> None:
    """After 0.3 s, of which the clients that it was answering hear with a 503; the bound leaves room for neighbours."""

    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            await asyncio.sleep(0.5)
            os.kill(server.workers()[0], signal.SIGSTOP)
            await asyncio.sleep(3)
        assert not tally.lost
        assert set(tally.statuses) <= {200, 503}
        assert tally.slowest < 1.2

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
            await asyncio.to_thread(server.wait, lambda: not before & set(server.workers()))
            await asyncio.sleep(0.5)
        assert not tally.lost
        assert set(tally.statuses) == {200}

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


def test_the_registry_is_asked_as_often_as_the_settings_say(registry: Path) -> None:
    with serving(registry, "--workers", "1", settings={"poll": 6.0}) as server:
        pack(registry, 0.3)
        time.sleep(1.2)
        assert ask(server).headers["x-model-version"] == "1"
        server.wait(lambda: ask(server).headers["x-model-version"] == "2")


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
        assert str(registry) not in model["refused"]
        assert str(registry) in server.log.read_text()
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


@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.05])
def test_sigterm_again_and_again_ends_with_zero_and_leaves_nothing(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serving(registry, "--workers", "1") as server:
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(seconds)
        assert server.process.returncode == 0
    assert list(tmp_path.glob("estiba-server-*")) == []


def test_what_a_killed_server_left_is_removed_by_the_next_and_what_a_live_one_holds_is_not(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    foreign = tmp_path / "estiba-server-made-by-hand"
    foreign.mkdir()
    with serving(registry, "--workers", "1") as killed:
        (left,) = set(tmp_path.glob("estiba-server-*")) - {foreign}
        time.sleep(1.1)
        killed.process.kill()
    assert left.exists()
    with serving(registry, "--workers", "1") as first:
        assert not left.exists()
        (held,) = set(tmp_path.glob("estiba-server-*")) - {foreign}
        time.sleep(1.1)
        with serving(registry, "--workers", "1"):
            assert held.exists()
        assert ask(first).status == 200
    assert foreign.exists()


def test_the_announced_delay_says_not_ready_and_answers(registry: Path) -> None:
    with serving(registry, "--workers", "1", "--shutdown-delay", "3") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.get("/health/ready")[0] == 503, 3)
        assert ask(server).status == 200
        assert server.process.wait(20) == 0


def test_liveness_fails_when_workers_keep_dying(registry: Path) -> None:
    with serving(registry, "--workers", "1") as server:
        for count in range(1, 6):
            server.wait(lambda: bool(server.workers()))
            for pid in server.workers():
                os.kill(pid, signal.SIGKILL)
            server.wait(lambda count=count: server.metric("estiba_worker_restarts_total") >= count)
        server.wait(lambda: server.get("/health/live")[0] == 503)
        refused = httpx.get(f"http://127.0.0.1:{server.port}/health/live")
        assert (refused.json()["type"], refused.headers["retry-after"]) == ("urn:estiba:problem:not-ready", "1")


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


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.2])
def test_ctrl_c_while_the_workers_start_ends_without_a_word(registry: Path, wait: float) -> None:
    command = [sys.executable, "-m", "estiba", "serve", "toy", "--registry", str(registry), "--port", "0"]
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 20
    while not Server(server, 0, registry).workers() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(wait)
    os.killpg(server.pid, signal.SIGINT)
    assert (server.communicate(timeout=20)[1], server.returncode) == ("", 0)


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


def test_workers_come_and_go_by_signals_and_nothing_is_lost(registry: Path) -> None:
    def wanted(server: Server, count: int) -> bool:
        workers = json.loads(server.get("/health")[1])["workers"]
        return workers["ready"] == workers["wanted"] == count == len(server.workers())

    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            for number, count in ((signal.SIGTTIN, 2), (signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)):
                server.process.send_signal(number)
                await asyncio.to_thread(server.wait, lambda count=count: wanted(server, count))
                await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTTOU)
            await asyncio.sleep(0.5)
            assert wanted(server, 1)
        assert not tally.lost
        assert set(tally.statuses) == {200}
        assert server.metric("estiba_requests_total") == tally.answered

    with serving(registry, "--workers", "1") as server:
        asyncio.run(run(server))
        assert server.metric("estiba_worker_restarts_total") == 0
        assert "the last worker is not stopped" in server.log.read_text()


def test_fewer_workers_while_a_newer_version_loads(registry: Path) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, "/predict", BODY) as tally:
            await asyncio.to_thread(pack, registry, 0.3)
            for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU):
                server.process.send_signal(number)
                await asyncio.sleep(0.2)
            await asyncio.to_thread(server.wait, lambda: tally.versions["2"] > 50)
        assert not tally.lost
        assert set(tally.statuses) == {200}

    with serving(registry, "--workers", "2") as server:
        asyncio.run(run(server))
        assert {ask(server).headers["x-model-version"] for _ in range(20)} == {"2"}


def test_files_of_metrics_are_counted_on_in_by_later_workers(registry: Path) -> None:
    with serving(registry, "--workers", "1") as server:
        for count in range(1, 4):
            ask(server)
            before = server.workers()
            server.process.send_signal(signal.SIGHUP)
            server.wait(lambda before=before: not set(before) & set(server.workers()) and len(server.workers()) == 1)
            assert server.metric("estiba_requests_total") == count
        state = Path(f"/proc/{server.process.pid}/maps").read_text()
        folder = next(line.split()[-1] for line in state.splitlines() if "supervisor.metrics" in line)
        assert len(list(Path(folder).parent.glob("*.metrics"))) <= 3


def test_a_server_whose_workers_do_not_load_in_time_says_so(registry: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"start_timeout": 0.05}')
    command = [sys.executable, "-m", "estiba", "serve", "toy", "--registry", str(registry), "--port", "0"]
    command += ["--settings", str(tmp_path / "settings.json")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "did not load its models within 0.05 seconds" in ended.stderr
    assert "start_timeout" in ended.stderr


def test_whoever_stands_at_the_door_when_the_server_stops_is_answered(registry: Path) -> None:
    """More clients than are accepted in one go, whose connections nobody has taken yet."""
    with serving(registry, "--workers", "1") as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(300)]
        body = json.dumps(BODY).encode()
        head = f"POST /predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        for client in clients:
            client.sendall(head.encode() + b"\r\n\r\n" + body)
        os.kill(server.process.pid, signal.SIGTERM)
        os.kill(server.process.pid, signal.SIGCONT)
        statuses = [client.recv(65536)[9:12] for client in clients]
        assert server.process.wait(20) == 0
        assert statuses == [b"200"] * 300
        for client in clients:
            client.close()
