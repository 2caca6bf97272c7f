"""Select the services of a plan, and run them as processes of this machine in the order of their dependencies."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from estiba.core.errors import NotFound
from estiba.core.process_group import marked
from estiba.core.suggest import did_you_mean
from estiba.deploy.plan.plan import Command, Plan
from estiba.deploy.plan.service_options import MODELS
from estiba.local import container_launch, debugger, virtualenvs
from estiba.local.health_probe import CommandProbe
from estiba.local.host_gateway import HostGateway
from estiba.local.service_runner import ServiceRunner
from estiba.local.status import Launch
from estiba.local.target import LocalTarget
from estiba.local.virtualenvs import EnvironmentSpec

POLL_SECONDS = 0.2
"""The interval between checks that something is left to run."""


@dataclass(frozen=True)
class Selection:
    """The services to run.

    Args:
        services: names, each after its dependencies. models: True if the server of all models runs.
        left_out: by name, the reason why a service cannot run here; no selected service depends on it.
    """

    services: tuple[str, ...]
    models: bool
    left_out: Mapping[str, str]


def select(target: LocalTarget, names: Sequence[str], profiles: Sequence[str], models: Collection[str]) -> Selection:
    """Select the named services and those of the profiles, with all their dependencies.

    Args:
        names: of services; by default all without a profile, and the models.
        models: names of the project's models, each of which stands for the server of all models.

    Raises:
        NotFound: an unknown service or profile; or a service that is named or needed cannot run here.
    """
    plan = target.plan
    _check_names(plan, names, profiles, models)
    wanted = [MODELS if name in models else name for name in names]
    if not names:
        wanted = [service.name for service in plan.services if not service.profile] + [MODELS] * bool(models)
    wanted += [service.name for service in plan.services if service.profile and service.profile in profiles]
    # A container engine is asked for only where a selected service needs one.
    missing = cache(lambda name: "" if name == MODELS else target.unavailable(plan[name]))
    selected: set[str] = set()
    for name in wanted:
        if not missing(name) or name in names:
            _add_with_dependencies(plan, name, selected, missing)
    order = tuple(service.name for service in plan.services if service.name in selected)
    return Selection(order, MODELS in selected, {name: reason for name in wanted if (reason := missing(name))})


def _add_with_dependencies(
    plan: Plan, name: str, selected: set[str], missing: Callable[[str], str], needed_by: str = ""
) -> None:
    """Select a service and its dependencies; raise NotFound where one of them cannot run here."""
    if reason := missing(name):
        needed = f", and {needed_by} needs it" if needed_by else ""
        if plan[name].build is not None:
            hint = "Install its program on this machine, or run the project in containers: estiba compose"
        elif plan[name].command:
            hint = "Install its program on this machine, or start docker or podman, which run its image."
        else:
            hint = f"Start docker or podman, which run its image, or set `command` in [services.{name}]."
        raise NotFound(f"The service {name} cannot run here: {reason}{needed}.", hint=hint)
    if name in selected:
        return
    selected.add(name)
    if name != MODELS:
        for dependency in plan[name].needs:
            _add_with_dependencies(plan, dependency, selected, missing, name)


def _check_names(plan: Plan, names: Sequence[str], profiles: Sequence[str], models: Collection[str]) -> None:
    services = [service.name for service in plan.services]
    known = {"service": [*([MODELS] if models else []), *models, *services], "profile": list(plan.profiles)}
    for kind, given in (("service", names), ("profile", profiles)):
        for name in given:
            if name not in known[kind]:
                meant = did_you_mean(name, known[kind])
                hint = f"There are: {', '.join(known[kind])}." if known[kind] else f"The project has no {kind}s."
                raise NotFound(f"There is no {kind} {name!r}{meant}", hint=hint)


async def prepare(
    target: LocalTarget, runner: ServiceRunner, running: Collection[str], mark: str, gateway: HostGateway
) -> Launch:
    """Create the files and packages of a service, and return how to start it.

    Args:
        running: names of all services that run. mark: of the guard. gateway: through which containers reach them.

    Raises:
        NotFound: its program is not installed. EstibaError: packages, files or an image could not be had.
    """
    service = runner.service
    await asyncio.to_thread(target.create_files, service, running)
    if target.in_container(service):
        return await container_launch.prepare(target, runner, mark, gateway)
    packages = await _packages(target, runner, mark)
    environment, argv = target.environment(service, packages), target.argv(service)
    program = target.program(service, packages)
    if not program:
        where = f" or in the environment of its requirements ({packages})" if packages else ""
        raise NotFound(f"{argv[0]} is not on PATH{where}.", hint=f"Check command in [services.{service.name}].")
    folder = target.plan.folder / service.folder
    probe = None
    if isinstance(service.health, Command):
        probe_argv = [target.resolved(service, argument) for argument in service.health.argv]
        probe = CommandProbe(probe_argv, folder, marked(environment, mark, f"{service.name}:health"))
    command = [program, *argv[1:]]
    if port := target.debuggers.get(service.name):
        command, environment = debugger.wrap(service.name, command, port), debugger.environment(environment)
    return Launch(command, folder, marked(environment, mark, service.name), probe)


async def _packages(target: LocalTarget, runner: ServiceRunner, mark: str) -> Path | None:
    """The virtual environment of a service; None where it has no requirements."""
    build = runner.service.build
    if build is None or build.requirements is None or build.kind == "training":  # that is Estiba's own program
        return None
    spec = EnvironmentSpec(build.requirements, build.python, target.folder / "environments")
    if not virtualenvs.ready(spec.folder):
        runner.report_installing()
    environment = marked({**os.environ, **target.variables}, mark, f"{runner.name}:install")
    return await virtualenvs.ensure(spec, environment, runner.forward_line)


async def run(
    runners: Sequence[ServiceRunner], stop: asyncio.Event, kill: asyncio.Event, *, forever: bool = False
) -> bool:
    """Start all services, keep them running, and stop them in reverse order.

    Args:
        runners: include all dependencies.
        stop: set to stop them. kill: set to kill what is left.
        forever: True to go on when all have finished, because a changed file may start them again.

    Returns:
        True if no service failed.
    """
    peers = {runner.name: runner for runner in runners}
    for runner in runners:
        runner.start(peers)
    try:
        while not stop.is_set() and (forever or not all(runner.finished for runner in runners)):
            for runner in runners:
                if runner.crash is not None:
                    raise runner.crash
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), POLL_SECONDS)
    finally:
        await _stop(runners, kill)
    return not any(runner.failed for runner in runners)


async def _stop(runners: Sequence[ServiceRunner], kill: asyncio.Event) -> None:
    """Stop each service after those that depend on it; kill all as soon as `kill` is set."""

    async def stop(runner: ServiceRunner) -> None:
        for other in runners:
            if runner.name in other.service.needs:
                await other.wait_until(lambda other=other: other.at_rest)  # type: ignore[misc]
        await runner.stop()

    stopping = asyncio.gather(*(stop(runner) for runner in runners))
    killed = asyncio.create_task(kill.wait())
    both: list[asyncio.Future[Any]] = [stopping, killed]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if killed.done():
        await asyncio.gather(*(runner.kill() for runner in runners))
    killed.cancel()
    await stopping
