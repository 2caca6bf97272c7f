"""Ready means proved; health tells the truth; a taken port is explained; models are found or named."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from raw import Reader, post, price
from toys import PRICE, Live, toy

from estiba.core.errors import EstibaError, ParityError
from estiba.model.artifact import golden_rows
from estiba.model.artifact.artifact import write
from estiba.model.coding.coder import Coder
from estiba.model.inference.load import load
from estiba.serving.http.listen import listen


def test_health_when_ready(http: Any) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/health/startup", "/livez", "/readyz", "/healthz"):
        assert http.get(path).status_code == 200, path
        assert http.head(path).status_code == 200, path
    assert http.get("/health").json()["models"]["churn"] == {"version": "1", "status": "ready"}


def test_a_taken_port_is_explained() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(EstibaError) as found:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "in use" in found.value.message
    assert "--port" in (found.value.hint or "")


def test_a_model_that_answers_otherwise_than_in_training_never_loads(tmp_path: Path) -> None:
    sound = toy("price", PRICE, {"x": 1.0}, tmp_path)
    coder = Coder(PRICE)
    wrong = golden_rows.seal(coder, coder.check([{"x": 1.0}]), np.array([[0.5]]))
    files = {"model.onnx": sound.file("model.onnx").read_bytes(), "golden.json": wrong, "card.md": b"# Toy\n"}
    broken = write(tmp_path, msgspec.structs.replace(sound.manifest, files=()), files)
    with pytest.raises(ParityError, match=r"Golden row 0 is answered with 0.01.*0.5 in training"):
        load(broken.path)
    assert load(sound.path).parity is not None


def test_what_is_loaded_was_proved(http: Any) -> None:
    for name in ("churn", "price"):
        proof = http.get(f"/models/{name}/parity").json()["loaded"]
        assert proof["rows"] > 0
        assert max(proof["max_abs_error"].values()) == 0


@pytest.mark.slow
def test_without_a_default_nobody_answers_for_two_models(start_server: Callable[..., Live]) -> None:
    live = start_server("churn", "price")
    answer = httpx.post(f"{live.url}/predict", json={"x": 1})
    assert answer.status_code == 404
    assert "churn, price" in answer.json()["detail"]
    assert httpx.post(f"{live.url}/models/price/predict", json={"x": 1}).status_code == 200


def test_a_named_default_and_an_only_model_answer(http: Any, start_server: Callable[..., Live]) -> None:
    alone = start_server("price")
    assert httpx.post(f"{alone.url}/predict", json={"x": 1}).json()["model"] == "price"
    found = {m["name"]: m["default"] for m in http.get("/models").json()["models"]}
    assert found == {"churn": True, "price": False}


@pytest.mark.slow
def test_health_while_draining(start_server: Callable[..., Live]) -> None:
    live = start_server("price")
    with live.connect() as busy, live.connect() as asking:
        busy.sendall(post(b'{"x": -98}'))
        asking.sendall(b"GET /health/ready HTTP/1.1\r\nHost: t\r\nX: ")
        time.sleep(0.1)
        live.process.send_signal(signal.SIGTERM)
        time.sleep(0.6)
        asking.sendall(b"\r\n\r\n")
        answer = Reader(asking).answer()
        assert answer is not None
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.json["type"] == "urn:estiba:problem:not-ready"
        assert price(Reader(busy).answer()) == -0.98
    assert live.process.wait(5) == 0
