"""Requests of the original systems' clients are accepted at `POST /predict`; the answers have all that they need."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from applications import Served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BANK = {
    "CreditScore": 650,
    "Geography": "France",
    "Gender": "Female",
    "Age": 40,
    "Tenure": 3,
    "Balance": 60000,
    "NumOfProducts": 2,
    "HasCrCard": 1,
    "IsActiveMember": 1,
    "EstimatedSalary": 50000,
}
CAR = {
    "model_year": 2014,
    "model": "ford f-150",
    "condition": "good",
    "cylinders": 4.0,
    "fuel": "gas",
    "odometer": 0,
    "transmission": "automatic",
    "drive": "fwd",
    "type": "sedan",
    "paint_color": "white",
}
USAGE = {"calls": 50, "minutes": 500, "messages": 20, "mb_used": 15000}


@pytest.mark.parametrize(
    ("model", "body", "keys"),
    [
        ("bankchurn", BANK, {"churn_probability", "churn_prediction", "risk_level"}),
        ("carvision", CAR, {"prediction"}),
        ("carvision", {"model_year": 2014, "model": "ford f-150"}, {"prediction"}),
        ("telecom", USAGE, {"prediction", "probability_is_ultra"}),
    ],
)
def test_the_original_body_is_answered_at_the_original_path(
    serve: Served, model: str, body: dict[str, Any], keys: set[str]
) -> None:
    url = serve(model)
    assert httpx.get(f"{url}/health").status_code == 200
    answer = httpx.post(f"{url}/predict", json=body)
    assert answer.status_code == 200, answer.text
    assert keys <= answer.json().keys()
    assert {key: answer.json()[key] for key in keys} == {key: answer.json()["predictions"][0][key] for key in keys}
    refused = httpx.post(f"{url}/predict", json={})
    assert refused.status_code == 422
