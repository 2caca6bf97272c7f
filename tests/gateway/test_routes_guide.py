"""The walk-through of the guide to routes does what the page shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from supervised import serving

import estiba
from estiba.model.registry.registry import open_registry

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "routes.md"
CUSTOMER = {"CreditScore": 619, "Age": 42, "Balance": 83807.86}


def steps() -> Iterator[tuple[str, str]]:
    """The commands of the walk-through, each with the output that the page shows."""
    section = PAGE.read_text().split("## A canary of bankchurn")[1].split("\n## ")[0]
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        yield from re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)


def undated(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "DATE", text.replace("\r", ""))


def test_the_walk_through(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    rng = np.random.default_rng(3)
    for shift in (0, 5):
        rows = pd.DataFrame({name: rng.normal(value, value / 5, 200) for name, value in CUSTOMER.items()})
        model = LogisticRegression(max_iter=500).fit(rows, rows["Age"] > 42 + shift)
        estiba.pack(model, rows, name="bankchurn", registry=registry)
    open_registry(registry).set_alias("bankchurn", "production", 1)
    (tmp_path / "customer.json").write_text(json.dumps(CUSTOMER))
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "LOGNAME": "ada"}
    environment |= {"ESTIBA_REGISTRY": str(registry)}
    done = 0
    with serving(registry, "--workers", "1", models=["bankchurn"]) as server:
        for command, shown in steps():
            local = command.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
            ran = subprocess.run(
                ["bash", "-c", local], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert undated(ran.stdout) == undated(shown), (command, ran.stderr)
            generation = open_registry(registry).route("bankchurn")
            options = None if generation is None else generation.options
            wanted = 0 if options is None or generation is None else generation.generation
            server.wait(lambda wanted=wanted: json.loads(
                server.get("/models/bankchurn/route")[1]).get("generation", 0) == wanted)  # fmt: skip
            done += 1
    assert done == 9
