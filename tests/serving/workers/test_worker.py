"""A worker by itself, spoken to as its supervisor speaks: loads asked for twice, clients that come as it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from raw import Reader
from supervised import BODY, pack

from estiba.serving.options import ServerOptions
from estiba.serving.route_spec import RouteSpec, RouteTarget
from estiba.serving.workers import messages
from estiba.serving.workers.messages import (
    HEARTBEAT_BYTES,
    MAX_CONNECTIONS,
    Configuration,
    ServedModel,
    WorkerSpec,
)

pytestmark = pytest.mark.slow

ASK = json.dumps(BODY).encode()


class Channel:
    """The supervisor's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def tell(self, message: messages.AnyMessage, passed: socket.socket | None = None) -> None:
        messages.send(self.sock, message, passed)

    def hear(self, seconds: float = 20.0) -> messages.AnyMessage | None:
        """The next message; None where none comes, or the worker is gone."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                return messages.receive(self.sock)[0]
            except BlockingIOError:
                time.sleep(0.01)
        return None

    def client(self, slot: int) -> socket.socket:
        """A client whose other end the worker has."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.tell(messages.Take(slot), theirs)
        ours.settimeout(10)
        return ours


@contextmanager
def working(folder: Path, *versions: ServedModel) -> Iterator[tuple[Channel, subprocess.Popen[bytes]]]:
    (folder / "state").write_bytes(bytes(HEARTBEAT_BYTES + MAX_CONNECTIONS))
    Configuration(1, versions).write(folder)
    ours, theirs = messages.pair()
    spec = WorkerSpec(
        index=0,
        folder=str(folder),
        metrics=str(folder / "0.metrics"),
        state=str(folder / "state"),
        generation=1,
        options=ServerOptions(log="json"),
        threads=1,
        channel=theirs.fileno(),
    )
    with ours, (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "estiba.serving.workers.worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()], stderr=log)
        theirs.close()
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(spec))
        process.stdin.close()
        try:
            yield Channel(ours), process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[ServedModel]:
    registry = tmp_path_factory.mktemp("worker") / "registry"
    packed = [pack(registry, shift) for shift in (0.0, 0.3)]
    return [ServedModel("toy", "toy", str(p.version), str(p.artifact.path)) for p in packed]


def ask(client: socket.socket, path: str = "/predict") -> tuple[int, str]:
    head = f"POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {len(ASK)}\r\n\r\n"
    client.sendall(head.encode() + ASK)
    answer = Reader(client).answer()
    assert answer is not None
    return answer.status, answer.headers["x-model-version"]


def test_a_generation_that_is_asked_for_twice_is_prepared_once(versions: list[ServedModel], tmp_path: Path) -> None:
    old, new = versions
    with working(tmp_path, old) as (channel, _):
        assert channel.hear() == messages.Ready()
        Configuration(2, (new,)).write(tmp_path)
        for _ in range(3):
            channel.tell(messages.Prepare(2))
        assert channel.hear() == messages.Prepared(2)
        channel.tell(messages.Prepare(2))
        assert channel.hear() == messages.Prepared(2)
        channel.tell(messages.Apply(2))
        with channel.client(0) as client:
            assert ask(client) == (200, "2")
        assert channel.hear() == messages.Closed(0)
        assert channel.hear(0.3) is None


def test_a_generation_that_is_discarded_is_not_kept(versions: list[ServedModel], tmp_path: Path) -> None:
    old, new = versions
    with working(tmp_path, old) as (channel, _):
        assert channel.hear() == messages.Ready()
        Configuration(2, (new,)).write(tmp_path)
        channel.tell(messages.Prepare(2))
        channel.tell(messages.Discard(2))
        assert channel.hear(1.0) is None
        channel.tell(messages.Prepare(2))
        assert channel.hear() == messages.Prepared(2)
        channel.tell(messages.Discard(2))
        with channel.client(0) as client:
            assert ask(client) == (200, "1")


def test_a_configuration_larger_than_a_packet_is_applied(versions: list[ServedModel], tmp_path: Path) -> None:
    old, new = versions
    new = msgspec.structs.replace(new, ref="x" * 1_000_000)
    with working(tmp_path, old) as (channel, _):
        assert channel.hear() == messages.Ready()
        Configuration(2, (new,)).write(tmp_path)
        assert (tmp_path / "configuration-2.json").stat().st_size > messages.MAX_PACKET_BYTES
        channel.tell(messages.Prepare(2))
        assert channel.hear() == messages.Prepared(2)
        channel.tell(messages.Apply(2))
        with channel.client(0) as client:
            assert ask(client) == (200, "2")


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (RouteSpec("toy", (RouteTarget("a", "1", 1.0), RouteTarget("b", "9", 1.0))), "version 9, which is not served"),
        (RouteSpec("toy", (RouteTarget("a", "1", 0.0),)), "weights of 0 or more"),
    ],
)
def test_a_generation_that_cannot_be_applied_is_refused_and_the_old_one_stays(
    versions: list[ServedModel], tmp_path: Path, route: RouteSpec, reason: str
) -> None:
    with working(tmp_path, versions[0]) as (channel, _):
        assert channel.hear() == messages.Ready()
        Configuration(2, tuple(versions), (route,)).write(tmp_path)
        channel.tell(messages.Prepare(2))
        answer = channel.hear()
        assert isinstance(answer, messages.Prepared)
        assert reason in answer.error
        with channel.client(0) as client:
            assert ask(client) == (200, "1")


def test_versions_share_requests_by_weight_and_each_keeps_its_own_path(
    versions: list[ServedModel], tmp_path: Path
) -> None:
    with working(tmp_path, versions[0]) as (channel, _):
        assert channel.hear() == messages.Ready()
        route = RouteSpec("toy", (RouteTarget("main", "1", 3.0), RouteTarget("candidate", "2", 1.0)))
        Configuration(2, tuple(versions), (route,)).write(tmp_path)
        channel.tell(messages.Prepare(2))
        assert channel.hear() == messages.Prepared(2)
        channel.tell(messages.Apply(2))
        with channel.client(0) as client:
            answers = Counter(ask(client) for _ in range(400))
            assert set(answers) == {(200, "1"), (200, "2")}
            assert 50 < answers[200, "2"] < 150
            assert ask(client, "/models/toy/versions/2/predict") == (200, "2")


@pytest.mark.parametrize("hand_over", [False, True])
def test_clients_that_come_just_before_the_end_are_answered_or_given_back(
    versions: list[ServedModel], tmp_path: Path, hand_over: bool
) -> None:
    with working(tmp_path, versions[0]) as (channel, process):
        assert channel.hear() == messages.Ready()
        process.send_signal(signal.SIGSTOP)  # so that it finds all of this at once
        clients = [channel.client(slot) for slot in range(50)]
        head = b"POST /predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        for client in clients:
            client.sendall(head % len(ASK) + ASK)
        channel.tell(messages.Drain(hand_over))
        process.send_signal(signal.SIGCONT)
        heard = [channel.hear() for _ in clients]
        assert process.wait(10) == 0
        given_back = {each.slot for each in heard if isinstance(each, messages.Closed) and each.handed_over}
        for slot, client in enumerate(clients):
            with client:
                answer = Reader(client).answer()
                assert (answer is not None and answer.status == 200) or slot in given_back
        assert hand_over or not given_back
