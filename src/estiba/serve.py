"""Serve models from a registry, as `estiba serve`, `estiba up` and every container do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Any

from estiba.core.errors import BadArtifact, EstibaError
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import Registry, open_registry
from estiba.serving.options import ServerOptions
from estiba.serving.workers.messages import ServedModel


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    Args:
        threads: of native libraries, in each worker.
        examples: by model, a record to try it with.
        ports: further ports, each with the model that answers there.
    """

    url: str
    workers: int
    threads: int
    examples: Mapping[str, Mapping[str, Any]]
    ports: Mapping[int, str] = field(default_factory=dict)


def serve(
    refs: Sequence[str],
    options: ServerOptions,
    *,
    registry: str,
    trust: bool | Callable[[], Collection[str]] = False,
    ports: Mapping[int, str] = MappingProxyType({}),
    on_ready: Callable[[Running], None],
) -> None:
    """Serve models until a signal to stop. An alias that moves is followed.

    Args:
        refs: references into the registry, or paths of artifact directories.
        trust: allow models whose file can run code when it is read; or a function that returns the digests of those
            that are allowed, which may become more.
        ports: further ports, each with the model that `POST /predict` asks there.

    Raises:
        NotFound, BadArtifact: a model does not exist, or is damaged. EstibaError: the address is taken or not allowed.
    """
    from estiba.serving.workers.hot_swap import Source
    from estiba.serving.workers.supervisor import supervise

    check_address(options)
    store = open_registry(registry)
    first: dict[str, ServedModel] = {}

    def resolve(ref: str) -> ServedModel:
        model = _served(ref, store, trust, strict=ref not in first)
        first.setdefault(ref, model)
        return model

    def ready(url: str, workers: int, threads: int) -> None:
        examples = {model.name: _example(Path(model.path)) for model in first.values()}
        on_ready(Running(url, workers, threads, examples, ports))

    supervise(options, refs, Source(resolve, store.stamp, options.poll), ports=ports, on_ready=ready)


def find(ref: str, store: Registry) -> tuple[Artifact, str]:
    """The artifact of a reference or a path, and its version: for a path, the first 12 digits of its digest.

    Raises:
        NotFound, BadArtifact: it does not exist, or is damaged. EstibaError: the reference is invalid.
    """
    if os.sep in ref or Path(ref).is_dir():
        directory = artifact.read(Path(ref))
        return directory, directory.digest[:12]
    version = store.resolve(ref)
    return store.fetch(version), str(version.version)


def _served(ref: str, store: Registry, trust: bool | Callable[[], Collection[str]], *, strict: bool) -> ServedModel:
    """Resolve a reference.

    Once the server runs (not `strict`), a damaged artifact is a result with an error, and the version before it goes
    on serving.
    """
    try:
        model, version = find(ref, store)
    except BadArtifact as error:
        if strict or os.sep in ref:
            raise
        named = store.resolve(ref)
        return ServedModel(ref, named.name, str(named.version), "", False, error.message)
    trusted = trust if isinstance(trust, bool) else model.digest in trust()
    size = model.file(model.manifest.model_file).stat().st_size
    return ServedModel(ref, model.manifest.name, version, str(model.path), trusted, model_bytes=size)


def _example(path: Path) -> Mapping[str, Any]:
    """A golden row of an artifact; empty for tensors, which are too large for an example."""
    golden: Mapping[str, Any] = json.loads((path / "golden.json").read_bytes())
    records: list[Mapping[str, Any]] = golden["records"]
    if any(isinstance(value, dict) for value in records[0].values()):
        return {}
    return next((record for record in records if None not in record.values()), records[0])


def check_address(options: ServerOptions) -> None:
    """Refuse an address that other machines can reach, unless `insecure` allows it."""
    if not options.insecure and not _is_loopback(options.host):
        raise EstibaError(
            f"Serving on {options.host} would let every machine that reaches it use the models.",
            hint="Bind to 127.0.0.1 behind a proxy that authenticates, "
            "or pass --insecure (insecure = true in [server]).",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
