"""A client that a program writes from /openapi.json works, and nothing but CSV bodies is left out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toys import SUPPORT, Live

pytestmark = pytest.mark.slow

pytest.importorskip("openapi_python_client", reason="openapi-python-client is not installed")


def _run(*command: str, cwd: Path) -> str:
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(cwd)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_client_written_from_the_document_works(server: Live, http: Any, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_bytes(http.get("/openapi.json").content)
    made = _run(
        *("-m", "openapi_python_client", "generate", "--path", str(document), "--output-path", "client"),
        *("--meta", "none"),
        cwd=tmp_path,
    )
    complaints = {line for line in made.splitlines() if line.startswith(("Unable", "Unsupported", "Cannot", "Attempt"))}
    assert complaints <= {"Unsupported content type text/csv"}, made

    said = json.loads(_run(str(SUPPORT / "generated_client.py"), "client", server.url, cwd=tmp_path))
    (one,) = said["one"]["predictions"]
    assert one["label"] in ("stays", "leaves")
    assert said["many"]["predictions"] == [one, one]
    assert said["query"]["predictions"] == [one]
    assert [tensor["data"] for tensor in said["tensors"]["outputs"]] == [
        [one["label"]],
        [*one["probabilities"].values()],
    ]
    assert said["mlflow"] == {"predictions": [one]}
    assert [(e["pointer"], e["detail"]) for e in said["wrong"]["errors"]] == [("#/age", "must be at most 100, got 200")]
    assert {model["name"] for model in said["models"]["models"]} == {"churn", "price"}
