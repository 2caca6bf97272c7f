"""Judge the state of a container by its row of `docker compose ps`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estiba.deploy.compose.project import Container


def is_task(service: Mapping[str, Any]) -> bool:
    """Return whether a service is a task, which runs to its end once, instead of staying up."""
    return service.get("restart") == "no"


def has_health_check(service: Mapping[str, Any]) -> bool:
    """Return whether compose.yaml has a health check for a service; its image may have one too."""
    return bool(service.get("healthcheck"))


def is_well(container: Container, service: Mapping[str, Any]) -> bool:
    """Return whether a container is in the state that its service should reach."""
    if is_task(service):
        return bool(container["State"] == "exited" and container["ExitCode"] == 0)
    health = "healthy" if has_health_check(service) else ""  # Docker says nothing between a start and the first check
    return bool(container["State"] == "running" and container["Health"] in (health, "healthy"))


def is_starting(container: Container, service: Mapping[str, Any]) -> bool:
    """Return whether a container may still become well by itself."""
    begins = container["Health"] == "starting" or (not container["Health"] and has_health_check(service))
    return bool(container["State"] == "running" and (is_task(service) or begins))
