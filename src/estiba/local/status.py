"""The states of a local service, and how it is started and restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from estiba.core.process_group import Guard
from estiba.deploy.plan.timing import BACKOFF_RESET_SECONDS, HEALTH_INTERVAL_SECONDS
from estiba.local.health_probe import CommandProbe


class State(StrEnum):
    """The state of a service, as users see it."""

    WAITING = "waiting"
    """Waits for a dependency, or is being prepared."""
    INSTALLING = "installing"
    STARTING = "starting"
    """Its program runs, and is not healthy yet."""
    RUNNING = "running"
    """Its program runs, and has no health check."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """Was healthy, and fails its health check."""
    RESTARTING = "restarting"
    """Ended, and starts again after a pause."""
    DONE = "done"
    """A task that ended with exit code 0."""
    FAILED = "failed"
    """Ended, and is not restarted."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    LEFT_OUT = "left out"
    """Cannot run on this machine."""


_STARTS = {State.WAITING, State.INSTALLING, State.STARTING, State.RESTARTING, State.FAILED, State.STOPPED}
_ENDS = {State.WAITING, State.RESTARTING, State.DONE, State.FAILED, State.STOPPING, State.STOPPED}

TRANSITIONS: Mapping[State, set[State]] = {
    State.WAITING: _STARTS,
    State.INSTALLING: _STARTS,
    State.STARTING: {State.RUNNING, State.HEALTHY, *_ENDS},
    State.RUNNING: _ENDS,
    State.HEALTHY: {State.UNHEALTHY, *_ENDS},
    State.UNHEALTHY: {State.HEALTHY, *_ENDS},
    State.RESTARTING: _STARTS,
    State.DONE: {State.WAITING},
    State.FAILED: {State.WAITING},
    State.STOPPING: {State.STOPPING, *_ENDS},
    State.STOPPED: set(),
    State.LEFT_OUT: set(),
}
"""The states that may follow a state. Each attempt to start begins with WAITING."""

FINISHED = frozenset({State.DONE, State.FAILED})
"""States of a service that has ended by itself and is not started again."""

SETTLED = frozenset(State) - {State.WAITING, State.INSTALLING, State.STARTING, State.STOPPING}
"""States in which there is nothing to wait for at the moment."""


@dataclass(frozen=True)
class Status:
    """The state of a service, with what explains it.

    Args:
        url: its address. pid: of its program, while that runs.
        seconds: the time that it took to become healthy, or to end. restarts: the number of automatic restarts.
        detail: the reason, in a few words. hint: a remedy. output: its last lines, where they explain a failure.
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
    """A program to start.

    Args:
        command: the program's path and its arguments. environment: all of it, with the mark of the guard.
        probe: the command of the health check, where it is one.
        message: a line for its standard input. on_message: called with each line of its standard output.
        ready: set once the program has reported that it is ready; its health is not checked before. None for a program
            that reports nothing.
        stop_signal: of the program itself, where the service names none.
        removal: a command that ends the container that the program stands for.
    """

    command: list[str]
    folder: Path
    environment: Mapping[str, str]
    probe: CommandProbe | None = None
    message: bytes = b""
    on_message: Callable[[str], None] | None = None
    ready: asyncio.Event | None = None
    stop_signal: str = ""
    removal: Sequence[str] = ()


@dataclass(frozen=True)
class RestartPolicy:
    """Exponential backoff of restarts: `first_seconds`, then twice as long each time, at most `longest_seconds`.

    Args:
        reset_seconds: a service that ran for so long begins with the first pause again.
        probe_seconds: the interval of the health checks of a healthy service.
    """

    first_seconds: float = 1.0
    longest_seconds: float = 30.0
    reset_seconds: float = BACKOFF_RESET_SECONDS
    probe_seconds: float = HEALTH_INTERVAL_SECONDS

    def pause_seconds(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True)
class RunContext:
    """Values that all services of a run share.

    Args:
        on_status: called with each change of a status.
        on_line: called with the name of a service and a line of its output.
    """

    guard: Guard
    on_status: Callable[[Status], None]
    on_line: Callable[[str, str], None]
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
