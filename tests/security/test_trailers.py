"""Everything that a chunked request may carry beside its body is bounded, as its header is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from attacked import MIB, Target
from supervised import pack, serving

HEAD = b"POST /models/toy/predict HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n"
BODY = b'{"records":[{"x0":0.5,"x1":-1.0}]}'
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    registry = tmp_path_factory.mktemp("security") / "registry"
    pack(registry)
    with serving(registry, "--workers", "1") as server:
        yield Target(server)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (CHUNK + b"0\r\nx-t: ", b"a" * 65536),
        (CHUNK + b"0\r\n", b"x-t: a\r\n" * 8192),
        (CHUNK + b"0\r\n", b"x" * 65536),
        (b"1;", b"e" * 65536),
    ],
    ids=["value", "many", "name", "extension"],
)
def test_what_has_no_end_is_refused(target: Target, begin: bytes, piece: bytes) -> None:
    target.peak()
    with socket.create_connection(("127.0.0.1", target.server.port), 10) as client:
        client.sendall(HEAD + begin)
        for _ in range(800):  # 50 MB; what comes after the refusal is discarded
            client.sendall(piece)
        assert client.recv(12) == b"HTTP/1.1 431"
    assert 0 <= target.growth() < 20 * MIB


@pytest.mark.slow
def test_a_short_trailer_is_taken(target: Target) -> None:
    with socket.create_connection(("127.0.0.1", target.server.port), 10) as client:
        for part in (HEAD, CHUNK, b"0\r\n", b"x-t: a\r\n", b"\r\n"):
            client.sendall(part)
        assert client.recv(12) == b"HTTP/1.1 200"
