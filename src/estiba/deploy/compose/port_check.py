"""Check that the ports which a Compose project publishes on this machine are free."""

from __future__ import annotations

import errno
import json
import os

from estiba.core import ports
from estiba.core.errors import Conflict
from estiba.deploy.compose.project import ComposeProject

_ALL_ADDRESSES = "0.0.0.0"


def check_ports(project: ComposeProject) -> None:
    """Check each port of the project that its own containers do not publish already.

    Ports of another machine, where DOCKER_HOST or the context name one, cannot be checked from here.

    Raises:
        Conflict: something else listens on a port.
    """
    if not project.docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").output.startswith("unix:"):
        return
    published = _published(project)
    for name, service in project.services.items():
        for entry in service.get("ports", ()):
            port = str(entry.get("published", ""))
            if port.isdecimal() and int(port) not in published:
                _check_port(project, name, entry.get("host_ip", _ALL_ADDRESSES), int(port))


def _published(project: ComposeProject) -> set[int]:
    """Return the ports of the project's own containers, also of one that is between two restarts and so has none."""
    identities = [row["ID"] for row in project.containers()]
    if not identities:
        return set()
    template = "{{or .State.Running .State.Restarting (gt .RestartCount 0)}} {{json .HostConfig.PortBindings}}"
    lines = project.docker("inspect", "--format", template, *identities).output.splitlines()
    bindings = [json.loads(line.partition(" ")[2]) or {} for line in lines if line.startswith("true")]
    numbers = [entry["HostPort"] for each in bindings for entries in each.values() for entry in entries or ()]
    return {int(number) for number in numbers if number.isdecimal()}


def _check_port(project: ComposeProject, service: str, address: str, port: int) -> None:
    reason = ports.conflict(address, port)
    if not reason.startswith(os.strerror(errno.EADDRINUSE)):
        return  # other reasons, such as missing permissions of this process, need not stop Docker
    template = '{{.Names}} {{.Label "com.docker.compose.project"}}'
    lines = project.docker("ps", "--filter", f"publish={port}", "--format", template).output.splitlines()
    holders = dict(line.split(" ", 1) for line in lines)
    if project.name in holders.values() or port in _published(project):
        return  # a container of this project, which has been started again meanwhile
    if holders:
        reason = f"the container {next(iter(holders))} publishes it"
    hint = "Stop it, or choose another port, in .env beside compose.yaml or in estiba.toml."
    raise Conflict(f"Port {port} of {service} cannot be published: {reason}. Nothing was changed.", hint=hint)
