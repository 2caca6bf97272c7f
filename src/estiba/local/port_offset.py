"""Move all ports of a project by one offset, as `estiba up --port` does, and check that they are free."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec

from estiba.core import ports
from estiba.core.errors import EstibaError
from estiba.deploy.plan.service_options import ServiceOptions
from estiba.local.target import LOOPBACK
from estiba.model.training.runner import ModelOptions
from estiba.project import Project

SUGGESTED_OFFSETS = range(1000, 10_000, 1000)
"""Offsets that are tried, in this order, for the suggestion to a user whose port is taken."""

MAX_PORT = 65535

_TRIES = 100
"""Free ports of a server that are tried until the ports at the same offset are free too."""

_Section = TypeVar("_Section", ModelOptions, ServiceOptions)


@dataclass(frozen=True)
class PortUse:
    """A port that a run needs, the address and name of what listens there, and the section that sets it."""

    port: int
    host: str
    owner: str
    section: str


def move(project: Project, port: int | None) -> Project:
    """The project with its server at `port`, and all other ports moved by the same offset.

    Args:
        port: of the server; 0 for one at which the other ports are free too. None moves nothing. Where estiba.toml
            says port 0, the other ports stay as they are.

    Raises:
        EstibaError: a port would not be between 1 and 65535.
    """
    if not project.server.port:
        return _with_server_port(project, port or ports.free(project.server.host))
    if port is None:
        return project
    return _shifted(project, port - project.server.port) if port else _at_free_ports(project)


def check(project: Project, services: Collection[str], command: str, *, models: bool) -> None:
    """Check that the ports of a run are free.

    Args:
        services: names of those that run. models: the server of all models runs too.
        command: how the user called `estiba up`, for the hint.

    Raises:
        EstibaError: a port is taken; it names the process that has it, if that is known, and how to use another.
    """
    for use in _uses(project, services, models=models):
        if conflict := ports.conflict(use.host, use.port):
            moved = _suggestion(project, services, models=models)
            hint = f"Stop the program that listens there, or change port in [{use.section}]"
            more = f", or run the project with all its ports moved: {command} --port {moved}" if moved else "."
            raise EstibaError(f"{use.owner} cannot listen on {use.host}:{use.port}: {conflict}.", hint=hint + more)


def _uses(project: Project, services: Collection[str], *, models: bool) -> Iterator[PortUse]:
    host = project.server.host
    if models:
        yield PortUse(project.server.port, host, "The model server", "server")
        for name, model in project.models.items():
            if model.port is not None:
                yield PortUse(model.port, host, f"The model {name}", f"models.{name}")
    for name in services:
        if (port := project.services[name].port) is not None:
            yield PortUse(port, LOOPBACK, f"The service {name}", f"services.{name}")


def _suggestion(project: Project, services: Collection[str], *, models: bool) -> int:
    """A port of the server at which all ports of the run are free; 0 if none is found."""
    for offset in SUGGESTED_OFFSETS:
        try:
            moved = _shifted(project, offset)
        except EstibaError:
            break
        if not any(ports.conflict(use.host, use.port) for use in _uses(moved, services, models=models)):
            return moved.server.port
    return 0


def _at_free_ports(project: Project) -> Project:
    for _ in range(_TRIES):
        moved = _shifted(project, ports.free(project.server.host) - project.server.port)
        if not any(ports.conflict(use.host, use.port) for use in _uses(moved, project.services, models=True)):
            return moved
    raise EstibaError("No offset was found at which all ports are free.", hint="Choose the server's with --port.")


def _shifted(project: Project, offset: int) -> Project:
    moved = _with_server_port(project, _checked(project.server.port, offset, "server"))
    models = _shifted_sections(project.models, "models", offset)
    return replace(moved, models=models, services=_shifted_sections(project.services, "services", offset))


def _shifted_sections(sections: Mapping[str, _Section], kind: str, offset: int) -> dict[str, _Section]:
    return {
        name: options
        if options.port is None
        else msgspec.structs.replace(options, port=_checked(options.port, offset, f"{kind}.{name}"))
        for name, options in sections.items()
    }


def _checked(port: int, offset: int, section: str) -> int:
    if not 0 < port + offset <= MAX_PORT:
        raise EstibaError(
            f"--port moves all ports by {offset}, so that {port} of [{section}] would become {port + offset}.",
            hint=f"Choose another port, at which all of them stay between 1 and {MAX_PORT}.",
        )
    return port + offset


def _with_server_port(project: Project, port: int) -> Project:
    return replace(project, server=msgspec.structs.replace(project.server, port=port))
