"""Judge the state of a container by its row of `docker compose ps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estiba.deploy.compose.project import Container


def is_task(service: Mapping[str, Any]) -> bool:
    """Return whether a service is a task, which runs to its end once, instead of staying up."""
    return service.get("restart") == "no"


def is_well(container: Container, service: Mapping[str, Any]) -> bool:
    """Return whether a container is in the state that its service should reach."""
    if is_task(service):
        return bool(container["State"] == "exited" and container["ExitCode"] == 0)
    return bool(container["State"] == "running" and container["Health"] in ("", "healthy"))


def is_starting(container: Container, service: Mapping[str, Any]) -> bool:
    """Return whether a container may still become well by itself."""
    return bool(container["State"] == "running" and (is_task(service) or container["Health"] == "starting"))


def describe(container: Container) -> str:
    """Return the state of a container as a person reads it."""
    if container["State"] in ("exited", "restarting"):
        return f"{container['State']} (exit code {container['ExitCode']})"
    return str(container["Health"] or f"still {container['State']}")
