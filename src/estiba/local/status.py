"""Scene: what the services of one run share, and how it is told how they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from estiba.core.process_group import Guard
from estiba.deploy.plan.timing import BACKOFF_RESET_SECONDS, HEALTH_INTERVAL_SECONDS

State = Literal[
    "waiting",
    "installing",
    "starting",
    "running",
    "healthy",
    "unhealthy",
    "restarting",
    "done",
    "failed",
    "stopping",
    "stopped",
    "left out",
]

SETTLED = ("running", "healthy", "unhealthy", "restarting", "done", "failed", "stopped", "left out")
"""States in which there is nothing to wait for at the moment."""


@dataclass(frozen=True)
class Status:
    """How a service is.

    Args:
        url: where a person finds it. pid: of its program, while it runs.
        seconds: that it took to become healthy, or to end. restarts: how often it was started again by itself.
        detail: why, in a few words. hint: what to do. output: its last lines, where they explain a failure.
    """

    service: str
    state: State
    url: str = ""
    pid: int | None = None
    seconds: float | None = None
    restarts: int = 0
    detail: str = ""
    hint: str = ""
    output: tuple[str, ...] = ()


@dataclass(frozen=True)
class Launch:
    """How a program is started.

    Args:
        command: the program's path, and its arguments. environment: all of it, marked.
        probe: where health is a command, its words.
        message: is written to its standard input. on_message: is told the lines of its standard output.
    """

    command: list[str]
    folder: Path
    environment: Mapping[str, str]
    probe: list[str] = field(default_factory=list)
    probe_environment: Mapping[str, str] = field(default_factory=dict)
    message: bytes = b""
    on_message: Callable[[str], None] | None = None


@dataclass(frozen=True)
class RestartPolicy:
    """How soon what ended is started again: after `first` seconds, then twice as many, `longest` at most.

    Who lived for `steady` seconds begins anew. Who is healthy is asked again every `look` seconds.
    """

    first: float = 1.0
    longest: float = 30.0
    steady: float = BACKOFF_RESET_SECONDS
    look: float = HEALTH_INTERVAL_SECONDS

    def pause(self, failures: int) -> float:
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True)
class RunContext:
    """What all services of one run share. `on_line` is told the name of a service and a line that it printed."""

    guard: Guard
    on_status: Callable[[Status], None]
    on_line: Callable[[str, str], None]
    restart_policy: RestartPolicy = RestartPolicy()
