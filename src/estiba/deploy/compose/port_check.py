"""Check that the ports which a Compose project publishes on this machine are free."""

from __future__ import annotations

import errno
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
    published = {entry["PublishedPort"] for row in project.containers() for entry in row.get("Publishers") or ()}
    for name, service in project.services.items():
        for entry in service.get("ports", ()):
            port = str(entry.get("published", ""))
            if port.isdecimal() and int(port) not in published:
                _check_port(project, name, entry.get("host_ip", _ALL_ADDRESSES), int(port))


def _check_port(project: ComposeProject, service: str, address: str, port: int) -> None:
    reason = ports.conflict(address, port)
    if not reason.startswith(os.strerror(errno.EADDRINUSE)):
        return  # other reasons, such as missing permissions of this process, need not stop Docker
    holders = project.docker("ps", "--filter", f"publish={port}", "--format", "{{.Names}}").output.split()
    if holders:
        reason = f"the container {holders[0]} publishes it"
    hint = "Stop it, or choose another port, in .env beside compose.yaml or in estiba.toml."
    raise Conflict(f"Port {port} of {service} cannot be published: {reason}. Nothing was changed.", hint=hint)
