"""Attacks on a server of the models `toy` and `bright`, each a function of its port, and a process that repeats them.

    python attacks.py PORT SECONDS SEED

starts a random attack in each of its threads again and again, and prints how often each one was made, as JSON.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import cache
from typing import Any

MIB = 2**20
THREADS = 4
PATIENCE_SECONDS = 20.0

NATIVE, V1, V2, MLFLOW = "/models/toy/predict", "/v1/models/toy:predict", "/v2/models/toy/infer", "/invocations"
JSON, CSV = "application/json", "text/csv"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"

Attack = Callable[[int], None]


def request(path: str, body: bytes, kind: str = JSON, *, packed: bool = True, extra: str = "") -> bytes:
    """The bytes of a request; `packed` sends it with gzip."""
    coding = "Content-Encoding: gzip\r\n" if packed else ""
    body = gzip.compress(body, 9) if packed else body
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{coding}{extra}Content-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def connect(stack: ExitStack, port: int, window: int = 0) -> socket.socket:
    client = stack.enter_context(socket.socket())
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(PATIENCE_SECONDS)
    client.connect(("127.0.0.1", port))
    return client


def send(port: int, content: bytes, times: int = 1) -> None:
    """Send a request on several connections at once, and read what comes until the server is done."""
    with ExitStack() as stack:
        clients = [connect(stack, port) for _ in range(times)]
        for client in clients:
            with suppress(OSError):
                client.sendall(content)
        for client in clients:
            with suppress(OSError):
                client.recv(4096)


def _repeated(begin: str, value: str, end: str = "]}") -> bytes:
    count = (15 * MIB - len(begin)) // (len(value) + 1)
    return (begin + f"{value}," * (count - 1) + value + end).encode()


@cache
def bodies() -> dict[str, bytes]:
    """Requests that are sent as they are, by the name of the attack."""
    names = ",".join(f'"sepal_lengt{n}":1' for n in range(300_000))
    rows = [0.5, -1.0] * 2000
    inputs = [{"name": "x", "shape": [2000, 2], "datatype": "FP64", "data": rows}]
    twice = json.dumps({"inputs": inputs, "outputs": [{"name": "label"}] * 10_000})
    huge = {"name": "x", "shape": [2**31, 2**31], "datatype": "FP64", "data": [1.0]}
    split = {"dataframe_split": {"columns": [f"c{n}" for n in range(500_000)], "data": [[]]}}
    long = "a" * (15 * MIB)
    made = {
        "v2 inputs": request(V2, _repeated('{"inputs":[', "{}")),
        "v2 inputs with empty names": request(V2, _repeated('{"inputs":[', '{"":{}}')),
        "v1 instances": request(V1, _repeated('{"instances":[', "{}")),
        "native records": request(NATIVE, _repeated('{"records":[', "{}")),
        "mlflow records": request(MLFLOW, _repeated('{"dataframe_records":[', "[]")),
        "mlflow inputs": request(MLFLOW, _repeated('{"inputs":[', '{"":1}')),
        "mlflow columns": request(MLFLOW, json.dumps(split).encode()),
        "csv lines": request(NATIVE, b"a\n" * (7 * MIB), CSV),
        "csv cells": request(NATIVE, b"a" + b"," * (15 * MIB) + b"\n1\n", CSV),
        "csv of one quote": request(MLFLOW, b'"' + b"a" * (15 * MIB), CSV),
        "v2 outputs": request(V2, twice.encode()),
        "v2 shape": request(V2, json.dumps({"inputs": [huge]}).encode()),
        "v2 binary": request(
            V2,
            b'{"inputs":[{"name":"x","shape":[99999,2],"datatype":"FP64","parameters":{"binary_data_size":9999999}}]}',
            extra="Inference-Header-Content-Length: 104\r\n",
        ),
        "long name, native": request(NATIVE, json.dumps({"records": [{long: 1}]}).encode()),
        "long name, v1": request(V1, json.dumps({"instances": [{long: 1}]}).encode()),
        "long name, v2": request(V2, json.dumps({"inputs": [{**inputs[0], "name": long}]}).encode()),
        "long name, mlflow": request(MLFLOW, json.dumps({"dataframe_split": {"columns": [long], "data": []}}).encode()),
        "long name, csv": request(NATIVE, long.encode() + b"\n1\n", CSV),
        "long names that are escaped": request(NATIVE, json.dumps({"records": [{"/\u00e9" * MIB: 1}]}).encode()),
        "long value": request(NATIVE, json.dumps({"records": [{"x0": long, "x1": 1}]}).encode()),
        "unknown names": request(NATIVE, b'{"records":[{%b}]}' % names.encode()),
        "unknown names, bare": request(NATIVE, b"{%b}" % names.encode()),
        "unknown envelope": request(NATIVE, b'{"records":[{"x0":1}],%b}' % names.encode()),
        "unknown names, v1": request(V1, b'{"instances":[{%b}]}' % names.encode()),
        "nested arrays": request(NATIVE, b"[" * (15 * MIB)),
        "nested objects": request(V1, b'{"instances":' * 100_000),
        "digits": request(NATIVE, b'{"records":[{"x0":%b,"x1":1}]}' % (b"9" * MIB)),
        "exponents": request(NATIVE, b'{"records":[{"x0":1e%b,"x1":1}]}' % (b"9" * MIB)),
        "escapes": request(NATIVE, b'{"records":[{"%b":1}]}' % (b"\\u0000" * 2 * MIB)),
        "gzip bomb": request(NATIVE, b" " * (200 * MIB)),
        "gzip members": request(NATIVE, gzip.compress(b" ") * 10_000, packed=False, extra="Content-Encoding: gzip\r\n"),
        "valid, large": request(NATIVE, b'{"records":[%b]}' % b",".join([b'{"x0":0.5,"x1":-1.0}'] * 100_000)),
        "valid csv, large": request(NATIVE, b"x0,x1\n" + b"0.5,-1.0\n" * 100_000, CSV),
        "wrong, large": request(NATIVE, b'{"records":[%b]}' % b",".join([b'{"x0":"a","x1":"b"}'] * 100_000)),
        "image of 16 million pixels": _image(4096, 4096),
        "images that are too many": _image(2360, 2360, times=12),
        "images that are the most": _image(256, 256, times=170),
        "images within the limit": _image(256, 256, times=12),
        "image that claims to be larger": _image(2**30, 2**30, pixels=b""),
        "tensor of nested lists": request("/v1/models/bright:predict", _repeated('{"instances":[', "[[[[]]]]")),
    }
    return made | _tables()


def _image(width: int, height: int, pixels: bytes | None = None, times: int = 1) -> bytes:
    """A request with PNGs of a few kilobytes; their pixels are zeros."""
    rows = b"\0" * (height * (width * 3 + 1)) if pixels is None else pixels

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    record = {"pixels": base64.b64encode(b"\x89PNG\r\n\x1a\n" + content).decode()}
    return request("/models/bright/predict", json.dumps({"records": [record] * times}).encode())


def _tables() -> dict[str, bytes]:
    """Requests in formats that compress inside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def parquet(columns: dict[str, Any], **options: Any) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink, **{"compression": "zstd", "write_statistics": False, **options})
        return request(NATIVE, sink.getvalue(), PARQUET, packed=False)

    def arrow(columns: dict[str, Any]) -> bytes:
        sink = io.BytesIO()
        table = pa.table(columns)
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
            stream.write_table(table)
        return request(NATIVE, sink.getvalue(), ARROW, packed=False)

    words = pa.array(["a" * MIB] * 300)
    several = pa.array(["a" * MIB + str(n) for n in range(40)])
    large = {"x0": [n / 3 for n in range(100_000)], "x1": [1.0] * 100_000}
    return {
        "parquet, unknown column": parquet({"x": words}, dictionary_pagesize_limit=4 * MIB),
        "parquet, known column": parquet({"x0": words, "x1": words}, dictionary_pagesize_limit=4 * MIB),
        "parquet, plain pages": parquet({"x0": several, "x1": [1.0] * 40}, use_dictionary=False),
        "parquet, many columns": parquet({f"c{n}": [1.0] for n in range(5000)}),
        "parquet, valid, large": parquet(large),
        "arrow, unknown column": arrow({"x": pa.array(["a" * (256 * MIB)])}),
        "arrow, known column": arrow({"x0": pa.array(["a" * (256 * MIB)]), "x1": [1.0]}),
        "arrow, valid, large": arrow(large),
    }


CHUNKED = f"POST {NATIVE} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
CHUNK = b'23\r\n{"records":[{"x0":0.5,"x1":-1.0}]} \r\n'


def _endless(begin: bytes, piece: bytes) -> Attack:
    def attack(port: int) -> None:
        with ExitStack() as stack:
            client = connect(stack, port)
            until = time.monotonic() + 3
            with suppress(OSError):
                client.sendall(begin)
                while time.monotonic() < until:
                    client.sendall(piece)

    return attack


def _slow_readers(port: int) -> None:
    """Ask for large answers on many connections, and read little of them."""
    content = bodies()["valid, large"]
    with ExitStack() as stack:
        clients = [connect(stack, port, 4096) for _ in range(30)]
        for client in clients:
            with suppress(OSError):
                client.sendall(content * 3)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for client in clients:
                client.settimeout(0.01)
                with suppress(OSError):
                    client.recv(512)
            time.sleep(0.5)


def _unfinished_bodies(port: int) -> None:
    head = f"POST {NATIVE} HTTP/1.1\r\nHost: a\r\nContent-Type: {JSON}\r\nContent-Length: {16 * MIB}\r\n\r\n".encode()
    with ExitStack() as stack:
        clients = [connect(stack, port) for _ in range(40)]
        for client in clients:
            client.settimeout(1)
            with suppress(OSError):
                client.sendall(head + b" " * (16 * MIB - 1))
        time.sleep(5)


def _unfinished_headers(port: int) -> None:
    with ExitStack() as stack:
        clients = [connect(stack, port) for _ in range(200)]
        for _ in range(5):
            for client in clients:
                with suppress(OSError):
                    client.sendall(b"GET / HTTP/1.1\r\n" + b"x: " + b"a" * 5000)
            time.sleep(0.5)


def _pipelined(content: bytes, times: int) -> Attack:
    def attack(port: int) -> None:
        with ExitStack() as stack:
            client = connect(stack, port, 4096)
            client.settimeout(3)
            with suppress(OSError):
                client.sendall(content * times)
                time.sleep(2)

    return attack


def _resets(port: int) -> None:
    """Send large requests and reset the connection before the answer."""
    names = ["valid, large", "wrong, large", "unknown names", "parquet, valid, large"]
    for name in names * 3:
        with ExitStack() as stack:
            client = connect(stack, port)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(bodies()[name])
            time.sleep(random.random() / 10)


SMALL = request(NATIVE, b'{"records":[{"x0":0.5,"x1":-1.0}]}', packed=False)
UPGRADE = b"GET /models HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"

BEHAVIOURS: dict[str, Attack] = {
    "trailer without an end": _endless(CHUNKED + CHUNK + b"0\r\nx-t: ", b"a" * 65536),
    "trailers without an end": _endless(CHUNKED + CHUNK + b"0\r\n", b"x-t: a\r\n" * 8192),
    "chunk extension without an end": _endless(CHUNKED + b"1;", b"e" * 65536),
    "header without an end": _endless(b"GET / HTTP/1.1\r\nHost: a\r\nx: ", b"a" * 65536),
    "target without an end": _endless(b"GET /", b"a" * 65536),
    "chunks of a byte": _endless(CHUNKED, b"1\r\n \r\n" * 8192),
    "slow readers": _slow_readers,
    "bodies that do not end": _unfinished_bodies,
    "headers that do not end": _unfinished_headers,
    "pipelined requests": _pipelined(SMALL, 20_000),
    "pipelined upgrades": _pipelined(UPGRADE, 2000),
    "pipelined errors": _pipelined(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n", 20_000),
    "pages that are not read": _pipelined(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n", 2000),
    "resets": _resets,
}


def attacks() -> dict[str, Attack]:
    """All attacks by name."""
    single = {name: lambda port, content=content: send(port, content) for name, content in bodies().items()}
    at_once = {f"{name}, six times": lambda port, c=content: send(port, c, 6) for name, content in bodies().items()}
    return {**single, **at_once, **BEHAVIOURS}  # type: ignore[dict-item]


def main(port: int, seconds: float, seed: int) -> None:
    made: Counter[str] = Counter()
    known = attacks()
    print("ready", flush=True)
    until = time.monotonic() + seconds

    def repeat(number: int) -> None:
        chosen = random.Random(seed + number)
        while time.monotonic() < until:
            name = chosen.choice(list(known))
            print(f"{time.time():.1f} {name}", file=sys.stderr, flush=True)
            with suppress(OSError):
                known[name](port)
            made[name] += 1

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(made))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
