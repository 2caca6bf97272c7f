"""Describe how the program of a service ended."""

from __future__ import annotations

import signal

from estiba.core.process_group import ProcessGroup

KILLED_IN_CONTAINER = 128 + signal.SIGKILL
"""The exit code of a container engine for a program that SIGKILL ended."""


def unkillable(group: ProcessGroup) -> str:
    """A sentence about processes that SIGKILL did not end; empty without any."""
    shown = ", ".join(map(str, sorted(group.left)))
    return f"the system does not let go of process {shown}, which was killed" if shown else ""


def ending(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
