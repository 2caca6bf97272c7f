"""A list, Series or array of texts is a sample, and is predicted in Python, over HTTP and through the client."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import estiba
from estiba.core.errors import BadInput, BadProject

GOOD = ["a fine day", "good work, thank you", "I like café con leche", "best ever 😀"]
BAD = ["a bad day", "poor work", "I hate waiting", "worst ever 😡"]
TEXTS = [f"{text} {i % 7}" for i in range(20) for text in GOOD + BAD]
LABELS = ["good"] * 4 + ["bad"] * 4
MODEL = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, LABELS * 20)


@pytest.mark.parametrize(
    ("sample", "field"),
    [
        (TEXTS, "text"),
        (tuple(TEXTS), "text"),
        (np.array(TEXTS), "text"),
        (pd.Series(TEXTS), "text"),
        (pd.Series(TEXTS, name="message", index=range(5, 165)), "message"),
        (pd.DataFrame({"body": TEXTS}), "body"),
    ],
    ids=["list", "tuple", "array", "series", "named series", "frame"],
)
def test_texts_become_one_field(sample: Any, field: str, tmp_path: Path) -> None:
    estiba.pack(MODEL, sample, name="mood", registry=tmp_path, holdout=sample)
    loaded = estiba.load("mood", registry=tmp_path)
    assert loaded.signature.names == (field,)
    expected = MODEL.predict_proba(GOOD)
    for asked in (GOOD, pd.Series(GOOD), np.array(GOOD), [{field: text} for text in GOOD]):
        got = [list(p["probabilities"].values()) for p in loaded.predict(asked)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_a_missing_or_long_text_is_refused_by_row_and_field(tmp_path: Path) -> None:
    estiba.pack(MODEL, TEXTS, name="mood", registry=tmp_path, fields={"text": {"max_length": 100}})
    loaded = estiba.load("mood", registry=tmp_path)
    with pytest.raises(BadInput, match="#/records/1/text: may not be missing; expected a string"):
        loaded.predict([{"text": "fine"}, {"text": None}])
    with pytest.raises(BadInput, match="#/records/0/text: must have at most 100 characters, got 101"):
        loaded.predict(["x" * 101])
    assert loaded.predict(["", "x" * 100])[0]["label"] in LABELS
    with pytest.raises(BadProject, match="max_length"):
        estiba.pack(MODEL, TEXTS, name="mood", registry=tmp_path, fields={"text": {"max_length": 0}})


def test_a_sample_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match="holds values of type int"):
        estiba.pack(MODEL, pd.DataFrame({"text": [*TEXTS, 7]}), name="mood", registry=tmp_path)
    with pytest.raises(BadProject, match="or be texts"):
        estiba.pack(MODEL, np.zeros(4), name="mood", registry=tmp_path)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    estiba.pack(MODEL, TEXTS, name="mood", registry=tmp_path, fields={"text": {"max_length": 200}})
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    command = [sys.executable, "-m", "estiba", "serve", "mood", "--registry", str(tmp_path), "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        time.sleep(0.1)
        try:
            if httpx.get(f"{address}/health/ready").status_code == 200:
                break
        except httpx.TransportError:
            continue
    yield address
    server.terminate()
    server.wait(20)


@pytest.mark.slow
def test_over_http_and_through_the_client(url: str) -> None:
    expected = MODEL.predict_proba(GOOD)
    with estiba.Client(url) as client:
        for asked in (GOOD, pd.Series(GOOD)):
            got = [list(p["probabilities"].values()) for p in client.predict(asked)]
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    answer = httpx.post(f"{url}/predict", json={"records": [{"text": text} for text in GOOD]})
    assert [p["label"] for p in answer.json()["predictions"]] == ["good"] * 4

    for text in (None, "x" * 201, 7):
        refused = httpx.post(f"{url}/predict", json={"records": [{"text": "fine"}, {"text": text}]})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "#/records/1/text"
    half = httpx.post(
        f"{url}/predict", content=b'{"text": "half \\ud800"}', headers={"content-type": "application/json"}
    )
    assert half.status_code in (200, 400, 422)
    assert httpx.post(f"{url}/predict", json={"text": "\x00 NUL 😀 e\u0301"}).status_code == 200
