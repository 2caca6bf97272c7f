"""Plan one run of `estiba up`: which services run, and all that their references resolve to."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from estiba.core import addresses
from estiba.deploy.plan import dotenv, policies, secrets
from estiba.deploy.plan.plan import API_KEY, Http, Service
from estiba.deploy.plan.service_options import MODELS
from estiba.gateway.options import needs_keys
from estiba.local import debugger, orchestrate, port_offset
from estiba.local.containers import Choice, Containers
from estiba.local.orchestrate import Selection
from estiba.local.target import LOOPBACK, LocalTarget
from estiba.planning import EXTRA_STOP_SECONDS, lower, lower_applications
from estiba.project import Project


@dataclass(frozen=True)
class UpRequest:
    """The arguments of `estiba up`.

    Args:
        load: reads the project file. names: of services; by default all without a profile.
        profiles: whose services run too. env_file: instead of the project's `.env`.
        port: of the model server; all other ports move by the same offset. None keeps those of the project file.
        command: how the user called `estiba up`, for hints.
        debug: services that run under a debugger.
        containers: the engine for services that exist only as images.
    """

    load: Callable[[], Project]
    names: Sequence[str] = ()
    profiles: Sequence[str] = ()
    env_file: Path | None = None
    port: int | None = None
    command: str = "estiba up"
    debug: Sequence[str] = ()
    containers: Choice = "auto"


@dataclass(frozen=True)
class RunPlan:
    """The services of one run.

    Args:
        trusted: digests of the artifacts that the project has trained.
    """

    request: UpRequest
    project: Project
    target: LocalTarget
    selection: Selection
    trusted: frozenset[str] = frozenset()

    @property
    def applications(self) -> list[Service]:
        """The selected services besides the model server, each after its dependencies."""
        return [self.target.plan[name] for name in self.selection.services]

    @property
    def model_server(self) -> Service | None:
        """The server of all models as a service to run; None where it does not run."""
        if not self.selection.models:
            return None
        options = self.project.server
        return Service(
            MODELS,
            "",
            health=Http("/health/ready"),
            port=options.port,
            start_timeout=options.start_timeout + EXTRA_STOP_SECONDS,
            stop_grace=options.shutdown_delay + options.drain + EXTRA_STOP_SECONDS,
        )

    @property
    def needs_keys(self) -> bool:
        """True if requests to the model server need a key."""
        return self.selection.models and needs_keys(self.project.gateway, self.project.server)

    @property
    def in_containers(self) -> list[Service]:
        """The selected services that run in containers."""
        return [service for service in self.applications if self.target.in_container(service)]

    def host_ports(self) -> dict[int, str]:
        """By port, the address at which a service listens that a container may want to reach."""
        target = self.target
        ports = {service.port: LOOPBACK for service in self.applications if service.port is not None}
        if self.selection.models:
            own = [options.port for options in self.project.models.values() if options.port is not None]
            ports |= dict.fromkeys([target.server_port, *own], target.server_host)
        return ports

    @property
    def env_file(self) -> Path:
        return self.request.env_file or self.project.folder / dotenv.FILE


def plan(request: UpRequest) -> RunPlan:
    """Plan a run before models are trained, and check that all applications can run.

    `with_models` completes it when they are.

    Raises:
        NotFound: an unknown service or profile, or a program or file is not there. BadProject: a mistake in the project
            file or `.env`. EstibaError: a port is taken.
    """
    planned = _plan_applications(request, Containers(request.containers))
    needs_keys(planned.project.gateway, planned.project.server)  # refuses a host that is not allowed
    if planned.in_containers:
        planned.target.containers.remove_left(planned.project.folder)
    _check_ports(planned, planned.selection.services, models=planned.selection.models)
    processes = [s.name for s in planned.applications if s not in planned.in_containers]
    debuggers = debugger.allot(request.debug, processes)
    return replace(planned, target=replace(planned.target, debuggers=debuggers))


def with_models(planned: RunPlan, trusted: Collection[str]) -> RunPlan:
    """The plan with the services of the trained models, which generated files mention.

    Args:
        trusted: digests of the artifacts that the project has trained.

    Raises:
        NotFound, BadArtifact: the registry does not have a model.
    """
    if not planned.selection.models:
        return planned
    services = [service for service in lower(planned.project, local=True).services if service.models]
    # One server has all ports here: if its metrics were scraped at each of them, all would count several times.
    serving = [service if service.name == MODELS else replace(service, metrics="") for service in services]
    return replace(_with_serving(planned, serving), trusted=frozenset(trusted))


def plan_again(before: RunPlan) -> RunPlan:
    """The plan after a change of the project file, while `before` runs; raises as `plan`."""
    planned = _plan_applications(before.request, before.target.containers)
    taken = {service.port for service in before.applications}
    _check_ports(planned, [service.name for service in planned.applications if service.port not in taken], models=False)
    serving = [service for service in before.target.plan.services if service.models]
    planned = replace(planned, target=replace(planned.target, debuggers=before.target.debuggers))
    return replace(_with_serving(planned, serving), trusted=before.trusted)


def _with_serving(planned: RunPlan, serving: Sequence[Service]) -> RunPlan:
    plan = planned.target.plan
    found = replace(plan.policies, needs_keys=planned.needs_keys)
    if found.needs_keys:
        secrets.ensure(plan.folder, [API_KEY])
    applications = (policies.with_metrics_key(service, found) for service in plan.services)
    whole = replace(plan, services=(*serving, *applications), policies=found)
    return replace(planned, target=replace(planned.target, plan=whole))


def _check_ports(planned: RunPlan, services: Sequence[str], *, models: bool) -> None:
    port_offset.check(planned.project, services, planned.request.command, models=models)


def _plan_applications(request: UpRequest, containers: Containers) -> RunPlan:
    """Plan all but the models. The port of the server becomes that of the request: the next plan has the same."""
    loaded = request.load()
    project = port_offset.move(loaded, request.port)
    port = project.server.port
    if port != loaded.server.port:
        request = replace(request, port=port)
    variables = {**_variables(project, request.env_file), **os.environ}
    plan, host = lower_applications(project), addresses.reachable(project.server.host)
    inner = {name: options.port for name, options in loaded.services.items() if options.port is not None}
    target = LocalTarget(plan, host, port, variables, containers=containers, container_ports=inner)
    selection = orchestrate.select(target, request.names, request.profiles, project.models)
    planned = RunPlan(request, project, target, selection)
    target.check(planned.applications)
    return planned


def _variables(project: Project, env_file: Path | None) -> dict[str, str]:
    file = env_file or project.folder / dotenv.FILE
    return dotenv.read(file) if env_file or file.exists() else {}
