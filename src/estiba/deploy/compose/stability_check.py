"""Steady: whether containers that nobody can ask about their health stay up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from estiba.core import shell

_LOOK = 0.5
"""Seconds between two looks."""


def first_to_end(containers: Sequence[str], seconds: float, docker: Callable[..., shell.Finished]) -> str:
    """The first of some containers, just started, to end within a while, also where it was started again at once.

    Args:
        containers: ids. seconds: in which none should end. docker: runs the program.

    Returns:
        Its id, or nothing if all stay.
    """

    def look() -> list[str]:
        return docker("inspect", "--format", "{{.State.Running}} {{.RestartCount}}", *containers).output.splitlines()

    until = time.monotonic() + seconds
    before = look() if containers else []
    while containers and time.monotonic() < until:
        time.sleep(_LOOK)
        for container, was, state in zip(containers, before, look(), strict=False):
            if state != was or not state.startswith("true"):
                return container
    return ""
