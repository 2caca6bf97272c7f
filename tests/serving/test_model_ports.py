"""A port of a model has that model as its default."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
import pytest
from toys import CHURN_ROW, SUPPORT

from estiba.core.ports import free

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ports() -> dict[int, str]:
    return {free("127.0.0.1"): "churn", free("127.0.0.1"): "price"}


@pytest.fixture(scope="module")
def doors(toy_registry: Path, ports: dict[int, str]) -> Iterator[dict[str, httpx.Client]]:
    """By model, a client of its port; at "", of the server's own."""
    spec = {"registry": str(toy_registry), "models": ["churn", "price"], "ports": ports}
    script = SUPPORT / "toy_server.py"
    command = [sys.executable, str(script), msgspec.json.encode(spec).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ExitStack() as clients:
        assert process.stdout is not None
        urls = {name: f"http://127.0.0.1:{port}" for port, name in ports.items()}
        urls[""] = process.stdout.readline().strip()
        yield {name: clients.enter_context(httpx.Client(base_url=url)) for name, url in urls.items()}
        process.terminate()


def test_a_port_answers_for_its_model(doors: dict[str, httpx.Client]) -> None:
    assert doors["churn"].post("/predict", json=CHURN_ROW).json()["model"] == "churn"
    assert doors["price"].post("/predict", json={"x": 2.0}).json()["model"] == "price"


def test_the_server_has_no_default_of_its_own(doors: dict[str, httpx.Client]) -> None:
    answer = doors[""].post("/predict", json={"x": 2.0})
    assert (answer.status_code, "no default model" in answer.json()["detail"]) == (404, True)


def test_other_paths_are_the_same_at_every_port(doors: dict[str, httpx.Client]) -> None:
    for client in doors.values():
        assert client.post("/models/price/predict", json={"x": 2.0}).status_code == 200
        assert client.get("/health/ready").status_code == 200


def test_models_and_openapi_say_which_is_the_default_here(doors: dict[str, httpx.Client]) -> None:
    for name, client in doors.items():
        models = client.get("/models").json()["models"]
        assert [model["name"] for model in models if model["default"]] == ([name] if name else [])
        assert ("/predict" in client.get("/openapi.json").json()["paths"]) == bool(name)


def test_other_protocols_know_it_too(doors: dict[str, httpx.Client]) -> None:
    answer = doors["price"].post("/invocations", json={"dataframe_records": [{"x": 2.0}]})
    assert answer.status_code == 200
