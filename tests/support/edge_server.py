"""A server of toy models behind TLS or at a Unix socket, and certificates for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from toys import SUPPORT


class EdgeServer(NamedTuple):
    """A server in a process of its own: its `url`, and the `log` of its standard error."""

    process: subprocess.Popen[str]
    url: str
    log: Path


@contextlib.contextmanager
def edge_server(
    registry: Path, folder: Path, gateway: dict[str, Any] | None = None, **settings: Any
) -> Iterator[EdgeServer]:
    """A server of the model `price`, ended with the block."""
    log = folder / "server.log"
    spec = {"registry": str(registry), "models": ["price"], "settings": settings, "gateway": gateway or {}}
    with log.open("w") as stderr:
        command = [sys.executable, str(SUPPORT / "toy_server.py"), msgspec.json.encode(spec).decode()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, log.read_text()
        yield EdgeServer(process, url, log)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def certificate(folder: Path, name: str = "server", days: int = 30) -> tuple[Path, Path]:
    """A certificate of this machine that signs itself, and its private key."""
    folder.mkdir(exist_ok=True)
    file, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"]
    command += [f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", str(days)]
    subprocess.run([*command, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True)
    key.chmod(0o600)
    return file, key
