"""Prepare the container of a service: its image, the files that it mounts, and how to start, check and end it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from estiba.core.process_group import marked
from estiba.core.stores.disk import explained, write_whole
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.plan import secrets
from estiba.deploy.plan.plan import Command, Service
from estiba.local import containers
from estiba.local.containers import ContainerSpec
from estiba.local.health_probe import CommandProbe
from estiba.local.host_gateway import HostGateway
from estiba.local.service_runner import ServiceRunner
from estiba.local.status import Launch
from estiba.local.target import LocalTarget

ENV_FILE = ".env"
"""The file of variables beside a service's copies of secrets, none of which has a name that begins with a dot."""


async def prepare(target: LocalTarget, runner: ServiceRunner, mark: str, gateway: HostGateway) -> Launch:
    """Pull the image of a service if it is not here, and return how to start its container.

    Args:
        mark: of the guard. gateway: through which the container reaches other services.

    Raises:
        EstibaError: the image could not be pulled, or a file not be written.
    """
    service, engine = runner.service, target.containers.engine
    assert engine is not None
    if not await asyncio.to_thread(engine.has, service.image):
        runner.report_installing()
        environment = marked(os.environ, mark, f"{service.name}:install")
        await containers.pull(engine, service.image, environment, runner.forward_line)
    address = await gateway.open(await asyncio.to_thread(target.containers.gateway))
    mounts = await asyncio.to_thread(_mounts, target, service)
    argv, own = target.argv(service), target.environment(service, None)
    port = target.container_ports.get(service.name)
    spec = ContainerSpec(target.plan, service, argv, own, mounts, _folder(target, service) / ENV_FILE, address, port)
    await asyncio.to_thread(_write_hidden, spec)
    environment = marked(spec.client_environment(), mark, service.name)
    return Launch(
        command=spec.command(engine),
        folder=target.plan.folder,
        environment=environment,
        probe=_probe(target, spec, engine, marked(os.environ, mark, f"{service.name}:health")),
        stop_signal=await asyncio.to_thread(containers.stop_signal, engine, service.image),
        removal=containers.removal(engine, spec.name),
    )


def _folder(target: LocalTarget, service: Service) -> Path:
    return target.folder / "containers" / service.name


def _write_hidden(spec: ContainerSpec) -> None:
    """Write the variables that neither the engine's program nor the list of processes may have."""
    if spec.hidden:
        secrets.make_private(spec.env_file.parent)
        lines = [f"{name}={value}\n" for name, value in spec.hidden.items()]
        write_whole(spec.env_file, "".join(lines).encode(), mode=0o600)
        return
    with explained("remove", spec.env_file):
        spec.env_file.unlink(missing_ok=True)  # of a run before, with values that nothing needs any more


def _probe(
    target: LocalTarget, spec: ContainerSpec, engine: Engine, environment: dict[str, str]
) -> CommandProbe | None:
    """The health check of a service that is a command: it runs in the container."""
    service = spec.service
    if not isinstance(service.health, Command):
        return None
    argv = [target.resolved(service, argument) for argument in service.health.argv]
    return CommandProbe(containers.exec_command(engine, spec.name, argv), target.plan.folder, environment)


def _mounts(target: LocalTarget, service: Service) -> dict[str, Path]:
    """The files and secrets of a service, by their path in the container."""
    files = {file.target: target.file(service, file) for file in service.files.values()}
    return files | {f"/run/secrets/{name}": _copy_of_secret(target, service, name) for name in service.secrets}


def _copy_of_secret(target: LocalTarget, service: Service, name: str) -> Path:
    """Copy a secret into a folder that only its owner enters: the container reads the file as another user."""
    folder = _folder(target, service)
    secrets.make_private(folder)
    write_whole(folder / name, secrets.read(target.plan.folder, name).encode(), mode=0o644)
    return folder / name
