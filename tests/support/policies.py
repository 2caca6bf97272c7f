"""Start a server whose worker module and auxiliary processes are modules of this folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from toys import SUPPORT, Live


@contextmanager
def policy_server(spec: dict[str, Any], folder: Path) -> Iterator[Live]:
    """A server as `policy_server.py` starts it, ended with the block."""
    log = folder / "policies.log"
    with log.open("w") as stderr:
        command = [sys.executable, str(SUPPORT / "policy_server.py"), msgspec.json.encode(spec).decode()]
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
