"""A model with a field of the name that an envelope has: the order of keys in a body changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from supervised import Server, serving

import estiba

ROWS = pd.DataFrame({"a": np.arange(30.0), "records": np.arange(30.0) % 7})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    model = LinearRegression().fit(ROWS, ROWS.a * 2)
    estiba.pack(model, ROWS, name="toy", registry=tmp_path / "registry")
    with serving(tmp_path / "registry", "--workers", "1") as started:
        yield started


@pytest.mark.slow
def test_the_position_of_a_key_changes_nothing(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/predict"
    record = {"a": 3.0, "records": 4.0}
    for spaces in ("", " " * 80):
        for row in (record, dict(reversed(record.items()))):
            answer = httpx.post(url, content="{" + spaces + json.dumps(row)[1:])
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["pointer"] == "#/records"
            content = "{" + spaces + json.dumps({"records": [row]})[1:]
            assert httpx.post(url, content=content).json()["predictions"][0]["value"] == pytest.approx(6)
