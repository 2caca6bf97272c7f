"""Serve a python-engine artifact that takes a given number of seconds for each row and records the rows it gets."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
from slow_model import Slow
from toys import PRICE, SUPPORT, Live

from estiba.model.artifact import golden_rows
from estiba.model.artifact.artifact import Artifact, Manifest, write
from estiba.model.coding.coder import Coder
from estiba.model.registry.registry import open_registry
from estiba.model.schema.signature_checks import validated

GOLDEN = -12345
"""The value of the golden row, which a worker predicts when it loads the model."""


def slow_artifact(folder: Path, seconds: float) -> Artifact:
    """The model `price` of the python engine."""
    file = io.BytesIO()
    joblib.dump(Slow(seconds, folder / "seen"), file)
    coder = Coder(validated(PRICE))
    golden = golden_rows.seal(coder, coder.check([{"x": float(GOLDEN)}]), np.array([[GOLDEN * 0.01]]))
    manifest = Manifest(
        name="price", engine="python", model_file="model.joblib", format="joblib", framework="by hand", signature=PRICE
    )
    return write(folder, manifest, {"model.joblib": file.getvalue(), "golden.json": golden, "card.md": b"# Slow\n"})


@contextmanager
def slow_server(
    folder: Path, seconds: float, *, gateway: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Live]:
    """A server in a separate process; `seen(folder)` returns the rows that reached its model."""
    registry, log = folder / "registry", folder / "slow.log"
    open_registry(registry).push(slow_artifact(folder, seconds))
    spec = {"registry": str(registry), "models": ["price"], "trust": True, "settings": settings}
    spec["gateway"] = gateway or {}
    with log.open("w") as stderr:
        command = [sys.executable, str(SUPPORT / "toy_server.py"), msgspec.json.encode(spec).decode()]
        environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("http://"), log.read_text()
        yield Live(process, int(line.rsplit(":", 1)[1]), log)
    finally:
        process.kill()
        process.communicate()


def seen(folder: Path) -> list[int]:
    """The values that reached the model, rounded to whole numbers, without its golden row."""
    return [int(line) for line in (folder / "seen").read_text().split() if int(line) != GOLDEN]
