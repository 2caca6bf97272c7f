"""The connection, byte by byte: order, limits, patience, and requests that mean to deceive."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from raw import Reader, post, price
from toys import Live, until

CLOSE = b"Connection: close\r\n"
CHUNKED = b"POST /models/price/predict HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n"


def numbered(n: int) -> bytes:
    return post(b'{"x": %d}' % n)


@pytest.mark.parametrize("count", [1, 2, 17, 1000])
def test_pipelined_requests_are_answered_in_order(server: Live, count: int) -> None:
    with server.connect() as sock:
        sock.sendall(b"".join(numbered(n) for n in range(count)))
        reader = Reader(sock)
        answers = [price(reader.answer()) for _ in range(count)]
    assert answers == pytest.approx([n * 0.01 for n in range(count)])


def test_mixed_routes_keep_their_order(server: Live) -> None:
    get = b"GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n"
    large = post(b'{"records": [' + b",".join([b'{"x": 7}'] * 20_000) + b"]}")
    with server.connect() as sock:
        sock.sendall(get + large + post(b"{}") + get + numbered(3))
        reader = Reader(sock)
        found = [reader.answer() for _ in range(5)]
    assert [answer and answer.status for answer in found] == [200, 200, 422, 200, 200]
    assert found[1] is not None
    assert len(found[1].json["predictions"]) == 20_000


@pytest.mark.parametrize(
    ("request_", "closes"),
    [
        (post(), False),
        (post(extra=CLOSE), True),
        (post().replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (post(extra=b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), True),
        (post(extra=b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n"), False),
        (b"GET /health/live HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", False),
        (post(extra=CLOSE + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), True),
    ],
)
def test_a_connection_stays_or_closes(server: Live, request_: bytes, closes: bool) -> None:
    with server.connect() as sock:
        sock.sendall(request_)
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert answer.status == 200
        assert (answer.headers.get("connection") == "close") is closes
        if closes:
            assert reader.answer() is None
        else:
            sock.sendall(numbered(5))
            assert price(reader.answer()) == pytest.approx(0.05)


def test_what_follows_the_last_request_is_ignored(server: Live) -> None:
    with server.connect() as sock:
        sock.sendall(numbered(1) + post(extra=CLOSE) + numbered(2) + b"rubbish")
        assert len(Reader(sock).all()) == 2


def test_a_client_that_stops_sending_is_answered(server: Live) -> None:
    with server.connect() as sock:
        sock.sendall(numbered(1) + post(path="/health/live") + numbered(2))
        sock.shutdown(socket.SHUT_WR)
        assert [answer.status for answer in Reader(sock).all()] == [200, 405, 200]


def test_a_body_in_chunks_split_at_every_byte(server: Live) -> None:
    whole = CHUNKED + b'\r\n5;name="v"\r\n{"x":\r\n3\r\n 8}\r\n0\r\nX-Trailer: v\r\n\r\n'
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader(sock)
        for at in range(1, len(whole)):
            sock.sendall(whole[:at])
            sock.sendall(whole[at:])
            assert price(reader.answer()) == pytest.approx(0.08)


def test_byte_by_byte(server: Live) -> None:
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in numbered(4):
            sock.sendall(bytes([byte]))
        assert price(Reader(sock).answer()) == pytest.approx(0.04)


def test_an_upgrade_is_ignored_wherever_its_bytes_are_split(server: Live) -> None:
    whole = post(b'{"x": 9}', extra=b"Connection: Upgrade\r\nUpgrade: h2c\r\n") + numbered(2)
    for at in range(100, len(whole)):
        with server.connect() as sock:
            sock.sendall(whole[:at])
            sock.sendall(whole[at:])
            reader = Reader(sock)
            assert [price(reader.answer()), price(reader.answer())] == pytest.approx([0.09, 0.02])


@pytest.mark.parametrize("count", [2, 1000])
def test_pipelined_upgrades_are_all_ignored(server: Live, count: int) -> None:
    upgrade = b"GET /health/live HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with server.connect() as sock:
        sock.sendall(upgrade * count + numbered(2))
        reader = Reader(sock)
        assert [answer.status for _ in range(count) if (answer := reader.answer())] == [200] * count
        assert price(reader.answer()) == pytest.approx(0.02)


def test_an_empty_header_value_and_a_target_with_its_host(server: Live) -> None:
    first = post(extra=b"X-Empty:\r\nX-Other: 1\r\n")
    second = numbered(2).replace(b"POST /", b"POST http://example.org/")
    with server.connect() as sock:
        sock.sendall(first + second)
        reader = Reader(sock)
        assert [price(reader.answer()), price(reader.answer())] == pytest.approx([0.01, 0.02])


def test_the_body_is_asked_for(server: Live) -> None:
    head, _, body = post(extra=b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    with server.connect() as sock:
        sock.sendall(numbered(6) + head + b"\r\n\r\n")
        reader = Reader(sock)
        assert price(reader.answer()) == pytest.approx(0.06)
        invited = reader.answer()
        assert invited is not None
        assert invited.status == 100
        sock.sendall(body)
        assert price(reader.answer()) == pytest.approx(0.01)


def test_a_body_too_large_is_not_asked_for(server: Live) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n"
    with server.connect() as sock:
        sock.sendall(head)
        assert [answer.status for answer in Reader(sock).all()] == [413]


def test_head_has_no_body(server: Live) -> None:
    with server.connect() as sock:
        sock.sendall(b"HEAD /models HTTP/1.1\r\nHost: t\r\n\r\n" + numbered(1))
        reader = Reader(sock)
        answer = reader.answer(bodiless=True)
        assert answer is not None
        assert int(answer.headers["content-length"]) > 100
        assert price(reader.answer()) == pytest.approx(0.01)


HUGE = b"X: " + b"y" * 40_000 + b"\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(extra=HUGE), 431),
        (post(extra=b"X: y\r\n" * 8000), 431),
        (numbered(1).replace(b"POST /", b"POST /" + b"a" * 40_000), 414),
        (post(b"x" * 20_000_000), 413),
        (CHUNKED + b"\r\n1312D00\r\n" + b"x" * 20_000_000 + b"\r\n0\r\n\r\n", 413),
    ],
)
def test_limits_are_said_to_a_client_that_is_still_sending(server: Live, request_: bytes, status: int) -> None:
    with server.connect() as sock:
        try:
            sock.sendall(request_)
        except ConnectionError:
            pytest.fail("the connection was reset before the answer could be read")
        answers = Reader(sock).all()
    assert [answer.status for answer in answers] == [status]
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert answers[0].headers["connection"] == "close"


@pytest.mark.parametrize("step", [1000, 30_000])
def test_a_header_without_end_is_refused_early(server: Live, step: int) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nX: ")
        for _ in range(400_000 // step):
            sock.sendall(b"y" * step)
        assert [answer.status for answer in Reader(sock).all()] == [431]


TE = b"Transfer-Encoding: chunked\r\n"
DECEIT = {
    "length and chunked": post(extra=TE),
    "two lengths": post(extra=b"Content-Length: 9\r\n"),
    "two equal lengths": post(extra=b"Content-Length: 10\r\n"),
    "a list of lengths": post().replace(b"Length: 10", b"Length: 10, 10"),
    "negative length": post().replace(b"Length: 10", b"Length: -1"),
    "length with a plus": post().replace(b"Length: 10", b"Length: +10"),
    "length in hex": post().replace(b"Length: 10", b"Length: 0xA"),
    "length with an underscore": post().replace(b"Length: 10", b"Length: 1_0"),
    "length without end": post().replace(b"Length: 10", b"Length: " + b"9" * 5000),
    "empty length": post().replace(b"Length: 10", b"Length: "),
    "folded header": post(extra=b"X: a\r\n b\r\n"),
    "bare LF": post().replace(b"\r\n", b"\n"),
    "one bare LF": post(extra=b"X: a\nY: b\r\n"),
    "bare CR": post(extra=b"X: a\rY: b\r\n"),
    "space before colon": post(extra=b"X : a\r\n"),
    "space before the first header": post().replace(b"Host", b" Host"),
    "header without name": post(extra=b": a\r\n"),
    "header without colon": post(extra=b"abc\r\n"),
    "NUL in a value": post(extra=b"X: a\0b\r\n"),
    "NUL in a name": post(extra=b"X\0: a\r\n"),
    "no host": post().replace(b"Host: t\r\n", b""),
    "two hosts": post(extra=b"Host: u\r\n"),
    "xchunked": CHUNKED.replace(b"chunked", b"xchunked") + b"\r\n0\r\n\r\n",
    "chunked twice": CHUNKED + TE + b"\r\n0\r\n\r\n",
    "chunked, identity": CHUNKED.replace(b"chunked", b"chunked, identity") + b"\r\n0\r\n\r\n",
    "gzip, chunked": CHUNKED.replace(b"chunked", b"gzip, chunked") + b"\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n0\r\n\r\n",
    "chunk size no number": CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n",
    "chunk size negative": CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "chunk size too large": CHUNKED + b"\r\n" + b"F" * 17 + b"\r\n{}\r\n0\r\n\r\n",
    "chunk longer than said": CHUNKED + b"\r\n2\r\n{}X\r\n0\r\n\r\n",
    "chunk with bare LF": CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n",
    "chunk size with a space before": CHUNKED + b"\r\n 2\r\n{}\r\n0\r\n\r\n",
    "version unknown": post().replace(b"HTTP/1.1", b"HTTP/1.7"),
    "version 2": post().replace(b"HTTP/1.1", b"HTTP/2.0"),
    "lower-case method": post().replace(b"POST", b"post"),
    "unknown method": post().replace(b"POST", b"BREW"),
    "space in the target": post().replace(b"/predict", b"/pre dict"),
    "a tunnel": b"CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n\r\n",
    "two content types": post(extra=b"Content-Type: text/csv\r\n"),
    "the same content type twice": post(extra=b"Content-Type: application/json\r\n"),
    "an empty content type first": post().replace(b"Host: t", b"Content-Type:\r\nHost: t"),
    "a star as the target of a GET": b"GET * HTTP/1.1\r\nHost: t\r\n\r\n",
    "RTSP": b"DESCRIBE /models RTSP/1.0\r\nHost: t\r\n\r\n",
    "RTSP with a method of HTTP": b"GET /models RTSP/1.0\r\nHost: t\r\n\r\n",
    "ICE": b"SOURCE /models ICE/1.0\r\nHost: t\r\n\r\n",
    "an upgrade with two lengths": post(extra=b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 9\r\n"),
    "TLS": bytes.fromhex("16030100f1010000ed0303"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", DECEIT)
def test_what_could_be_read_in_two_ways_is_refused_once(server: Live, name: str) -> None:
    with server.connect() as sock:
        sock.sendall(numbered(3) + DECEIT[name] + numbered(4))
        first, *others = Reader(sock).all()
    assert price(first) == pytest.approx(0.03)
    assert len(others) == 1
    assert others[0].status in (400, 501, 505)
    assert others[0].headers["connection"] == "close"


def test_trailers_are_not_headers(server: Live) -> None:
    whole = CHUNKED + b'\r\n8\r\n{"x": 3}\r\n0\r\nX-Request-ID: mine\r\nContent-Type: text/plain\r\n\r\n'
    with server.connect() as sock:
        sock.sendall(whole)
        answer = Reader(sock).answer()
    assert price(answer) == pytest.approx(0.03)
    assert answer is not None
    assert answer.headers["x-request-id"] != "mine"


def test_trailers_and_tiny_chunks_cost_little_memory(server: Live) -> None:
    before = server.resident()
    with server.connect(30) as sock:
        sock.sendall(CHUNKED + b"\r\n" + b"1\r\n \r\n" * 1_000_000 + b"0\r\n" + b"A: b\r\n" * 500_000 + b"\r\n")
        answer = Reader(sock).answer()
    assert answer is not None
    assert answer.status == 431
    assert server.resident() - before < 32_000_000


# Patience: a server whose limits are short


@pytest.fixture(scope="module")
def hasty(start_server: Callable[..., Live]) -> Live:
    limits = {"header_timeout": 0.4, "body_timeout": 0.8, "idle_timeout": 1.2, "write_timeout": 0.6}
    return start_server("price", http=limits, drain=3.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "statuses", "seconds"),
    [
        (b"", [], 0.4),
        (b"GET / HT", [408], 0.4),
        (b"GET / HTTP/1.1\r\nHost: t\r\n", [408], 0.4),
        (post()[:-3], [408], 0.8),
        (post(), [200], 1.2),
        (post() + post()[:-3], [200, 408], 0.8),
        (post() + b"GET", [200, 408], 0.4),
    ],
)
def test_patience_ends(hasty: Live, sent: bytes, statuses: list[int], seconds: float) -> None:
    with hasty.connect() as sock:
        began = time.monotonic()
        sock.sendall(sent)
        assert [answer.status for answer in Reader(sock).all()] == statuses
        assert seconds <= time.monotonic() - began < seconds + 1.2


@pytest.mark.slow
def test_a_slow_drip_does_not_buy_time(hasty: Live) -> None:
    with hasty.connect() as sock:
        began = time.monotonic()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nX: ")
        sock.settimeout(0.05)
        while time.monotonic() < began + 5:
            try:
                if not sock.recv(1000):
                    break
            except TimeoutError:
                sock.sendall(b"y")
        assert time.monotonic() - began < 2


@pytest.mark.slow
def test_a_slow_model_is_waited_for(hasty: Live) -> None:
    slow = post(b'{"records": [' + b",".join([b'{"x": -98}'] * 4) + b"]}") * 3
    with hasty.connect() as sock:
        sock.sendall(slow + numbered(2))
        reader = Reader(sock)
        assert [price(reader.answer()) for _ in range(4)] == pytest.approx([-0.98, -0.98, -0.98, 0.02])


LARGE = post(b'{"records": [' + b",".join([b'{"x": 1}'] * 50_000) + b"]}")


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_dropped_and_memory_stays_bounded(hasty: Live) -> None:
    before = hasty.resident()
    with hasty.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(0.3)
        with pytest.raises((TimeoutError, ConnectionError)):
            sock.sendall(LARGE * 200)
        assert hasty.resident() - before < 150_000_000
        sock.settimeout(5)
        assert until(lambda: _dropped(sock), 8)


def _dropped(sock: socket.socket) -> bool:
    try:
        sock.send(b"x")
    except (TimeoutError, ConnectionError):
        return True
    return False


@pytest.mark.slow
def test_a_client_that_reads_slowly_gets_everything(hasty: Live) -> None:
    with hasty.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.sendall(LARGE)
        reader = Reader(sock)
        taken = 0
        while taken < 600_000:
            data = sock.recv(65536)
            taken += len(data)
            reader.rest += data
            time.sleep(0.04)
        answer = reader.answer()
    assert answer is not None
    assert len(answer.json["predictions"]) == 50_000


@pytest.mark.slow
def test_the_rest_of_an_answer_waits_for_a_client_that_pauses_after_its_last_request(
    start_server: Callable[..., Live],
) -> None:
    # Where the neighbours are loud, more rows than usual wait at once.
    live = start_server("price", max_queued_rows=200_000, http={"idle_timeout": 0.3, "write_timeout": 8.0})
    rows = range(4_000, 20_000, 1_000)  # among them answers of which the system takes all but a few kilobytes
    with ExitStack() as clients:
        socks = [clients.enter_context(live.connect()) for _ in rows]
        for sock, count in zip(socks, rows, strict=True):
            sock.sendall(post(b'{"records": [' + b",".join([b'{"x": 1}'] * count) + b"]}"))
            sock.shutdown(socket.SHUT_WR)
        time.sleep(3)
        answers = [Reader(sock).answer() for sock in socks]
    assert [len(answer.json["predictions"]) for answer in answers if answer] == list(rows)


@pytest.mark.parametrize("last", [b"Connection: close\r\n", b""], ids=["closing", "HTTP/1.0"])
def test_a_client_that_sends_on_after_its_last_request_has_its_whole_answer(server: Live, last: bytes) -> None:
    sent = post(b'{"records": [' + b",".join([b'{"x": 1}'] * 9_000) + b"]}", extra=last)
    if not last:
        sent = sent.replace(b"HTTP/1.1", b"HTTP/1.0")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)  # most of the answer waits in the server's system
        sock.settimeout(10)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(sent)
        assert sock.recv(1, socket.MSG_PEEK)
        for _ in range(5):
            time.sleep(0.02)
            sock.sendall(post())
        answers = Reader(sock).all()
    assert [len(answer.json["predictions"]) for answer in answers] == [9_000]


@pytest.mark.parametrize("sent", [LARGE, LARGE[:100_000], post(b'{"x": -98}'), post() * 50])
def test_a_client_that_goes_away_does_no_harm(server: Live, sent: bytes) -> None:
    for _ in range(5):
        with server.connect() as sock:
            sock.sendall(sent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with server.connect() as sock:
        sock.sendall(numbered(2))
        assert price(Reader(sock).answer()) == pytest.approx(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_is_polite(start_server: Callable[..., Live], number: int) -> None:
    live = start_server("price")
    with live.connect() as busy, live.connect() as idle, live.connect() as half:
        idle.sendall(numbered(1))
        assert price(Reader(idle).answer()) == pytest.approx(0.01)
        half.sendall(numbered(2)[:-1])
        busy.sendall(post(b'{"x": -98}') + numbered(3))
        time.sleep(0.1)
        live.process.send_signal(number)
        time.sleep(0.2)
        assert Reader(idle).answer() is None
        half.sendall(numbered(2)[-1:])
        last = Reader(half).all()
        assert [price(answer) for answer in last] == pytest.approx([0.02])
        assert last[0].headers["connection"] == "close"
        assert [price(answer) for answer in Reader(busy).all()] == pytest.approx([-0.98, 0.03])
    with pytest.raises(ConnectionRefusedError):
        live.connect()
    assert live.process.wait(5) == 0
