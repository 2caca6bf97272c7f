"""The model server as one process among others: run by `estiba up` where services take part.

It reads a Spec from standard input. Reports are JSON objects on what was its standard output; everything else goes to
standard error. It ends politely when its input does, because then nobody keeps it any more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from io import RawIOBase
from pathlib import Path
from typing import Any

import msgspec

from estiba.core.errors import EstibaError
from estiba.local import up
from estiba.serve import Running, serve
from estiba.serving.options import ServerOptions


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve: see `estiba.serve.serve`.

    Args:
        folder: of the project. trust: digests of what was trained there before.
    """

    folder: str
    refs: list[str]
    options: ServerOptions
    registry: str
    trust: list[str]
    ports: dict[int, str]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The server answers: the fields of `estiba.serve.Running`."""

    url: str
    workers: int
    threads: int
    examples: dict[str, dict[str, Any]]


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The server cannot start: an EstibaError."""

    message: str
    hint: str | None
    exit_code: int


Report = Ready | Failed


def main() -> int:
    """Serves until a signal says stop; the exit code."""
    # Not buffered: a thread that waits in a buffered read keeps an interpreter from ending.
    told = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    spec = msgspec.json.decode(told.readline(), type=Spec)
    channel = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def tell(report: Report) -> None:
        channel.write(msgspec.json.encode(report) + b"\n")

    def ready(running: Running) -> None:
        examples = {name: dict(record) for name, record in running.examples.items()}
        tell(Ready(running.url, running.workers, running.threads, examples))

    threading.Thread(target=_end_with, args=(told,), daemon=True).start()
    trust = up.Ours(Path(spec.folder), spec.refs, spec.trust).digests
    try:
        serve(spec.refs, spec.options, registry=spec.registry, trust=trust, ports=spec.ports, on_ready=ready)
    except EstibaError as error:
        tell(Failed(error.message, error.hint, error.exit_code))
        return error.exit_code
    return 0


def _end_with(told: RawIOBase) -> None:
    told.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
