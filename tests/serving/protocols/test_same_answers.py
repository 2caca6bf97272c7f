"""The same rows get the same predictions, whichever protocol brings them."""

from __future__ import annotations

import random
from typing import Any

import pytest


def records(seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "age": chance.randint(18, 100),
            "balance": chance.choice([chance.uniform(-1e6, 1e6), chance.randint(-9, 9), 1e-300]),
            "country": chance.choice(["ES", "FR", "DE"]),
            "channel": chance.choice(["web", "shop", "fax", "né"]),
            "a/b~c d": chance.choice([None, chance.random()]),
            "active": chance.choice([True, False]),
        }
        for _ in range(chance.choice([1, 2, 7, 60, 700]))
    ]


def by_v2(http: Any, rows: list[dict[str, Any]]) -> list[Any]:
    kinds = {"age": "INT64", "balance": "FP64", "country": "BYTES", "channel": "BYTES", "a/b~c d": "FP64"}
    inputs = [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": kinds.get(name, "BOOL"),
            "data": [row[name] for row in rows],
        }
        for name in reversed(rows[0])
    ]
    label, shares = http.post("/v2/models/churn/infer", json={"inputs": inputs}).json()["outputs"]
    pairs = zip(shares["data"][::2], shares["data"][1::2], strict=True)
    return [
        {"label": one, "probabilities": dict(zip(("stays", "leaves"), pair, strict=True))}
        for one, pair in zip(label["data"], pairs, strict=True)
    ]


@pytest.mark.parametrize("seed", range(12))
def test_all_protocols_agree(http: Any, seed: int) -> None:
    rows = records(seed)
    expected = http.post("/predict", json={"records": rows}).json()["predictions"]
    split = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    for path, body in (
        ("/v1/models/churn:predict", {"instances": rows}),
        ("/v1/models/churn:predict", {"instances": split["data"]}),
        ("/invocations", {"dataframe_split": split}),
        ("/invocations", {"inputs": {name: [row[name] for row in rows] for name in rows[0]}}),
    ):
        assert http.post(path, json=body).json()["predictions"] == expected
    assert by_v2(http, rows) == expected
