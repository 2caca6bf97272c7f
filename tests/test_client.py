"""The client against a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from toys import CHURN_ROW, Live

import estiba
from estiba.core.errors import BadInput, EstibaError, NotFound, Unavailable
from estiba.core.ports import free


@pytest.fixture
def client(server: Live) -> Iterator[estiba.Client]:
    with estiba.Client(server.url, timeout=5) as client:
        yield client


def test_one_record_several_and_a_dataframe(client: estiba.Client) -> None:
    one = client.predict(CHURN_ROW)
    assert client.predict([CHURN_ROW, CHURN_ROW]) == one * 2
    frame = pd.DataFrame([CHURN_ROW, {**CHURN_ROW, "a/b~c d": 2.5}])
    assert client.predict(frame, model="churn")[0] == one[0]
    assert client.predict([{**CHURN_ROW, "age": np.int64(41), "balance": np.float64(10.5)}]) == one
    assert client.predict([]) == []


def test_models_and_versions(client: estiba.Client) -> None:
    assert {model["name"] for model in client.models()} == {"churn", "price"}
    assert list(client.predict({"x": 2.0}, model="price", version=1)[0]) == ["value"]
    assert client.ready()


def test_errors_are_those_of_the_library(client: estiba.Client) -> None:
    with pytest.raises(BadInput, match="#/records/0/age") as caught:
        client.predict({**CHURN_ROW, "age": 7, "country": "Peru"})
    assert [problem.pointer for problem in caught.value.problems] == ["#/records/0/age", "#/records/0/country"]
    with pytest.raises(NotFound):
        client.predict({"x": 1}, model="nobody")


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), np.float64("inf"), np.float32("-inf")])
def test_infinity_is_refused_as_by_the_library(client: estiba.Client, value: float) -> None:
    with pytest.raises(BadInput, match=r"^#/records/1/a~1b~0c%20d: expected a finite number, got -?inf$"):
        client.predict([CHURN_ROW, {**CHURN_ROW, "a/b~c d": value}])
    with pytest.raises(BadInput, match="#/records/0/country: bytes have no form in JSON"):
        client.predict({**CHURN_ROW, "country": b"Spain"})


def test_nobody_there_is_unavailable() -> None:
    client = estiba.Client(f"http://127.0.0.1:{free('127.0.0.1')}", timeout=1)
    assert not client.ready()
    with pytest.raises(Unavailable, match="cannot be reached"):
        client.predict({"x": 1})


def test_a_busy_server_is_asked_again() -> None:
    """503 with Retry-After, twice; then an answer."""
    busy = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    body = b'{"predictions":[{"value":1.0}]}'
    fine = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in (busy, busy, fine):
                connection, _ = listener.accept()
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with estiba.Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            assert client.predict({"x": 1}) == [{"value": 1.0}]
        thread.join()


def test_another_kind_of_server_is_named_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 3\r\nconnection: close\r\n\r\ntea")
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            estiba.Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client,
            pytest.raises(EstibaError, match="418, and not as Estiba"),
        ):
            client.predict({"x": 1})
        thread.join()
