"""The model server as one process among others: run by `estiba up` where services take part.

It reads a Spec from standard input and then, line by line, digests of more artifacts that were made here. Reports are
JSON objects on what was its standard output; everything else goes to standard error. It ends politely when its input
does, because then nobody keeps it any more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from io import RawIOBase
from typing import Any

import msgspec

from estiba import local
from estiba.core.errors import EstibaError
from estiba.local import Running
from estiba.serving.options import ServerOptions


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve: see `local.serve`. `trust` holds digests."""

    refs: list[str]
    options: ServerOptions
    registry: str
    trust: list[str]
    ports: dict[int, str]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The server answers: the fields of `local.Running`."""

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

    trust = set(spec.trust)
    threading.Thread(target=_listen, args=(told, trust), daemon=True).start()
    try:
        local.serve(spec.refs, spec.options, registry=spec.registry, trust=trust, ports=spec.ports, on_ready=ready)
    except EstibaError as error:
        tell(Failed(error.message, error.hint, error.exit_code))
        return error.exit_code
    return 0


def _listen(told: RawIOBase, trust: set[str]) -> None:
    for line in told:
        trust.update(msgspec.json.decode(line, type=list[str]))
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
