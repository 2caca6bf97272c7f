"""Serve models from a registry, as `estiba serve`, `estiba up` and every container do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from estiba.core.addresses import is_loopback
from estiba.core.errors import BadArtifact, BadRequest, EstibaError, NotFound
from estiba.gateway.options import Gateway
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import Registry, open_registry
from estiba.monitoring.options import DriftOptions
from estiba.serving.options import ServerOptions
from estiba.serving.workers.messages import ServedModel

if TYPE_CHECKING:
    from estiba.serving.workers.hot_swap import Resolved
    from estiba.serving.workers.supervisor import Programs


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    Args:
        threads: of native libraries, in each worker.
        examples: by model, a record to try it with.
        needs_key: requests need an API key. key_file: of the first one; empty for none.
        ports: further ports, each with the model that answers there.
    """

    url: str
    workers: int
    threads: int
    examples: Mapping[str, Mapping[str, Any]]
    ports: Mapping[int, str] = field(default_factory=dict)
    needs_key: bool = False
    key_file: str = ""


@dataclass(frozen=True)
class Stores:
    """The places that a server reads from.

    Args:
        registry: folder or URL of the registry.
        trust: allow models whose file can run code when it is read; or a function that returns the digests of those
            that are allowed, which may become more.
        gateway: the policies for requests, and the state store.
        drift: what is counted and compared; kept in the same state store.
    """

    registry: str
    trust: bool | Callable[[], Collection[str]] = False
    gateway: Gateway = Gateway()  # noqa: RUF009 - it is frozen
    drift: DriftOptions = DriftOptions()  # noqa: RUF009


def serve(
    refs: Sequence[str],
    options: ServerOptions,
    stores: Stores,
    *,
    ports: Mapping[int, str] = MappingProxyType({}),
    on_ready: Callable[[Running], None],
) -> None:
    """Serve models until a signal to stop. An alias that moves is followed, and so is a route.

    Args:
        refs: references into the registry, or paths of artifact directories.
        ports: further ports, each with the model that `POST /predict` asks there.

    Raises:
        NotFound, BadArtifact: a model does not exist, or is damaged. EstibaError: the address is taken, or a mistake
            in the options.
    """
    from estiba.serving.http.proxies import check_proxies
    from estiba.serving.workers.hot_swap import Source
    from estiba.serving.workers.supervisor import supervise

    check_proxies(options.trusted_proxies, options.prefix)
    _check_listening(options, ports)
    store = open_registry(stores.registry)
    first: dict[str, ServedModel] = {}

    def resolve(ref: str) -> ServedModel:
        model = _served(ref, store, stores.trust, strict=ref not in first)
        first.setdefault(ref, model)
        return model

    def ready(url: str, workers: int, threads: int) -> None:
        examples = {model.name: _example(Path(model.path)) for model in first.values()}
        on_ready(Running(url, workers, threads, examples, ports, stores.gateway.needs_keys))

    if stores.gateway.log.enabled:
        from estiba.gateway.log_retention import LogKeeper

        LogKeeper(stores.gateway.state, stores.gateway.log.keep_days).start()
    if stores.drift.enabled:
        from estiba.monitoring.keeper import DriftKeeper

        DriftKeeper(stores.gateway.state, stores.drift).start()
    source = Source(resolve, store.stamp, options.poll, lambda model: _routed(model, store, stores))
    supervise(options, refs, source, ports=ports, programs=_programs(stores, options), on_ready=ready)


def _check_listening(options: ServerOptions, ports: Mapping[int, str]) -> None:
    """Raise EstibaError for settings of the socket that do not go together."""
    if bool(options.certificate) != bool(options.certificate_key):
        raise EstibaError(
            "A certificate needs its private key, and the other way round.",
            hint="Give both: --certificate FILE --certificate-key FILE",
        )
    if options.unix and options.certificate:
        raise EstibaError("A Unix socket needs no TLS: it does not leave this machine.", hint="Leave one of them out.")
    if options.unix and ports:
        raise EstibaError("Models cannot have ports of their own at a Unix socket.", hint="Ask /models/NAME/predict.")


def _programs(stores: Stores, options: ServerOptions) -> Programs:
    """The programs of a server: plain workers, or those that ask policies."""
    from estiba.serving.route_spec import RouteHome
    from estiba.serving.workers.supervisor import Programs

    gateway = stores.gateway
    # Without keys, only clients on this machine may decide what others get.
    may_change = gateway.needs_keys or bool(options.unix) or is_loopback(options.host)
    routes = RouteHome(stores.registry, tuple(gateway.routes), may_change)
    if not gateway.has_policies and not stores.drift.enabled:
        return Programs(routes=routes)
    from estiba.gateway.policy import StoredPolicy
    from estiba.serving.workers.policy_follower import PolicySource

    policy = StoredPolicy(gateway)
    if gateway.jwt.issuer and gateway.needs_keys:
        from estiba.gateway.jwt import TokenPolicy, Tokens

        Tokens(TokenPolicy(gateway.jwt))  # say at once what is not installed
    if stores.drift.enabled:
        from estiba.monitoring.worker import WatchedPolicy

        watched = WatchedPolicy(gateway.state, stores.drift, policy.read, policy.last)
        policies = PolicySource(watched.read, watched.last, attach=policy.attach)
        return Programs(worker="estiba.monitoring.worker", policies=policies, routes=routes)
    policies = PolicySource(policy.read, policy.last, attach=policy.attach)
    return Programs(worker="estiba.gateway.worker", policies=policies, routes=routes)


def _routed(model: ServedModel, store: Registry, stores: Stores) -> Resolved:
    """All versions of a reference that was resolved: where its model has a route, those of the route."""
    from estiba.gateway.routes import follows_route, route_of
    from estiba.serving.workers.hot_swap import Resolved

    alone = Resolved((model,), None, model.error)
    if model.error or not follows_route(model.ref):
        return alone
    try:
        followed = route_of(store, model.name, stores.gateway.routes)
        if followed is None:
            return alone
        route, versions = followed
        artifacts = {str(version.version): store.fetch(version) for version in versions.values()}
    except (NotFound, BadRequest, BadArtifact) as error:
        return Resolved((model,), None, error.message)
    entries = (_entry(model.ref, version, each, stores.trust) for version, each in artifacts.items())
    return Resolved(tuple(sorted(entries, key=lambda entry: entry != model)), route)


def find(ref: str, store: Registry) -> tuple[Artifact, str]:
    """The artifact of a reference or a path, and its version: for a path, the first 12 digits of its digest.

    Raises:
        NotFound, BadArtifact: it does not exist, or is damaged. EstibaError: the reference is invalid.
    """
    # A folder that happens to have a model's name is no artifact.
    if os.sep in ref or (Path(ref) / artifact.MANIFEST).is_file():
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
    return _entry(ref, version, model, trust)


def _entry(ref: str, version: str, model: Artifact, trust: bool | Callable[[], Collection[str]]) -> ServedModel:
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
