"""Attack a server of the memory that a container has by default, again and again, while a client asks it.

ESTIBA_ATTACK_SECONDS makes it longer, ESTIBA_ATTACK_SEED chooses the attacks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from attacked import MIB
from memory_limit import MemoryLimit, memory_limit
from supervised import BODY, Server, pack, serving
from tensor_toys import brightness

import estiba

SECONDS = float(os.environ.get("ESTIBA_ATTACK_SECONDS", "30"))
SEED = int(os.environ.get("ESTIBA_ATTACK_SEED", "1"))
MEMORY = 512 * MIB
ATTACKS = Path(__file__).parents[1] / "support" / "attacks.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 200)]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, MemoryLimit]]:
    registry = tmp_path_factory.mktemp("security") / "registry"
    pack(registry)
    fields = {"pixels": {"image": {"mode": "rgb"}, "max_elements": 200_000}}
    estiba.pack(
        brightness(), {"pixels": np.ones((1, 3, 8, 8), np.float32)}, name="bright", registry=registry, fields=fields
    )
    settings = {"default": "toy", "access_log": 0}
    with (
        memory_limit(MEMORY) as limit,
        serving(registry, "--workers", "1", models=("toy", "bright"), settings=settings, limit=limit.add) as server,
    ):
        yield server, limit


@contextmanager
def attacking(port: int, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(ATTACKS), str(port), str(SECONDS), str(SEED)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", log.read_text()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_server_of_512_mb_survives_every_attack(
    limited: tuple[Server, MemoryLimit], tmp_path: Path, record_property: Any
) -> None:
    server, limit = limited
    workers = server.workers()
    url = f"http://127.0.0.1:{server.port}"
    slowest, asked = 0.0, 0
    with attacking(server.port, tmp_path / "attacks.log") as attacker, httpx.Client(base_url=url, timeout=30) as client:
        expected = client.post("/models/toy/predict", json=BODY).json()["predictions"]
        while attacker.poll() is None:
            began = time.monotonic()
            answer = client.post("/models/toy/predict", json=BODY)
            slowest, asked = max(slowest, time.monotonic() - began), asked + 1
            assert (answer.status_code, answer.json().get("predictions")) == (200, expected), _story(tmp_path, server)
            time.sleep(0.05)
        assert attacker.stdout is not None
        made = json.loads(attacker.stdout.read())
    story = f"{limit.worst() / MIB:.0f} MB at most, slowest answer {slowest:.2f} s of {asked}, attacks: {made}"
    print(story)
    assert server.workers() == workers, story + _story(tmp_path, server)
    assert limit.kills() == 0
    assert limit.worst() <= MEMORY, story


def _story(folder: Path, server: Server) -> str:
    """The last attacks, and the last lines of the server."""
    attacks = (folder / "attacks.log").read_text().splitlines()[-8:]
    return "\n".join((*attacks, *server.log.read_text().splitlines()[-8:]))
