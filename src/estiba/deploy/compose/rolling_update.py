"""Replace the containers of a service behind the reverse proxy without losing a request."""

from __future__ import annotations

import time
from collections.abc import Sequence

from estiba.deploy.compose.compare import ServiceChange, replicas
from estiba.deploy.compose.project import ComposeProject
from estiba.deploy.compose.reverse_proxy import DNS_CACHE_SECONDS, NETWORK
from estiba.deploy.target import DeploymentFailed, Report

_POLL_SECONDS = 0.25


def rolling_update(project: ComposeProject, change: ServiceChange, report: Report) -> None:
    """Start new containers of a service beside the old ones, and remove the old ones once the new are healthy.

    Where only the number of containers grows, the old ones stay. Where it shrinks, or none runs, Compose does the work.

    Raises:
        DeploymentFailed: a new container did not become healthy; the new ones are gone, and the old ones run.
    """
    name = change.service
    containers = [row for row in project.containers() if row["Service"] == name]
    old = [row["ID"] for row in containers if row["State"] == "running"]
    count = replicas(project.services[name]) + (len(old) if change.action == "changed" else 0)
    if not old or count <= len(old):
        return
    if dead := [row["ID"] for row in containers if row["State"] != "running"]:
        project.docker("rm", "--force", *dead)  # else Compose would count them, and start them
    new: list[str] = []
    try:
        _start_beside(project, name, count, old, new)
        _connect_to_proxy(project, name, new)
    except DeploymentFailed:
        project.docker("rm", "--force", *new)
        raise
    if change.action == "changed":
        report(f"{name}: the new container is healthy; stopping the old one")
        project.docker("stop", *old)
        project.docker("rm", *old)


def _start_beside(project: ComposeProject, name: str, count: int, old: Sequence[str], new: list[str]) -> None:
    """Start containers until there are `count`, append them to `new`, and wait until they are healthy.

    They are kept from the reverse proxy meanwhile: requests to one that has not loaded its models would wait.
    """
    # Not --no-deps: the containers would be made without `depends_on`, and be outdated for the next `up`.
    done = project.compose("up", "--no-start", "--no-recreate", "--scale", f"{name}={count}", name)
    new += [row["ID"] for row in project.containers() if row["Service"] == name and row["ID"] not in old]
    if done.code or not new:
        raise DeploymentFailed(f"{name}: {done.said}")
    for container in new:
        project.docker("network", "disconnect", _proxy_network(project), container)
    done = project.docker("start", *new)
    if done.code:
        raise DeploymentFailed(f"{name}: {done.said}")
    if not _become_healthy(project, new):
        log = project.log_tail(new[0])
        raise DeploymentFailed(f"{name} did not become healthy beside the old container.\n{log}")


def _connect_to_proxy(project: ComposeProject, name: str, new: Sequence[str]) -> None:
    """Connect new containers to the network of the reverse proxy, and wait until it knows their addresses."""
    aliases = [f"--alias={alias}" for alias in project.services[name]["networks"][NETWORK]["aliases"]]
    for container in new:
        done = project.docker("network", "connect", *aliases, _proxy_network(project), container)
        if done.code:
            raise DeploymentFailed(f"{name}: {done.said}")
    time.sleep(DNS_CACHE_SECONDS)


def _proxy_network(project: ComposeProject) -> str:
    return str(project.config["networks"][NETWORK]["name"])


def _become_healthy(project: ComposeProject, containers: Sequence[str]) -> bool:
    deadline = time.monotonic() + project.timeout_seconds
    while time.monotonic() < deadline:
        done = project.docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", *containers)
        states = done.output.split("\n")[: len(containers)]
        if all(state == "running healthy" for state in states):
            return True
        if any("unhealthy" in state or not state.startswith("running") for state in states):
            return False
        time.sleep(_POLL_SECONDS)
    return False
