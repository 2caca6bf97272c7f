"""A full server says so: to clients beyond its limit, over real sockets, and never to a health check."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from raw import Answer, Reader
from supervised import BODY, Server, pack, serving
from toys import Live, until

from estiba.core.errors import EstibaError
from estiba.serving.workers.acceptor import SPARE_CONNECTIONS, connections

pytestmark = pytest.mark.slow

ASK = json.dumps(BODY).encode()
REQUEST = b"POST /predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ASK),
    ASK,
)
PROBE = b"GET /health/live HTTP/1.1\r\nhost: t\r\n\r\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("door") / "registry"
    pack(folder)
    return folder


@contextmanager
def crowd(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many clients, each with a connection that is in use."""
    with ExitStack() as open_ones:
        clients = []
        for _ in range(count):
            client = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            answer = asked(client, PROBE)
            assert answer is not None
            assert "connection" not in answer.headers
            clients.append(client)
        yield clients


def asked(client: socket.socket, request: bytes) -> Answer | None:
    client.sendall(request)
    return Reader(client).answer()


def test_a_client_beyond_the_limit_gets_a_503_at_once_and_probes_are_answered(registry: Path) -> None:
    with serving(registry, "--workers", "2", settings={"max_connections": 20}) as server:
        with crowd(server.port, 20) as inside:
            with socket.create_connection(("127.0.0.1", server.port), 10) as late:
                late.sendall(REQUEST + REQUEST)
                answers = Reader(late).all()
            assert [answer.status for answer in answers] == [503]
            assert (answers[0].headers["retry-after"], answers[0].headers["connection"]) == ("1", "close")
            assert answers[0].json["type"] == "urn:estiba:problem:overloaded"
            with socket.create_connection(("127.0.0.1", server.port), 10) as probe:
                probe.sendall(PROBE + PROBE)
                (answer,) = Reader(probe).all()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert answers[0].json["detail"] == "The server has as many connections as it can hold."
            assert refused(server) == 1
            assert [asked(client, REQUEST).status for client in inside] == [200] * 20  # type: ignore[union-attr]
        assert until(lambda: server.get("/models")[0] == 200)


def test_clients_far_beyond_the_limit_are_not_even_read(registry: Path) -> None:
    with serving(registry, "--workers", "1", settings={"max_connections": 2}) as server, crowd(server.port, 2):
        with ExitStack() as held:
            for _ in range(SPARE_CONNECTIONS):
                held.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            with socket.create_connection(("127.0.0.1", server.port), 10) as late:
                answer = Reader(late).answer()
            assert answer is not None
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert until(lambda: refused(server) >= 1)


def test_a_server_of_one_process_has_the_same_limit(start_server: Callable[..., Live]) -> None:
    live = start_server("price", max_connections=3)
    with crowd(live.port, 3), live.connect() as late:
        answer = asked(late, REQUEST)
        assert answer is not None
        assert answer.status == 503
        with live.connect() as probe:
            answer = asked(probe, PROBE)
        assert answer is not None
        assert answer.status == 200


def test_the_limit_is_what_the_system_allows(registry: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert 0 < connections(None) < hard
        assert connections(10) == 10
        with pytest.raises(EstibaError, match=rf"server\.max_connections is {hard}") as raised:
            connections(hard)
        assert "ulimit -n" in str(raised.value.hint)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def refused(server: Server) -> float:
    return server.metric("estiba_connections_refused_total")
