"""Examines what runs: the containers of this machine's Docker, by what it says of them and what they say themselves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from estiba.core.cli_program import DOCKER, START_DOCKER, CliProgram
from estiba.core.errors import EstibaError, NotFound, Unavailable
from estiba.doctor.catalogue import ordered
from estiba.doctor.examine import Report
from estiba.doctor.rules.runtime import InspectedContainer, examine_container

WORKING_FOLDER = "com.docker.compose.project.working_dir"
"""The label in which Compose notes where its file is."""

_TIMEOUT_SECONDS = 30.0

_EXAMINED_LOG_LINES = 200


@dataclass(frozen=True)
class Docker:
    """The docker program. What it is asked never changes anything."""

    environment: Mapping[str, str] | None = None

    @property
    def program(self) -> CliProgram:
        return replace(DOCKER, environment=self.environment, timeout_seconds=_TIMEOUT_SECONDS)

    def ask(self, *words: str) -> str | None:
        """What it prints; None where it refuses."""
        done = self.program.run(*words)
        return done.output if done.code == 0 else None

    def both(self, *words: str) -> str:
        """What it prints on its output and its errors, as logs are told."""
        done = self.program.run(*words)
        return done.output + done.errors

    def inspect(self, kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """What docker inspect says; nothing of what has gone meanwhile."""
        if not names:
            return []
        done = self.program.run(kind, "inspect", *names)
        try:
            found = json.loads(done.output)
        except ValueError:
            return []
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def examine(folder: Path | None, docker: Docker | None = None) -> Report:
    """Names the faults of containers, running and stopped.

    Args:
        folder: only those that Compose started from there or a folder below; by default all.

    Raises:
        NotFound: there is no docker program, or no container. Unavailable: Docker does not answer.
    """
    docker = docker or Docker()
    version = docker.program.run("version", "--format", "{{.Server.Version}}")
    if version.code != 0:
        reason = version.said.splitlines()[-1].partition(". Is the docker")[0] if version.said else "no reason"
        hint = f"{START_DOCKER} Without Docker, estiba doctor examines files only."
        raise Unavailable(f"Docker does not answer: {reason}.", hint=hint)
    names = _names(folder, docker)
    images = {one.get("Id"): one for one in docker.inspect("image", _images(docker.inspect("container", names)))}
    findings = []
    shown = []
    for container in docker.inspect("container", names):
        seen = _seen(container, images.get(container.get("Image"), {}), docker)
        shown.append(seen.name)
        findings += list(examine_container(seen))
    return Report(shown, ordered(findings))


def _names(folder: Path | None, docker: Docker) -> list[str]:
    listed = docker.ask("ps", "--all", "--no-trunc", "--format", f'{{{{.ID}}}}\t{{{{.Label "{WORKING_FOLDER}"}}}}')
    rows = [line.partition("\t") for line in (listed or "").splitlines()]
    names = [name for name, _, place in rows if folder is None or _below(place, folder)]
    if not names:
        where = f" that Compose started from {folder.resolve()}" if folder else ""
        hint = "Start it, or leave PATH out to examine every container." if folder else "Start what is to be examined."
        raise NotFound(f"There is no container{where}.", hint=hint)
    return names


def _below(place: str, folder: Path) -> bool:
    """Whether Compose was run in the folder, or in one of its own, such as deploy/compose."""
    return bool(place) and Path(place).resolve().is_relative_to(folder.resolve())


def _images(containers: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({str(one["Image"]) for one in containers if one.get("Image")})


def _seen(container: dict[str, Any], image: dict[str, Any], docker: Docker) -> InspectedContainer:
    name = str(container.get("Id", ""))
    runs = bool((container.get("State") or {}).get("Running"))
    return InspectedContainer(
        container=container,
        image=image,
        log=_quietly(docker.both, "logs", "--tail", str(_EXAMINED_LOG_LINES), name),
        processes=_quietly(docker.ask, "top", name, "-eo", "pid,uid,args") if runs else "",
        sockets=_sockets(name, docker) if runs else "",
    )


def _sockets(name: str, docker: Docker) -> str:
    """The kernel's table of sockets, as the container's own `cat` or Python shows it; empty where it has neither."""
    read = "import glob;print(*[open(n).read() for n in glob.glob('/proc/net/tcp*')])"
    for words in (("cat", "/proc/net/tcp", "/proc/net/tcp6"), ("python3", "-c", read), ("python", "-c", read)):
        found = _quietly(docker.ask, "exec", name, *words)
        if "local_address" in found:
            return found
    return ""


def _quietly(ask: Any, *words: str) -> str:
    """What cannot be asked, such as the log of a driver that keeps none, is left out."""
    try:
        return re.sub(r"\x1b\[[0-9;]*m", "", ask(*words) or "")
    except EstibaError:
        return ""
