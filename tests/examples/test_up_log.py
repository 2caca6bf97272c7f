"""The portfolio in `estiba up`: original bodies are answered without a key, and are in the log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from applications import clean, registry, running
from toys import until

from estiba.core.ports import free

BANK = {
    "CreditScore": 650, "Geography": "France", "Gender": "Female", "Age": 40, "Tenure": 3, "Balance": 60000.0,
    "NumOfProducts": 2, "HasCrCard": 1, "IsActiveMember": 1, "EstimatedSalary": 50000.0,
}  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_request_of_the_original_s_client_is_in_the_log(tmp_path: Path) -> None:
    project = registry("iris", "bankchurn", "carvision", "telecom").parents[1]
    port, state = free("127.0.0.1"), f"sqlite:///{tmp_path}/state.db"
    command = [sys.executable, "-m", "estiba", "up", "-C", project, "--port", str(port)]
    health = f"http://127.0.0.1:{port}/health/ready"
    with running(command, health, log=tmp_path / "up.log", more={"ESTIBA_STATE": state}):
        answer = httpx.post(f"http://127.0.0.1:{port + 1}/predict", json=BANK)
        assert answer.status_code == 200, answer.text

        def logged() -> list[dict[str, object]]:
            words = [sys.executable, "-m", "estiba", "log", "bankchurn", "--json", "--state", state]
            done = subprocess.run(words, capture_output=True, text=True, env=clean(), check=True)
            return [json.loads(line) for line in done.stdout.splitlines()]

        assert until(lambda: len(logged()) == 1, 10)
        (row,) = logged()
    assert (row["id"], row["input"], row["key"]) == (answer.json()["id"], BANK, "")
