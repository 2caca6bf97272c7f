"""Check that containers without a health check keep running."""

from __future__ import annotations

import time
from collections.abc import Sequence

from estiba.deploy.compose.project import ComposeProject

_POLL_SECONDS = 0.5


def first_to_exit(project: ComposeProject, containers: Sequence[str], seconds: float) -> str:
    """Watch containers that were just started, and return the first that exits, also where Docker restarts it at once.

    Args:
        containers: ids. seconds: to watch them for.

    Returns:
        The id of the container, or "" if all keep running.
    """

    def states() -> list[str]:
        template = "{{.State.Running}} {{.RestartCount}}"
        return project.docker("inspect", "--format", template, *containers).output.splitlines()

    deadline = time.monotonic() + seconds
    before = states() if containers else []
    while containers and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        for container, first_state, state in zip(containers, before, states(), strict=False):
            if state != first_state or not state.startswith("true"):
                return container
    return ""
