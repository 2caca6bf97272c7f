"""Explanations over HTTP are those of the model in Python; mistakes are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingRegressor
from toys import Live

import estiba
from estiba.gateway import keys
from estiba.gateway.keys import KeyRequest
from estiba.state.store import open_state

pytestmark = pytest.mark.slow

Start = Callable[..., Live]
RECORD = {"a": 0.5, "b": -1.0}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("explained") / "registry")
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["a", "b"])
    model = GradientBoostingRegressor(n_estimators=10, random_state=0).fit(rows, rows.a * rows.b)
    for name in ("product", "other"):
        estiba.pack(model, rows, name=name, registry=folder)
    return folder


def test_explanations_are_those_of_python(registry: str, start_server: Start) -> None:
    live = start_server("product", registry=registry)
    wanted = estiba.Explainer(estiba.load("product", registry=registry)).explain([RECORD])
    url = f"{live.url}/models/product/explain"
    for body in (RECORD, {"records": [RECORD]}, [RECORD]):
        answer = httpx.post(url, json=body)
        assert answer.status_code == 200
        assert answer.json() == {
            "model": "product",
            "version": "1",
            "explanations": msgspec.json.decode(msgspec.json.encode(wanted)),
        }
    refused = [
        ({"records": []}, "", 400, "has no records"),
        ({"records": [RECORD] * 21}, "", 400, "too many to explain"),
        ({"a": "tall", "b": 1}, "", 422, "expected a number"),
        (RECORD, "?output=price", 400, "no output 'price'"),
        (RECORD, "?rows=5", 400, "rows is '5'"),
    ]
    for body, query, status, detail in refused:
        answer = httpx.post(url + query, json=body)
        assert answer.status_code == status, answer.text
        assert detail in answer.text
    assert httpx.post(url, content=b"{").status_code == 400
    assert httpx.get(url).status_code == 405
    assert httpx.post(f"{live.url}/models/nobody/explain", json=RECORD).status_code == 404


def test_a_key_explains_the_models_that_it_may_ask(registry: str, start_server: Start, tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    opened = open_state(state)
    made = {
        name: keys.create(opened, KeyRequest(name, roles=(role,), models=models))[0]
        for name, role, models in (("asks", "predict", ("product",)), ("reads", "read", ()))
    }
    opened.close()
    live = start_server("product", "other", registry=registry, gateway={"state": state, "needs_keys": True})

    def status(model: str, name: str) -> int:
        headers = {"x-api-key": made[name]}
        return httpx.post(f"{live.url}/models/{model}/explain", json=RECORD, headers=headers).status_code

    assert [status("product", "asks"), status("other", "asks"), status("product", "reads")] == [200, 403, 403]
