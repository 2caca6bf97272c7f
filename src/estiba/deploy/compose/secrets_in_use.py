"""Find the secrets that a deployed Compose project uses, so that none of them is generated a second time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from estiba.core.cli_program import DOCKER
from estiba.core.errors import NotFound
from estiba.deploy.plan.plan import API_KEY, Plan

_PROJECT = "com.docker.compose.project"

_VOLUME = "com.docker.compose.volume"

_SERVICE = "com.docker.compose.service"

_MOUNTED = "/run/secrets/"


def check_lost_secrets(plan: Plan, project: str, lost: Mapping[str, Path]) -> None:
    """Check that secrets without a file are not in use: a database keeps the password that it was made with.

    Where no Docker answers, nothing is checked, as nothing is deployed.

    Args:
        project: the name of the Compose project. lost: by name, the file that a secret should be in.

    Raises:
        NotFound: a container mounts a secret, or a volume belongs to a service that reads it.
    """
    if not lost:
        return
    containers, volumes = _containers(project), _volumes(project)
    for secret, path in lost.items():
        users = [row for row in containers if any(m["Destination"] == _MOUNTED + secret for m in row["Mounts"])]
        if users:
            raise _mounted(secret, path, max(users, key=lambda row: bool(row["State"]["Running"])))
        running = {row["Config"]["Labels"].get(_SERVICE) for row in containers}
        for service in plan.services:
            # A service that runs without the secret does not depend on it yet.
            # Nor does one depend on an API key: a new one is admitted in place of the old one.
            if secret in service.secrets and service.name not in running and secret != API_KEY:
                for name in service.volumes:
                    if kept := volumes.get(f"{service.name}-{name}"):
                        raise kept_data(secret, path, kept, f"docker volume rm {kept}")


def _mounted(secret: str, path: Path, container: Mapping[str, Any]) -> NotFound:
    name = str(container["Name"]).lstrip("/")
    read = f"docker exec {name} cat {_MOUNTED}{secret}" if container["State"]["Running"] else ""
    shown = f"; while that container runs, this prints it: {read}" if read else ", from a backup"
    return NotFound(
        f"The secret {secret} is not in {path}, but the container {name} was made with it. A new one would lock the "
        "project out of its data. Nothing was changed.",
        hint=f"Write the old secret into that file{shown}.",
    )


def kept_data(secret: str, path: Path, data: str, removal: str) -> NotFound:
    """The error of a secret without a file whose service has data.

    Args:
        path: the file that the secret should be in. data: their volume or folder. removal: the command to remove them.
    """
    return NotFound(
        f"The secret {secret} is not in {path}, but its service has data in {data}, which was made with "
        "it. A new one would lock the project out of its data. Nothing was changed.",
        hint=f"Write the old secret into that file, or a new one if the service never had it. To delete the data "
        f"instead: {removal}.",
    )


def _containers(project: str) -> list[dict[str, Any]]:
    identities = _listed("ps", "--all", "--quiet", "--filter", f"label={_PROJECT}={project}")
    return _inspected("container", identities)


def _volumes(project: str) -> dict[str, str]:
    """Return the volumes of a Compose project: by their name in compose.yaml, the name that Docker knows."""
    found = _inspected("volume", _listed("volume", "ls", "--quiet", "--filter", f"label={_PROJECT}={project}"))
    return {each["Labels"].get(_VOLUME, ""): each["Name"] for each in found}


def _inspected(kind: str, names: list[str]) -> list[dict[str, Any]]:
    if not names:
        return []
    rows: list[dict[str, Any]] = json.loads(DOCKER.run(kind, "inspect", *names).output or "[]")
    return rows


def _listed(*arguments: str) -> list[str]:
    try:
        done = DOCKER.run(*arguments)
    except NotFound:
        return []
    return [] if done.code else done.output.split()
