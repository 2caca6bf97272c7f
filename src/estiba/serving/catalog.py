"""The catalog of what a worker serves: deployments, the routes to them, and the table of prediction paths.

A catalog is immutable. It is built when the configuration changes and takes effect by one assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from estiba.core.errors import NotFound
from estiba.core.suggest import did_you_mean
from estiba.model.inference.load import Model, TensorModel
from estiba.serving.batcher import Batcher
from estiba.serving.exchange import Exchange
from estiba.serving.pipeline import Pipeline
from estiba.serving.protocols.endpoint import Endpoint, Shared
from estiba.serving.protocols.kserve_v1 import KserveV1Endpoint
from estiba.serving.protocols.mlflow import MlflowEndpoint
from estiba.serving.protocols.native import NativeEndpoint
from estiba.serving.protocols.open_inference import OpenInferenceEndpoint
from estiba.serving.protocols.tensor_inference import TensorInferenceEndpoint
from estiba.serving.protocols.tensor_instances import TensorMlflowEndpoint, TensorV1Endpoint
from estiba.serving.protocols.tensor_native import TensorNativeEndpoint
from estiba.serving.route_spec import RouteSpec
from estiba.serving.tensor_batcher import TensorBatcher

ENDPOINTS: tuple[type[Endpoint], ...] = (NativeEndpoint, OpenInferenceEndpoint, MlflowEndpoint, KserveV1Endpoint)

TENSOR_ENDPOINTS: tuple[type[Endpoint], ...] = (
    TensorNativeEndpoint,
    TensorInferenceEndpoint,
    TensorMlflowEndpoint,
    TensorV1Endpoint,
)
"""The same for models of tensors."""


Choose = Callable[[Exchange], "Target"]


class Deployment:
    """One version of one model, loaded and proven, behind every protocol.

    Attributes:
        endpoints: by protocol.
    """

    def __init__(self, model: Model, shared: Shared) -> None:
        self.model = model
        parts = (shared.metrics, shared.options.max_queued_rows, shared.log)
        self.batcher = TensorBatcher(model, *parts) if isinstance(model, TensorModel) else Batcher(model, *parts)
        self._shared = shared
        self.endpoints = self.endpoints_before(self.batcher)
        self._variants: dict[str, Mapping[str, Endpoint]] = {}

    def endpoints_before(self, batcher: Batcher, variant: str = "") -> Mapping[str, Endpoint]:
        """Make endpoints by protocol, before a batcher."""
        shared = self._shared._replace(variant=variant)
        kinds = TENSOR_ENDPOINTS if self.model.signature.is_tensors else ENDPOINTS
        return {each.protocol: each(batcher, shared) for each in kinds}

    def endpoints_of(self, variant: str) -> Mapping[str, Endpoint]:
        """The endpoints by protocol whose answers name a variant."""
        if variant not in self._variants:
            self._variants[variant] = self.endpoints_before(self.batcher, variant)
        return self._variants[variant]


class Target(NamedTuple):
    """A deployment that answers requests of a route, and its endpoints by protocol, which name the variant."""

    deployment: Deployment
    endpoints: Mapping[str, Endpoint]


class Route(NamedTuple):
    """The deployments that answer for a name.

    Args:
        targets: the one that represents the model is the first.
        endpoints: by protocol, those that take the requests for which nothing is chosen before they are decoded.
        choose: the target of a request; None where `endpoints` take all requests.
        shadow: gets a copy of the requests, and answers none.
        spec: what it was built from; None for a model without a route.
    """

    name: str
    targets: tuple[Target, ...]
    endpoints: Mapping[str, Endpoint]
    choose: Choose | None = None
    shadow: Deployment | None = None
    spec: RouteSpec | None = None

    @property
    def primary(self) -> Deployment:
        """The deployment that represents the route: the first target."""
        return self.targets[0].deployment


class PathEntry(NamedTuple):
    """An entry of the route table: the route that a path asks, and the protocol that it speaks.

    Args:
        endpoint: the route's endpoint of that protocol.
        choose: of the route.
    """

    route: Route
    protocol: str
    endpoint: Endpoint
    choose: Choose | None


class Catalog(NamedTuple):
    """Everything that is served.

    Args:
        paths: the route table. Port 0 stands for every port without a default model of its own.
        routes: by name, in the order in which they were first served.
        deployments: all versions of a model by its name, the primary one first.
        defaults: by port, the model that short paths such as `/predict` ask; absent if there is none.
        generation: number of the configuration that it was built from.
    """

    paths: Mapping[tuple[int, bytes], PathEntry] = MappingProxyType({})
    routes: Mapping[str, Route] = MappingProxyType({})
    deployments: Mapping[str, tuple[Deployment, ...]] = MappingProxyType({})
    defaults: Mapping[int, str] = MappingProxyType({})
    pipeline: Pipeline = Pipeline()
    generation: int = 0

    def default(self, port: int = 0) -> str | None:
        """The model that short paths ask at a port; None if there is none."""
        return self.defaults.get(port)

    def route(self, name: str) -> Route:
        """The route of that name; raises NotFound."""
        if name not in self.routes:
            known = ", ".join(sorted(self.routes)) or "none"
            meant = did_you_mean(name, self.routes)
            raise NotFound(f"There is no model {name!r} here{meant}", hint=f"Being served: {known}.")
        return self.routes[name]

    def model(self, name: str) -> Model:
        """The primary version of a model; raises NotFound."""
        return self.route(name).primary.model

    def models(self) -> list[Model]:
        """The primary version of every model, by name."""
        return [self.routes[name].primary.model for name in sorted(self.routes)]

    def versions(self, name: str) -> dict[str, Model]:
        """The loaded versions of a model."""
        return {deployment.model.version: deployment.model for deployment in self.deployments[name]}

    def batchers(self) -> Iterable[Batcher]:
        """The batcher of every deployment."""
        return (each.batcher for deployments in self.deployments.values() for each in deployments)


class CurrentCatalog:
    """Holds the catalog in force. Replacing it is one assignment, so that a request sees one catalog only."""

    __slots__ = ("catalog",)

    def __init__(self) -> None:
        self.catalog = Catalog()


def single(deployment: Deployment) -> Route:
    """A route with one target."""
    target = Target(deployment, deployment.endpoints)
    return Route(deployment.model.name, (target,), deployment.endpoints)


def build(
    routes: Sequence[Route],
    *,
    default: str = "",
    ports: Mapping[int, str] = MappingProxyType({}),
    pipeline: Pipeline = Pipeline(),  # noqa: B008 (immutable)
    generation: int = 0,
) -> Catalog:
    """Build a catalog.

    Args:
        default: the model that short paths ask; by default the only one.
        ports: ports with a default model of their own.
    """
    by_name = {route.name: route for route in routes}
    defaults = {port: name for port, name in ports.items() if name in by_name}
    if default in by_name:
        defaults[0] = default
    elif not default and len(by_name) == 1:
        defaults[0] = next(iter(by_name))
    deployments = {name: _deployments(route) for name, route in by_name.items()}
    paths: dict[tuple[int, bytes], PathEntry] = {}
    for port in (0, *ports):
        for name, route in by_name.items():
            is_default = defaults.get(port) == name
            paths |= {(port, path): entry for path, entry in _paths(route, deployments[name], is_default)}
    return Catalog(paths, by_name, deployments, defaults, pipeline, generation)


def _deployments(route: Route) -> tuple[Deployment, ...]:
    every = [target.deployment for target in route.targets] + ([route.shadow] if route.shadow is not None else [])
    return tuple(dict.fromkeys(every))


def _paths(route: Route, deployments: Sequence[Deployment], is_default: bool) -> Iterable[tuple[bytes, PathEntry]]:
    """The prediction paths of one model."""
    name = route.name
    for deployment in deployments:
        own, version = single(deployment), deployment.model.version
        yield _entry(f"/models/{name}/versions/{version}/predict", own, "native")
        yield _entry(f"/v2/models/{name}/versions/{version}/infer", own, "v2")
    yield _entry(f"/models/{name}/predict", route, "native")
    yield _entry(f"/v2/models/{name}/infer", route, "v2")
    yield _entry(f"/v1/models/{name}:predict", route, "v1")
    if is_default:
        yield _entry("/predict", route, "native")
        yield _entry("/invocations", route, "mlflow")


def _entry(path: str, route: Route, protocol: str) -> tuple[bytes, PathEntry]:
    return path.encode(), PathEntry(route, protocol, route.endpoints[protocol], route.choose)
