"""The client against a real server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from toys import CHURN_ROW, Live

import estiba
from estiba.core.errors import BadInput, BadRequest, EstibaError, NotFound, Unavailable
from estiba.core.ports import free
from estiba.model.schema.json_pointer import pointer


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


def test_what_a_notebook_has_in_hand(client: estiba.Client) -> None:
    one = client.predict(CHURN_ROW)
    frame = pd.DataFrame([CHURN_ROW, CHURN_ROW])
    assert client.predict(frame.iloc[0]) == one
    assert client.predict(frame.to_numpy()) == one * 2
    assert client.predict(frame.to_numpy()[0], model="churn") == one
    assert client.predict(pa.Table.from_pandas(frame)) == one * 2
    prices = client.predict([{"x": 1.0}, {"x": 2.0}], model="price")
    assert client.predict(np.array([1.0, 2.0]), model="price") == prices
    with pytest.raises(
        BadInput, match=r"records/0: expected 6 values in the order of the model's fields \(age, .*got 2"
    ):
        client.predict(np.zeros((3, 2)))
    with pytest.raises(BadRequest, match="Cannot read rows from a value of type NoneType"):
        client.predict(None)


@pytest.mark.parametrize("odd", [float("inf"), np.float32("-inf"), np.float64("inf"), b"1", Decimal("1.5"), {1}])
def test_no_value_is_changed_on_its_way(client: estiba.Client, toy_registry: Path, odd: object) -> None:
    """Refused by the client and by the library, also where the server would take what JSON makes of it."""
    loaded = estiba.load("churn", registry=toy_registry)
    for field in ("a/b~c d", "channel", "balance"):
        for predict in (client.predict, loaded.predict):
            with pytest.raises(BadInput) as caught:
                predict([CHURN_ROW, {**CHURN_ROW, field: odd}])
            assert [problem.pointer for problem in caught.value.problems] == [pointer(1, field)]


def test_missing_values_are_sent_as_null(client: estiba.Client) -> None:
    for missing in (None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.datetime64("NaT")):
        assert client.predict({**CHURN_ROW, "a/b~c d": missing}) == client.predict(CHURN_ROW)


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


@pytest.mark.slow
def test_nobody_there_is_unavailable() -> None:
    client = estiba.Client(f"http://127.0.0.1:{free('127.0.0.1')}", timeout=1)
    assert not client.ready()
    with pytest.raises(Unavailable) as caught:
        client.predict({"x": 1})
    assert caught.value.message == f"{client.url} cannot be reached: connection refused."
    with pytest.raises(Unavailable, match=r"host\.invalid cannot be reached: its host name is not known\.\n"):
        estiba.Client("http://host.invalid", timeout=1).models()


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
