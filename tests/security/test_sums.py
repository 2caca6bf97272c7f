"""Limits of the memory that a worker holds for all clients together, and the end of clients that hardly read."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import httpx
import pytest
from raw import Reader
from toys import Live, until

pytestmark = pytest.mark.slow

MB = 1024 * 1024
ROWS = b'{"records": [' + b",".join([b'{"x": 1}'] * 50_000) + b"]}"


def gzipped(body: bytes) -> bytes:
    packed = gzip.compress(body)
    head = b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(packed), packed)


def slow(stack: ExitStack, live: Live) -> socket.socket:
    """A client that takes little at a time."""
    sock = stack.enter_context(live.connect())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return sock


def status(live: Live) -> int:
    return httpx.post(f"{live.url}/predict", content=ROWS, headers={"content-type": "application/json"}).status_code


def held(live: Live) -> float:
    lines = httpx.get(f"{live.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("estiba_buffered_bytes"))


@pytest.mark.timeout(240)
def test_answers_that_are_not_read_are_bounded_over_all_clients(start_server: Callable[..., Live]) -> None:
    live = start_server("price", http={"max_buffered": 8 * MB, "write_timeout": 4.0})
    assert status(live) == 200
    before = live.resident()
    with ExitStack() as stack:
        for _ in range(30):
            slow(stack, live).sendall(gzipped(ROWS) * 12)  # the system takes the first answers for the client
        assert until(lambda: status(live) == 503, 60)
        assert held(live) <= 8 * MB
        assert live.resident() - before < 120 * MB
        assert httpx.post(f"{live.url}/predict", json={"x": 1}).status_code == 200  # small ones go on
        assert until(lambda: status(live) == 200, 40)  # whoever reads nothing is dropped
    assert until(lambda: held(live) == 0, 20)


def test_bodies_that_arrive_are_bounded_over_all_clients(start_server: Callable[..., Live]) -> None:
    live = start_server("price", http={"max_buffered": 8 * MB, "max_body": 4 * MB, "body_timeout": 6.0})
    head = b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as stack:
        socks = [stack.enter_context(live.connect()) for _ in range(4)]
        refused = []
        for sock in socks:
            try:
                sock.sendall(head % (3 * MB) + b" " * (3 * MB - 1))
            except ConnectionError:
                refused.append(sock)
        answers = [Reader(sock).answer() for sock in socks[2:]]
        assert [answer.status for answer in answers if answer] == [503, 503]
        assert held(live) <= 8 * MB
    assert until(lambda: held(live) == 0, 20)
    assert status(live) == 200


def test_bodies_that_wait_for_their_turn_are_bounded(start_server: Callable[..., Live]) -> None:
    live = start_server("price", http={"max_buffered": 2 * MB, "max_body": MB})
    rows = (b'{"records": [' + b",".join([b'{"x": 1}'] * 20_000) + b"]}").ljust(800_000)
    head = b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with live.connect() as sock:
        sender = threading.Thread(target=_send, args=(sock, (head % len(rows) + rows) * 40))
        sender.start()
        reader = Reader(sock)
        found = [answer.status for answer in iter(reader.answer, None)]
        sender.join()
    assert found[-1] == 503
    assert set(found[:-1]) == {200}
    assert len(found) < 40
    assert until(lambda: held(live) == 0, 20)
    assert status(live) == 200


def _send(sock: socket.socket, content: bytes) -> None:
    with suppress(OSError):
        sock.sendall(content)


def test_a_client_that_reads_too_slowly_is_dropped(start_server: Callable[..., Live]) -> None:
    live = start_server("price", http={"write_timeout": 1.0})
    with ExitStack() as stack:
        sock = slow(stack, live)
        sock.sendall(gzipped(ROWS) * 12)
        sock.settimeout(0.5)
        assert until(lambda: held(live) > 0, 20)
        began = time.monotonic()
        while held(live) > 0:  # 1 KB a second is progress, and not enough of it
            assert time.monotonic() < began + 60
            with suppress(OSError):
                sock.recv(512)
            time.sleep(0.5)
