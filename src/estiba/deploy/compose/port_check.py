"""Published: whether the ports that a Compose project publishes on this machine can be had."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from estiba.core import ports, shell
from estiba.core.errors import Conflict

_EVERYWHERE = "0.0.0.0"


def check_ports(
    services: Mapping[str, Any], containers: Sequence[Mapping[str, Any]], docker: Callable[..., shell.Finished]
) -> None:
    """Looks at every port of the project that its own containers do not publish already.

    Args:
        services: as `docker compose config` has them. containers: of the project, as `docker compose ps` has them.
        docker: runs the program.

    Raises:
        Conflict: something else listens on one. Nothing is said of the ports of another machine.
    """
    if not docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").output.startswith("unix:"):
        return
    ours = {entry["PublishedPort"] for row in containers for entry in row.get("Publishers") or ()}
    for name, service in services.items():
        for entry in service.get("ports", ()):
            port = str(entry.get("published", ""))
            if port.isdecimal() and int(port) not in ours:
                _check(name, entry.get("host_ip", _EVERYWHERE), int(port), docker)


def _check(name: str, host: str, port: int, docker: Callable[..., shell.Finished]) -> None:
    trouble = ports.conflict(host, port)
    if not trouble.startswith(os.strerror(errno.EADDRINUSE)):
        return  # whatever else keeps this process from it, such as its rights, need not keep Docker from it
    others = docker("ps", "--filter", f"publish={port}", "--format", "{{.Names}}").output.split()
    if others:
        trouble = f"the container {others[0]} publishes it"
    hint = "Stop that, or choose another port: in .env beside compose.yaml, or in estiba.toml."
    raise Conflict(f"Port {port} of {name} cannot be published: {trouble}. Nothing was changed.", hint=hint)
