"""Processes: the services of a plan as processes of this machine, in order, until somebody says stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.core import ports
from estiba.core.errors import EstibaError, NotFound
from estiba.core.process_group import marked
from estiba.core.suggest import did_you_mean
from estiba.deploy.plan.plan import Command, Plan, Service
from estiba.deploy.plan.service_options import MODELS
from estiba.local import virtualenvs
from estiba.local.service_runner import ServiceRunner
from estiba.local.status import Launch
from estiba.local.target import HOST, LocalTarget
from estiba.local.virtualenvs import Wanted

TICK = 0.2
"""Seconds between looks at whether anything is left to run."""


@dataclass(frozen=True)
class Choice:
    """What takes part.

    Args:
        services: names, each behind what it needs. models: whether the server of all models is needed.
        left_out: by name, why a service cannot run here; nothing that takes part needs it.
    """

    services: tuple[str, ...]
    models: bool
    left_out: Mapping[str, str]


def choose(target: LocalTarget, names: Sequence[str], profiles: Sequence[str], models: Collection[str]) -> Choice:
    """Which services take part: those that are named and those of the profiles, with all that they need.

    Args:
        names: of services; by default all that have no profile, and the models.
        models: names of the project's models, each of which stands for the server of all models.

    Raises:
        NotFound: there is no such service or profile; or one that cannot run here is named, or needed.
    """
    plan = target.plan
    _check_names(plan, names, profiles, models)
    wanted = [MODELS if name in models else name for name in names]
    if not names:
        wanted = [service.name for service in plan.services if not service.profile] + [MODELS] * bool(models)
    wanted += [service.name for service in plan.services if service.profile and service.profile in profiles]
    missing = {service.name: reason for service in plan.services if (reason := target.missing(service))}
    taking: set[str] = set()
    for name in wanted:
        if name not in missing or name in names:
            _bring(plan, name, taking, missing)
    order = tuple(service.name for service in plan.services if service.name in taking)
    return Choice(order, MODELS in taking, {name: missing[name] for name in wanted if name in missing})


def _bring(plan: Plan, name: str, taking: set[str], missing: Mapping[str, str], by: str = "") -> None:
    """Takes a service and what it needs; raises NotFound where one of them cannot run here."""
    if name in missing:
        needed = f", and {by} needs it" if by else ""
        install = "Install its program on this machine"
        give = f"Write in [services.{name}] with `command` how it starts on this machine"
        hint = f"{install if plan[name].command else give}, or run the project in containers: estiba compose"
        raise NotFound(f"The service {name} cannot run here: {missing[name]}{needed}.", hint=hint)
    if name in taking:
        return
    taking.add(name)
    if name != MODELS:
        for needed in plan[name].needs:
            _bring(plan, needed, taking, missing, name)


def _check_names(plan: Plan, names: Sequence[str], profiles: Sequence[str], models: Collection[str]) -> None:
    services = [service.name for service in plan.services]
    known = {"service": [*([MODELS] if models else []), *models, *services], "profile": list(plan.profiles)}
    for kind, given in (("service", names), ("profile", profiles)):
        for name in given:
            if name not in known[kind]:
                meant = did_you_mean(name, known[kind])
                hint = f"There are: {', '.join(known[kind])}." if known[kind] else f"The project has no {kind}s."
                raise NotFound(f"There is no {kind} {name!r}{meant}", hint=hint)


def check_ports(services: Sequence[Service]) -> None:
    """Raises EstibaError where somebody else listens on the port of a service; by whom, if that can be known."""
    for service in services:
        if service.port is not None and (trouble := ports.conflict(HOST, service.port)):
            hint = f"Stop what listens there, or choose another port in [services.{service.name}]."
            raise EstibaError(f"The service {service.name} cannot have port {service.port}: {trouble}.", hint=hint)


async def prepare(target: LocalTarget, runner: ServiceRunner, running: Collection[str], mark: str) -> Launch:
    """Makes what a service needs on this machine, and says how it is started.

    Args:
        running: names of all services that run. mark: of the guard.

    Raises:
        NotFound: its program is not installed. EstibaError: packages or files could not be made.
    """
    service = runner.service
    await asyncio.to_thread(target.furnish, service, running)
    packages = await _packages(target, runner, mark)
    environment, words = target.environment(service, packages), target.words(service)
    program = target.program(service, packages)
    if not program:
        where = f" or in the environment of its requirements ({packages})" if packages else ""
        raise NotFound(f"{words[0]} is not on PATH{where}.", hint=f"Check command in [services.{service.name}].")
    health = service.health
    probe = [target.text(service, argument) for argument in health.argv] if isinstance(health, Command) else []
    return Launch(
        command=[program, *words[1:]],
        folder=target.plan.folder / service.folder,
        environment=marked(environment, mark, service.name),
        probe=probe,
        probe_environment=marked(environment, mark, f"{service.name}:health"),
    )


async def _packages(target: LocalTarget, runner: ServiceRunner, mark: str) -> Path | None:
    """The virtual environment of a service; None where it asks for none."""
    build = runner.service.build
    if build is None or build.requirements is None or build.kind == "training":  # that is Estiba's own program
        return None
    wanted = Wanted(build.requirements, build.python, target.folder / "environments")
    if not virtualenvs.ready(wanted.folder):
        runner.installing()
    environment = marked({**os.environ, **target.variables}, mark, f"{runner.name}:install")
    return await virtualenvs.ensure(wanted, environment, runner.say)


async def keep(
    runners: Sequence[ServiceRunner], stop: asyncio.Event, kill: asyncio.Event, *, forever: bool = False
) -> bool:
    """Starts all, keeps them running, and stops them in reverse order.

    Args:
        runners: all that the others need is among them.
        stop: asks to end. kill: ends what is left at once.
        forever: goes on where everything has ended by itself, because a change may start it again.

    Returns:
        Whether nothing ended in failure.
    """
    peers = {runner.name: runner for runner in runners}
    for runner in runners:
        runner.begin(peers)
    try:
        while not stop.is_set() and (forever or not all(runner.over.is_set() for runner in runners)):
            for runner in runners:
                if runner.broken is not None:
                    raise runner.broken
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK)
    finally:
        await _stop(runners, kill)
    return not any(runner.failed for runner in runners)


async def _stop(runners: Sequence[ServiceRunner], kill: asyncio.Event) -> None:
    """Each stops once those that need it have; all at once when `kill` is set."""

    async def stop(runner: ServiceRunner) -> None:
        for other in runners:
            if runner.name in other.service.needs:
                await other.ended.wait()
        await runner.stop()

    stopping = asyncio.gather(*(stop(runner) for runner in runners))
    killed = asyncio.create_task(kill.wait())
    both: list[asyncio.Future[Any]] = [stopping, killed]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if killed.done():
        await asyncio.gather(*(runner.kill() for runner in runners))
    killed.cancel()
    await stopping
