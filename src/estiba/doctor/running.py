"""Examine the containers of this machine's Docker: their descriptions, logs, processes and sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from estiba.core.cli_program import DOCKER, START_DOCKER, CliProgram
from estiba.core.errors import EstibaError, NotFound, Unavailable
from estiba.doctor.catalogue import check_running, ordered
from estiba.doctor.examine import Report
from estiba.doctor.read.inspected_container import InspectedContainer

WORKING_FOLDER = "com.docker.compose.project.working_dir"
"""The label of Compose with the folder of its file."""

_TIMEOUT_SECONDS = 30.0
_MAX_LOG_LINES = 200
_READ_SOCKETS = "import glob;print(*[open(n).read() for n in glob.glob('/proc/net/tcp*')])"


@dataclass(frozen=True)
class Docker:
    """The docker program, with commands that only read."""

    environment: Mapping[str, str] | None = None

    @property
    def program(self) -> CliProgram:
        return replace(DOCKER, environment=self.environment, timeout_seconds=_TIMEOUT_SECONDS)

    def output(self, *arguments: str) -> str | None:
        """Return the standard output; None if the command failed."""
        done = self.program.run(*arguments)
        return done.output if done.code == 0 else None

    def logs(self, *arguments: str) -> str:
        """Return standard output and errors, as `docker logs` prints a container's output to both."""
        done = self.program.run("logs", *arguments)
        return done.output + done.errors

    def inspect(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the descriptions of containers or images that still exist."""
        if not names:
            return []
        try:
            described = json.loads(self.program.run(kind, "inspect", *names).output)
        except ValueError:
            return []
        return [item for item in described if isinstance(item, dict)] if isinstance(described, list) else []


def examine(folder: Path | None, docker: Docker | None = None) -> Report:
    """Report the faults of containers, running and stopped.

    Args:
        folder: only containers that Compose started from it or from a folder below; by default all.

    Raises:
        NotFound: there is no docker program, or no container. Unavailable: Docker does not answer.
    """
    docker = docker or Docker()
    version = docker.program.run("version", "--format", "{{.Server.Version}}")
    if version.code != 0:
        lines = version.said.splitlines()
        reason = lines[-1].partition(". Is the docker")[0] if lines else "no reason"
        hint = f"{START_DOCKER} Without Docker, estiba doctor examines files only."
        raise Unavailable(f"Docker does not answer: {reason}.", hint=hint)
    described = docker.inspect("container", _container_ids(folder, docker))
    image_ids = sorted({str(container["Image"]) for container in described if container.get("Image")})
    images = {image.get("Id"): image for image in docker.inspect("image", image_ids)}
    containers = [_inspected(container, images.get(container.get("Image"), {}), docker) for container in described]
    findings = [finding for container in containers for finding in check_running(container)]
    return Report([container.name for container in containers], ordered(findings))


def _container_ids(folder: Path | None, docker: Docker) -> list[str]:
    template = f'{{{{.ID}}}}\t{{{{.Label "{WORKING_FOLDER}"}}}}'
    rows = (docker.output("ps", "--all", "--no-trunc", "--format", template) or "").splitlines()
    pairs = [row.partition("\t")[::2] for row in rows]
    ids = [name for name, working_folder in pairs if folder is None or _below(working_folder, folder)]
    if not ids:
        where = f" that Compose started from {folder.resolve()}" if folder else ""
        hint = "Start it, or omit PATH to examine every container." if folder else "Start what is to be examined."
        raise NotFound(f"There is no container{where}.", hint=hint)
    return ids


def _below(working_folder: str, folder: Path) -> bool:
    """Return True if Compose was run in the folder, or in one below it, such as deploy/compose."""
    return bool(working_folder) and Path(working_folder).resolve().is_relative_to(folder.resolve())


def _inspected(container: dict[str, Any], image: dict[str, Any], docker: Docker) -> InspectedContainer:
    name = str(container.get("Id", ""))
    runs = bool((container.get("State") or {}).get("Running"))
    return InspectedContainer(
        container=container,
        image=image,
        log=_or_empty(docker.logs, "--tail", str(_MAX_LOG_LINES), name),
        processes=_or_empty(docker.output, "top", name, "-eo", "pid,uid,args") if runs else "",
        sockets=_sockets(name, docker) if runs else "",
    )


def _sockets(name: str, docker: Docker) -> str:
    """Read the kernel's table of sockets with `cat` or Python in the container; empty if it has neither."""
    for argv in (
        ("cat", "/proc/net/tcp", "/proc/net/tcp6"),
        ("python3", "-c", _READ_SOCKETS),
        ("python", "-c", _READ_SOCKETS),
    ):
        table = _or_empty(docker.output, "exec", name, *argv)
        if "local_address" in table:
            return table
    return ""


def _or_empty(command: Callable[..., str | None], *arguments: str) -> str:
    """Run a command; empty if it fails, such as the log of a driver that keeps none."""
    try:
        return re.sub(r"\x1b\[[0-9;]*m", "", command(*arguments) or "")
    except EstibaError:
        return ""
