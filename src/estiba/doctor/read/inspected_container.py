"""Hold the answers of Docker about one container: docker inspect, its log, its processes and its sockets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from estiba.doctor.finding import Location


@dataclass(frozen=True)
class InspectedContainer:
    """A container of Docker, running or stopped.

    Args:
        container, image: as docker inspect gives them.
        log: the end of its output. processes: docker top's table of pid, uid and command.
        sockets: /proc/net/tcp and tcp6 inside it; empty where that could not be read.
    """

    container: dict[str, Any]
    image: dict[str, Any]
    log: str = ""
    processes: str = ""
    sockets: str = ""

    @property
    def name(self) -> str:
        return str(self.container.get("Name") or self.container.get("Id", "")[:12]).lstrip("/")

    @property
    def at(self) -> Location:
        return Location(self.name)

    def part(self, *path: str) -> Any:
        """Return a value of docker inspect; None if a table on its path is missing."""
        value: Any = self.container
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def table(self, *path: str) -> dict[str, Any]:
        value = self.part(*path)
        return value if isinstance(value, dict) else {}

    def listed(self, *path: str) -> list[Any]:
        value = self.part(*path)
        return value if isinstance(value, list) else []

    def number(self, *path: str) -> float:
        value = self.part(*path)
        return value if isinstance(value, (int, float)) else 0

    @property
    def runs(self) -> bool:
        return bool(self.part("State", "Running"))

    @cached_property
    def environment(self) -> dict[str, str]:
        return _environment(self.listed("Config", "Env"))

    @cached_property
    def listens(self) -> dict[int, set[str]]:
        """The ports on which a program listens, each with its hosts."""
        found: dict[int, set[str]] = {}
        for address, port in re.findall(r"^\s*\d+: ([0-9A-F]{8,32}):([0-9A-F]{4}) \S+ 0A ", self.sockets, re.M):
            found.setdefault(int(port, 16), set()).add(_host(address))
        resolver = {port for port, hosts in found.items() if hosts == {"127.0.0.11"}}  # Docker's own, in user networks
        return {port: hosts for port, hosts in found.items() if port not in resolver}

    @property
    def probes(self) -> list[str]:
        """The output of the last health checks, the newest last."""
        return [str(one.get("Output", "")) for one in self.listed("State", "Health", "Log") if isinstance(one, dict)]

    @property
    def last_probe(self) -> str:
        return next((output.strip() for output in reversed(self.probes) if output.strip()), "")

    @property
    def crashed(self) -> bool:
        """True if it ended with an error, or is being restarted after one; a kill or a stop is not one."""
        state = self.table("State")
        ended = not self.runs and state.get("ExitCode") not in (0, 137, 143, None) and state.get("Status") == "exited"
        return bool(state.get("Restarting") or ended)

    @property
    def image_environment(self) -> dict[str, str]:
        config = self.image.get("Config")
        return _environment(config.get("Env") if isinstance(config, dict) else None)

    @property
    def published_ports(self) -> list[int]:
        """TCP ports of the container that are published on the host."""
        ports = [str(key).partition("/")[::2] for key, hosts in self.table("NetworkSettings", "Ports").items() if hosts]
        return [int(number) for number, protocol in ports if protocol == "tcp" and number.isdigit()]

    @property
    def listening_ports(self) -> str:
        """The ports on which a program listens, for a message."""
        return ", ".join(str(port) for port in sorted(self.listens))

    @property
    def check(self) -> str:
        return " ".join(str(word) for word in self.listed("Config", "Healthcheck", "Test"))


def _environment(listed: Any) -> dict[str, str]:
    return dict(str(pair).split("=", 1) for pair in (listed if isinstance(listed, list) else []) if "=" in str(pair))


def _host(address: str) -> str:
    """Decode an address of /proc/net/tcp: groups of four bytes in this machine's order."""
    if len(address) == 8:
        return ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))
    if address == "0" * 32:
        return "::"
    return "::1" if address == "00000000000000000000000001000000" else "other"
