"""Large answers are compressed for clients that accept it; small ones, and those of others, are never touched."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest
from raw import Reader
from toys import Live

from estiba.serving.http.compression import Compression, is_gzip_accepted
from estiba.serving.http.request import Request


def asked(*values: str) -> Request:
    return Request(b"GET", b"/", b"", [(b"accept-encoding", value.encode()) for value in values])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), False),
        (("",), False),
        (("gzip",), True),
        (("GZIP",), True),
        (("deflate, gzip;q=0.5",), True),
        (("gzip;q=0",), False),
        (("gzip;q=0.000, *",), False),
        (("*",), True),
        (("*;q=0",), False),
        (("identity",), False),
        (("br", "gzip ; q=1.0"), True),
        (("x-gzip",), True),
        (("identity, gzip;q=0.5",), False),
        (("gzip;q=2",), False),
        (("gzip;level=9",), False),
    ],
)
def test_clients_that_accept_gzip(values: tuple[str, ...], expected: bool) -> None:
    assert is_gzip_accepted(asked(*values)) is expected


@pytest.mark.parametrize(
    "headers",
    [b'content-type: application/json\r\netag: "4"\r\n', b"content-type: image/png\r\n", b"x-request-id: a\r\n",
     b"content-type: application/json\r\ncontent-encoding: gzip\r\n"],
)  # fmt: skip
def test_some_answers_stay_as_they_are(headers: bytes) -> None:
    with ThreadPoolExecutor(1) as executor:
        compression = Compression(1024, executor)
        assert compression.begin(None, asked("gzip"), 200, headers, b"a" * 5000) == (headers, b"a" * 5000)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def live(start_server: Callable[..., Live]) -> Live:
    return start_server("price", compress_from=1024)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100, 2000])  # on the event loop, and in a thread
def test_a_large_answer_is_the_same_after_it_was_decompressed(live: Live, rows: int) -> None:
    body = {"records": [{"x": float(i)} for i in range(rows)]}
    plain, packed = (
        httpx.post(f"{live.url}/predict", json=body, headers={"accept-encoding": value, "x-request-id": "same"})
        for value in ("identity", "gzip")
    )
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.content == plain.content


@pytest.mark.slow
def test_a_small_answer_is_never_touched(live: Live) -> None:
    answer = httpx.post(f"{live.url}/predict", json={"records": [{"x": 1.0}]}, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert "vary" not in answer.headers


@pytest.mark.slow
def test_answers_on_one_connection_keep_their_order(live: Live) -> None:
    large = msgspec.json.encode({"records": [{"x": float(i)} for i in range(3000)]})
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\ncontent-type: application/json\r\n"
    requests = [head + b"x-request-id: %d\r\ncontent-length: %d\r\n\r\n%b" % (i, len(large), large) for i in range(3)]
    with live.connect() as sock:
        sock.sendall(b"".join(requests) + b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
        reader = Reader(sock)
        for i in range(3):
            answer = reader.answer()
            assert answer is not None
            assert answer.headers["x-request-id"] == str(i)
            assert len(msgspec.json.decode(gzip.decompress(answer.body))["predictions"]) == 3000
        last = reader.answer()
        assert last is not None
        assert "content-encoding" not in last.headers


@pytest.mark.slow
def test_documents_pages_and_head(live: Live) -> None:
    document = f"{live.url}/openapi.json"
    plain = httpx.get(document, headers={"accept-encoding": "identity"})
    packed = httpx.get(document)
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    head = httpx.head(document)
    assert {name: head.headers[name] for name in ("content-encoding", "content-length", "vary")} == {
        name: packed.headers[name] for name in ("content-encoding", "content-length", "vary")
    }
    page = httpx.get(f"{live.url}/docs")
    assert page.headers["content-encoding"] == "gzip"
    assert page.content == httpx.get(f"{live.url}/docs", headers={"accept-encoding": "gzip;q=0"}).content


@pytest.mark.slow
def test_pages_are_compressed_without_any_setting_and_answers_are_not(server: Live) -> None:
    assert httpx.get(f"{server.url}/docs/docs.css").headers["content-encoding"] == "gzip"
    assert "content-encoding" not in httpx.get(f"{server.url}/openapi.json").headers
