"""Assemble the parts of one worker's server: telemetry, management application, server, and the catalog in force."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import estiba
from estiba.core.log import Log
from estiba.model.inference.load import Model
from estiba.serving.api.asgi_bridge import Bridge
from estiba.serving.api.management_routes import application
from estiba.serving.catalog import CurrentCatalog, Deployment, Route, build, single
from estiba.serving.edge import Edge
from estiba.serving.http.buffered import Buffered
from estiba.serving.memory_share import LargeRequests, memory_share
from estiba.serving.options import ServerOptions
from estiba.serving.pipeline import Pipeline
from estiba.serving.protocols.endpoint import Shared
from estiba.serving.route_spec import RouteHome, RouteSpec
from estiba.serving.server import PrefixedServer, Server
from estiba.serving.server_status import Health
from estiba.serving.shadow import Shadow
from estiba.serving.telemetry import tracing
from estiba.serving.telemetry.access_log import AccessLog
from estiba.serving.telemetry.metrics import Metrics
from estiba.serving.telemetry.tracing import Tracer
from estiba.serving.version_metrics import VersionMetrics
from estiba.serving.workers.messages import Configuration, ServedModel
from estiba.serving.workers.routes import BuiltRoute, build_route


class Telemetry:
    """Metrics, access log and spans of one worker."""

    def __init__(self, options: ServerOptions, edge: Edge, metrics_file: Path | None = None) -> None:
        self.log = Log(options.log)
        self.metrics = Metrics(metrics_file)
        self.metrics.slot("estiba_build_info", estiba.__version__, platform.python_version()).set(1)
        client = edge.client if options.log_clients else None
        skipped = self.metrics.slot("estiba_log_lines_skipped_total")
        self.access = AccessLog(self.log, options.access_log, options.access_log_limit, skipped, client)
        self.tracer: Tracer | None = None
        settings = tracing.settings(options.telemetry)
        if settings is not None:
            self._export(settings)

    def _export(self, settings: tracing.Settings) -> None:
        from estiba.serving.telemetry.otlp_exporter import Exporter

        dropped, lost = (self.metrics.slot("estiba_spans_dropped_total", reason) for reason in ("full", "failed"))
        self._exporter = Exporter(settings, dropped, lost, self.log)
        self.tracer = Tracer(settings, self._exporter.offer)

    def close(self) -> None:
        """Write and send what is queued, within a second."""
        self.access.close()
        if self.tracer is not None:
            self._exporter.close()


class Serving:
    """One worker's server, assembled: connections belong to `server`, configurations take effect by `apply`.

    Attributes:
        deployments: what is served now, by its entry of the configuration.
    """

    def __init__(
        self,
        options: ServerOptions,
        *,
        ports: Mapping[int, str] = MappingProxyType({}),
        metrics_file: Path | None = None,
        status_file: Path | None = None,
        routes: RouteHome | None = None,
    ) -> None:
        self._options = options
        self._ports = ports
        self._pipeline = Pipeline()
        edge = Edge(options)
        self._telemetry = telemetry = Telemetry(options, edge, metrics_file)
        self.log, self.metrics = telemetry.log, telemetry.metrics
        share = memory_share(options)
        self._executor = ThreadPoolExecutor(max_workers=share.threads, thread_name_prefix="large")
        buffered = Buffered(share.buffered)
        self._shared = Shared(
            options,
            self.metrics,
            self.log,
            telemetry.access,
            self._executor,
            buffered,
            LargeRequests(),
            telemetry.tracer,
        )
        self._versions = VersionMetrics(self.metrics)
        self.deployments: dict[ServedModel, Deployment] = {}
        self._routes: dict[str, BuiltRoute] = {}
        self.health = Health(status_file)
        self.current = CurrentCatalog()
        app = application(self.current, self.health, self.metrics, routes)
        management = Bridge(app, self.log, telemetry.access, telemetry.tracer, edge)
        kind = PrefixedServer if options.prefix else Server
        self.server = kind(self.current, management, self._shared, ports=ports)

    def use(self, pipeline: Pipeline) -> None:
        """Ask these policies from now on."""
        self._pipeline = pipeline
        self.server.answer_headers = None if pipeline.browsers is None else pipeline.browsers.headers
        self._attach()
        self.current.catalog = self.current.catalog._replace(pipeline=pipeline)

    def apply(self, configuration: Configuration, models: Mapping[ServedModel, tuple[Model, float]]) -> None:
        """Serve a configuration from now on; requests in flight finish with what they began with.

        Args:
            models: the configuration's models that are not served yet, each with the seconds that loading took.
        """
        served = _served(configuration)
        old = self.deployments
        new = {entry: Deployment(models[entry][0], self._shared) for entry in served if entry not in old}
        deployments = {entry: old[entry] if entry in old else new[entry] for entry in served}
        for entry in old.keys() - deployments.keys():
            self._versions.retire(old[entry])
        for entry, deployment in new.items():
            self._versions.serve(deployment, models[entry][1])
        self.deployments = deployments
        routes = self._build_routes(configuration)
        self._attach()
        self.current.catalog = build(
            routes,
            default=self._options.default,
            ports=self._ports,
            pipeline=self._pipeline,
            generation=configuration.generation,
        )

    def _build_routes(self, configuration: Configuration) -> list[Route]:
        by_version = {(entry.name, entry.version): each for entry, each in self.deployments.items()}
        old, self._routes = self._routes, {}
        for spec in configuration.routes:
            members = {each.version: by_version[spec.name, each.version] for each in spec.every}
            self._routes[spec.name] = self._build_route(old.pop(spec.name, None), spec, members)
        for gone in old.values():
            if gone.shadow is not None:
                gone.shadow.close()
        routes = {
            entry.name: single(each) for entry, each in self.deployments.items() if entry.name not in self._routes
        }
        return [*routes.values(), *(built.route for built in self._routes.values())]

    def _build_route(self, old: BuiltRoute | None, spec: RouteSpec, members: Mapping[str, Deployment]) -> BuiltRoute:
        """Build a route, unless it is as it was. Copies that wait for a shadow stay where the shadow does."""
        if old is not None and (old.spec, old.members) == (spec, members):
            return old
        route = build_route(spec, members)
        shadow = None if old is None else old.shadow
        if shadow is not None and shadow.deployment is not route.shadow:
            shadow.close()
            shadow = None
        if shadow is None and route.shadow is not None:
            shadow = Shadow(route.shadow, self.metrics, self.log)
        return BuiltRoute(spec, members, route, shadow)

    def _attach(self) -> None:
        """Give every deployment the policies, and those of routes their shadows."""
        for deployment in self.deployments.values():
            deployment.batcher.pipeline = self._pipeline.of(deployment.model)
        for built in self._routes.values():
            built.attach(self._pipeline)

    def drain(self) -> None:
        """Close connections with their responses, and report that the worker is not ready."""
        self.server.draining = self.health.draining = True

    def close(self) -> None:
        """Stop threads and engines, and let policies write what they hold."""
        if self._pipeline.close is not None:
            self._pipeline.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
        for batcher in self.current.catalog.batchers():
            batcher.close()
        self._telemetry.close()


def _served(configuration: Configuration) -> list[ServedModel]:
    """The models that are served: all of a name with a route, else the last of a name."""
    routed = {route.name for route in configuration.routes}
    last = {model.name: model for model in configuration.models}
    return [model for model in configuration.models if model.name in routed or last[model.name] == model]
