"""Fuzz a real server with seeded mutations of requests and bodies, ESTIBA_FUZZ_SECONDS each (default 4)."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import signal
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from raw import Reader, post, price
from toys import Live

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("ESTIBA_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("ESTIBA_FUZZ_SEED", "20261121"))
CHURN = b'{"age": 41, "balance": 1.5, "country": "ES", "channel": "kiosk", "active": true}'
SEEDS = [
    post(),
    post(CHURN, "/models/churn/predict"),
    post(b'{"records": [' + b", ".join([CHURN] * 3) + b"]}", "/predict", b"X-Request-ID: a-b\r\n"),
    post(b"x\n1\n2\n").replace(b"application/json", b"text/csv"),
    post(b'{"records": [' + b",".join([b'{"x": 1}'] * 9000) + b"]}"),
    b"POST /predict HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"x\":\r\n2\r\n1}\r\n0\r\n\r\n",
    b"POST /predict HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /models/churn HTTP/1.1\r\nHost: t\r\nAccept: text/html\r\n\r\n",
    b"GET /models/%63hurn/schema?a=b HTTP/1.1\r\nHost: t\r\nConnection: keep-alive\r\n\r\n",
    b"HEAD /docs HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n\r\n",
    b"GET /openapi.json HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
]  # fmt: skip
CHURN_ROW = json.loads(CHURN)
V2 = b'{"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, 2]}]}'
BINARY = b'{"inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": 16}}]}'
SPLIT = b'{"dataframe_split": {"columns": ["x"], "data": [[1.0], [2.0]]}, "params": {"output": "value"}}'
HEAD = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) [ -~]*")
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")
ALLOWED = {str(n) for n in (100, 200, 307, 400, 404, 405, 408, 413, 414, 415, 422, 431, 501, 505)}
DECODED = {200, 400, 413, 415, 422}
TOKENS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\t", b"\xff", b"\xc3\x28", b"%", b"%00", b"%2e%2e/", b"//", b"?", b"#",
    b"{", b"}",
    b"[" * 2000, b'"', b"\\u0000", b"\\ud800", b"NaN", b"1e400", b"-", b"9" * 400, b"null", b"records",
    b"Content-Length: 5\r\n", b"Content-Length: 99999999999\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: x\r\n", b"Host: [\r\n", b"Content-Type: text/csv\r\n",
    b"X: " + b"y" * 40_000 + b"\r\n", b"HTTP/1.0", b"HTTP/9.9", b"GET ", b"CONNECT ", b"0\r\n\r\n", b"ffffffff\r\n",
    b"z" * 70_000,
]  # fmt: skip


def table(kind: str) -> bytes:
    """A few customers as Arrow or Parquet."""
    sink, rows = io.BytesIO(), pa.Table.from_pylist([CHURN_ROW] * 5)
    if kind == "parquet":
        pa.parquet.write_table(rows, sink)
    else:
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_table(rows)
    return sink.getvalue()


def bodies() -> list[tuple[str, str, bytes, bytes]]:
    """A good body in every form that there is: path, content type, body, further headers."""
    header = b"Inference-Header-Content-Length: %d\r\n" % len(BINARY)
    binary = BINARY + struct.pack("<2d", 1, 2)
    return [
        ("/models/churn/predict", "application/vnd.apache.arrow.stream", table("arrow"), b""),
        ("/models/churn/predict", "application/vnd.apache.parquet", table("parquet"), b""),
        ("/models/churn/predict", "application/json", gzip.compress(CHURN), b"Content-Encoding: gzip\r\n"),
        ("/models/churn/predict", "application/json", zlib.compress(CHURN), b"Content-Encoding: deflate\r\n"),
        ("/models/price/predict", "text/csv", b"x\n1\n2\n", b""),
        ("/v2/models/price/infer", "application/json", V2, b""),
        ("/v2/models/price/infer", "application/octet-stream", binary, header),
        ("/v1/models/price:predict", "application/json", b'{"instances": [{"x": 1}, [2]]}', b""),
        ("/invocations", "application/json", json.dumps({"dataframe_records": [CHURN_ROW] * 2}).encode(), b""),
        ("/invocations", "text/csv", b"x\n1\n2\n", b""),
        ("/models/price/predict", "application/json", SPLIT, b""),
    ]


def mangled(chance: random.Random) -> bytes:
    """A few requests one behind the other, some of them changed."""
    parts = [chance.choice(SEEDS) for _ in range(chance.choice([1, 1, 1, 2, 5, 40]))]
    for _ in range(chance.choice([0, 1, 1, 2, 4])):
        n = chance.randrange(len(parts))
        parts[n] = _change(chance, parts[n])
    return b"".join(parts)


def _change(chance: random.Random, data: bytes) -> bytes:
    # Heads are small beside bodies: most places to change are chosen there.
    reach = len(data) if chance.random() < 0.3 else min(len(data), 250)
    a, b = sorted((chance.randrange(reach + 1), chance.randrange(reach + 1)))
    match chance.randrange(6):
        case 0:
            return data[:a] + chance.choice(TOKENS) + data[a:]
        case 1:
            return data[:a] + chance.choice(TOKENS) + data[b:]
        case 2:
            return data[:a] + data[b:]
        case 3:
            return data[:a]
        case 4:
            return data[:b] + data[a:]
        case _:
            return data[:a] + bytes([chance.randrange(256)]) + data[a + 1 :]


def _flip(chance: random.Random, data: bytes) -> bytes:
    """One bit another way: what is still framed well gets deep into a decoder."""
    at = chance.randrange(len(data) or 1)
    return data[:at] + bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]


def send(chance: random.Random, sock: socket.socket, data: bytes) -> None:
    """All of it, in one piece or many; a server that has heard enough may close."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0, 0, 1, 3, 12])))
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            sock.sendall(data[start:end])
            if chance.random() < 0.1:
                time.sleep(0.001)
    except ConnectionError:
        pass


def one_client(chance: random.Random, live: Live, counts: Counter[str]) -> None:
    with live.connect(3) as sock:
        send(chance, sock, mangled(chance))
        counts["connections"] += 1
        if chance.random() < 0.15:
            counts["left at once"] += 1
            return
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            counts["closed by the server first"] += 1
        _read(Reader(sock), counts)


def _read(reader: Reader, counts: Counter[str]) -> None:
    """Counts answers until the server closes. A body is skipped by its length; what asked for none (HEAD) has none."""
    while reader._more():
        pass
    rest = reader.rest
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        match = HEAD.match(head)
        assert match, head[:300]
        counts[match[1].decode()] += 1
        length = LENGTH.search(head)
        assert length or match[1] == b"100", head
        if length and not HEAD.match(rest):
            assert len(rest) >= int(length[1]) or not rest, "an answer is cut short"
            rest = rest[int(length[1]) :]


@pytest.mark.timeout(SECONDS + 60)
def test_no_body_does_harm(start_server: Callable[..., Live]) -> None:
    """Bodies are mangled and then framed as they are, so that decoders see them."""
    live = start_server("churn", "price", default="churn")
    chance, counts, good = random.Random(SEED), Counter[str](), bodies()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with live.connect(5) as sock:
            reader = Reader(sock)
            for _ in range(100):
                path, kind, body, extra = chance.choice(good)
                for _ in range(chance.choice([0, 1, 1, 2, 6])):
                    body = chance.choice([_change, _flip])(chance, body)
                request = post(body, path, extra).replace(b"application/json", kind.encode(), 1)
                sock.sendall(request)
                answer = reader.answer()
                assert answer, request
                assert answer.status in DECODED, request
                counts[f"{answer.status} {kind}"] += 1
    print(f"\nbodies, seed {SEED}: " + ", ".join(f"{key} {count}" for key, count in sorted(counts.items())))
    for _, kind, _, _ in good:
        assert counts[f"200 {kind}"]
    assert live.stop(signal.SIGTERM) == 0
    assert "request failed" not in live.log.read_text()
    assert "Traceback" not in live.log.read_text()


@pytest.mark.timeout(SECONDS + 60)
def test_nothing_that_is_sent_does_harm(start_server: Callable[..., Live]) -> None:
    short = {"header_timeout": 1.0, "body_timeout": 1.0, "idle_timeout": 2.0}
    live = start_server("churn", "price", default="churn", http=short)
    chance, counts = random.Random(SEED), Counter[str]()
    one_client(chance, live, Counter())
    before = live.resident()
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        one_client(chance, live, counts)
        if counts["connections"] % 20 == 0:
            with live.connect(1) as sock:
                sock.sendall(post(b'{"x": 2}'))
                assert price(Reader(sock).answer()) == 0.02
    print(f"\nfuzz, seed {SEED}: " + ", ".join(f"{key} {count}" for key, count in sorted(counts.items())))
    statuses = {key for key in counts if key.isdigit()}
    assert statuses <= ALLOWED
    assert {"200", "400", "404", "422"} <= statuses
    assert live.resident() - before < 120_000_000
    assert live.stop(signal.SIGTERM) == 0
    assert "request failed" not in live.log.read_text()
    assert "Traceback" not in live.log.read_text()
