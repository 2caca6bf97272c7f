"""Run the model server as a child process of `estiba up`, by the protocol of `estiba.core.child`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from estiba.core import child
from estiba.core.child import Failed
from estiba.core.errors import EstibaError
from estiba.gateway.options import Gateway
from estiba.model.training import fingerprints
from estiba.monitoring.options import DriftOptions
from estiba.serve import Running, Stores, serve
from estiba.serving.options import ServerOptions


class ModelServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of `estiba.serve.serve`.

    Args:
        folder: of the project. trusted: digests of the artifacts that it has trained.
    """

    folder: str
    refs: list[str]
    options: ServerOptions
    registry: str
    trusted: list[str]
    ports: dict[int, str]
    gateway: Gateway = Gateway()
    drift: DriftOptions = DriftOptions()


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Report that the server answers: the fields of `estiba.serve.Running`."""

    url: str
    workers: int
    threads: int
    examples: dict[str, dict[str, Any]]


Report = Ready | Failed


class TrustedArtifacts:
    """Digests of the artifacts that a project has trained itself, including those that it trains while this runs.

    Their code may run when they are loaded. So a server trusts a model that `estiba train` makes while it runs, as it
    would after a restart.
    """

    def __init__(self, folder: Path, names: Sequence[str], known: Collection[str]) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._known = frozenset(known)

    def digests(self) -> frozenset[str]:
        """All digests up to now; one that was trusted stays so."""
        self._known = self._known.union(*(fingerprints.claimed(self._folder, name) for name in self._names))
        return self._known


def main() -> int:
    """Serve until a signal or the end of the parent stops it; return the exit code."""
    spec = child.read_spec(ModelServerSpec)
    report = child.open_reports()
    child.on_parent_exit(lambda: os.kill(os.getpid(), signal.SIGTERM))

    def ready(running: Running) -> None:
        examples = {name: dict(record) for name, record in running.examples.items()}
        report(Ready(running.url, running.workers, running.threads, examples))

    trust = TrustedArtifacts(Path(spec.folder), spec.refs, spec.trusted).digests
    stores = Stores(spec.registry, trust, spec.gateway, spec.drift)
    try:
        serve(spec.refs, spec.options, stores, ports=spec.ports, on_ready=ready)
    except EstibaError as error:
        report(Failed.of(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
