"""Start the containers of a Compose project and wait until all of them are healthy."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from estiba.core import shell
from estiba.core.errors import EstibaError, NotFound
from estiba.deploy.compose import failure
from estiba.deploy.compose.compare import is_up_to_date
from estiba.deploy.compose.container_state import has_health_check, is_starting, is_task, is_well
from estiba.deploy.compose.project import ComposeProject, Container
from estiba.deploy.compose.stability_check import first_to_exit
from estiba.deploy.plan.timing import STARTED_SECONDS
from estiba.deploy.target import DeploymentFailed

_POLL_SECONDS = 0.5

_PROGRESS = re.compile(r"^ *(Container|Network|Volume|Image) \S+ +\w+ *$")
"""A line of progress in the output of Compose."""

_EXIT_SECONDS = 3.0
"""Time beyond the limit in which Compose itself notices that it has passed."""


def start(project: ComposeProject) -> None:
    """Run `docker compose up` and wait until every container is healthy and every task has succeeded.

    Raises:
        DeploymentFailed: one did not, in `timeout_seconds`; the message has its log.
    """
    deadline = time.monotonic() + project.timeout_seconds
    running_before = {row["ID"] for row in project.containers() if row["State"] == "running"}
    done = _up(project)
    # Compose counts a task that has ended as a failure, and one that still runs as a success.
    while ill := unwell(project):
        if time.monotonic() > deadline or not all(_is_starting(project, row) for row in ill):
            raise _failed(project, ill) or DeploymentFailed(_complaint(done))
        time.sleep(_POLL_SECONDS)
    # Healthy containers may be those of before: where an image could not be pulled, for one.
    if done.code and not is_up_to_date(project):
        raise DeploymentFailed(f"docker compose up: {_complaint(done)}")
    _check_stability(project, running_before)


def _up(project: ComposeProject) -> shell.Finished:
    """Run `docker compose up`, and end it after `timeout_seconds`.

    Its own limit does not count while a service waits for one that it depends on.
    """
    seconds = project.timeout_seconds
    limits = ("--wait", "--wait-timeout", f"{max(1, seconds):.0f}")
    try:
        return project.compose("up", "--detach", "--remove-orphans", *limits, timeout=seconds + _EXIT_SECONDS)
    except NotFound:
        raise
    except EstibaError as error:
        return shell.Finished(1, "", error.message)


def _check_stability(project: ComposeProject, running_before: set[str]) -> None:
    """Wait until new containers without a health check have stayed up for long enough to count as started."""
    services = {
        name for name, service in project.services.items() if not is_task(service) and not has_health_check(service)
    }
    new = [
        row["ID"]
        for row in project.containers()
        if row["Service"] in services and row["ID"] not in running_before and not row["Health"]
    ]
    if exited := first_to_exit(project, new, STARTED_SECONDS):
        row = next(row for row in project.containers() if row["ID"] == exited)
        seen = failure.examine(project, row)
        message = f"{row['Service']} has no health check, and did not stay up for {STARTED_SECONDS} seconds."
        raise DeploymentFailed(f"{message}\n{seen.message}", hint=seen.hint)


def _complaint(done: shell.Finished) -> str:
    """Return the output of Compose without its lines of progress."""
    lines = done.said.splitlines()
    return "\n".join(line for line in lines if not _PROGRESS.match(line)) or done.said


def unwell(project: ComposeProject) -> list[Container]:
    """List the containers that are not in the state that their service should reach."""
    containers = [row for row in project.containers() if row["Service"] in project.services]
    return [row for row in containers if not is_well(row, project.services[row["Service"]])]


def _is_starting(project: ComposeProject, container: Container) -> bool:
    return is_starting(container, project.services[container["Service"]])


def _failed(project: ComposeProject, ill: Sequence[Container]) -> DeploymentFailed | None:
    """Make the error for the container that failed; None where all only wait for something else."""
    begun = [row for row in ill if row["State"] != "created"]
    if not begun:
        return None
    first = failure.examine(project, min(begun, key=lambda row: _is_starting(project, row)))
    return DeploymentFailed(first.message, hint=first.hint)
