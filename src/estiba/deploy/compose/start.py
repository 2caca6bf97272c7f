"""Start the containers of a Compose project and wait until all of them are healthy."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from estiba.core import shell
from estiba.deploy.compose.compare import is_up_to_date
from estiba.deploy.compose.container_state import describe, is_starting, is_task, is_well
from estiba.deploy.compose.project import ComposeProject, Container
from estiba.deploy.compose.stability_check import first_to_exit
from estiba.deploy.plan.timing import STARTED_SECONDS
from estiba.deploy.target import DeploymentFailed

_POLL_SECONDS = 0.5

_PROGRESS = re.compile(r"^ *(Container|Network|Volume|Image) \S+ +\w+ *$")
"""A line of progress in the output of Compose."""

_HINTS = {
    "Operation not permitted": "It may not change to another user: set `user` of the service to the one that its "
    "program runs as, such as user = 999.",
    "Read-only file system": "List the folder that it writes to in `writable`.",
}
"""Advice for what a container logs when it may not do something; by a part of the line."""


def start(project: ComposeProject) -> None:
    """Run `docker compose up` and wait until every container is healthy and every task has succeeded.

    Raises:
        DeploymentFailed: one did not, in `timeout_seconds`; the message has its log.
    """
    deadline = time.monotonic() + project.timeout_seconds
    running_before = {row["ID"] for row in project.containers() if row["State"] == "running"}
    timeout = f"{project.timeout_seconds:.0f}"
    done = project.compose("up", "--detach", "--remove-orphans", "--wait", "--wait-timeout", timeout)
    # Compose counts a task that has ended as a failure, and one that still runs as a success.
    while unwell := _unwell(project):
        if time.monotonic() > deadline or not all(_is_starting(project, row) for row in unwell):
            reason = _reason(project, unwell) or _complaint(done)
            raise DeploymentFailed(reason, hint=next((_HINTS[sign] for sign in _HINTS if sign in reason), None))
        time.sleep(_POLL_SECONDS)
    # Healthy containers may be those of before: where an image could not be pulled, for one.
    if done.code and not is_up_to_date(project):
        raise DeploymentFailed(f"docker compose up: {_complaint(done)}")
    _check_stability(project, running_before)


def _check_stability(project: ComposeProject, running_before: set[str]) -> None:
    """Wait until new containers without a health check have stayed up for long enough to count as started."""
    services = {name for name, service in project.services.items() if not is_task(service)}
    new = {
        row["ID"]: row["Service"]
        for row in project.containers()
        if row["Service"] in services and row["ID"] not in running_before and not row["Health"]
    }
    if exited := first_to_exit(project, list(new), STARTED_SECONDS):
        raise DeploymentFailed(
            f"{new[exited]} has no health check, and did not stay up for {STARTED_SECONDS} seconds.\n"
            f"{project.log_tail(exited)}"
        )


def _complaint(done: shell.Finished) -> str:
    """Return the output of Compose without its lines of progress."""
    lines = done.said.splitlines()
    return "\n".join(line for line in lines if not _PROGRESS.match(line)) or done.said


def _unwell(project: ComposeProject) -> list[Container]:
    containers = [row for row in project.containers() if row["Service"] in project.services]
    return [row for row in containers if not is_well(row, project.services[row["Service"]])]


def _is_starting(project: ComposeProject, container: Container) -> bool:
    return is_starting(container, project.services[container["Service"]])


def _reason(project: ComposeProject, unwell: Sequence[Container]) -> str:
    """Return the state and the log of the container that failed; empty where all only wait for something else."""
    begun = [row for row in unwell if row["State"] != "created"]
    if not begun:
        return ""
    first = min(begun, key=lambda row: _is_starting(project, row))
    return f"{first['Service']} is {describe(first)}.\n{project.log_tail(first['ID'])}"
