"""End the programs that a parent process started, when the parent died without ending them.

It runs as a script, `python guard.py MARK`, that imports nothing of Estiba, so that it starts at once and survives a
broken installation. It reads session ids from standard input, `+123` when a session begins and `-123` when it is over;
at the end of its input the parent is gone. After `+123 ["docker", "rm", "web"]` that command is run too, since the
processes of a container belong to no session of the parent.

The processes of a session are found in /proc: every process in that session or process group, and every process whose
environment contains the mark, because a daemon leaves its session. Without /proc, only the process groups count.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

VARIABLE = "ESTIBA_UP"
"""The environment variable that contains the mark of the parent."""

TERM_GRACE_SECONDS = 5.0
"""Time between SIGTERM and SIGKILL."""

MAX_KILL_ATTEMPTS = 50
"""SIGKILL is not sent for ever: a process that waits for a broken disk cannot be killed."""

_POLL_SECONDS = 0.1


class ProcessStat(NamedTuple):
    """Fields of /proc/PID/stat.

    Args:
        state: R runs or waits for a processor, D waits for a disk, T is stopped, Z is a zombie.
        cpu_ticks: user and system time. start_ticks: time from boot to the start. Both in units of SC_CLK_TCK.
        memory_pages: resident memory, in pages of SC_PAGE_SIZE.
    """

    state: str
    group: int
    session: int
    cpu_ticks: int
    start_ticks: int
    memory_pages: int


def process_stat(pid: int) -> ProcessStat:
    """The kernel's figures of a process; raises OSError where it is gone or there is no /proc."""
    # The second field, the program's name, may contain spaces and parentheses: fields are counted from its end.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_ticks = int(fields[11]) + int(fields[12])
    return ProcessStat(fields[0], int(fields[2]), int(fields[3]), cpu_ticks, int(fields[19]), int(fields[21]))


def members(sessions: Collection[int], mark: str) -> set[int]:
    """The processes of some sessions, and those whose mark begins with `mark`; without zombies and this process."""
    pids = {int(entry) for entry in os.listdir("/proc") if entry.isdecimal()} - {os.getpid()}  # noqa: PTH208 - faster
    return {pid for pid in pids if _belongs(pid, sessions, f"{VARIABLE}={mark}".encode())}


def _belongs(pid: int, sessions: Collection[int], mark: bytes) -> bool:
    try:
        stat = process_stat(pid)
        if stat.state in "ZX":
            return False
        if stat.session in sessions or stat.group in sessions:
            return True
        return any(entry.startswith(mark) for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:  # it has ended, or belongs to another user
        return False


def send(sessions: Collection[int], mark: str, number: int) -> bool:
    """Send a signal to all processes of some sessions; True if there was any."""
    if not Path("/proc/self/stat").exists():
        return any([_sent(-session, number) for session in sessions])
    return any([_sent(pid, number) for pid in members(sessions, mark)])


def _sent(target: int, number: int) -> bool:
    try:
        os.kill(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end(sessions: Collection[int], mark: str) -> None:
    """Send SIGTERM to what is left of some sessions, then SIGKILL to what does not end."""
    if not send(sessions, mark, signal.SIGTERM):
        return
    deadline = time.monotonic() + TERM_GRACE_SECONDS
    while send(sessions, mark, 0) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for _ in range(MAX_KILL_ATTEMPTS):
        if not send(sessions, mark, signal.SIGKILL):
            break
        time.sleep(_POLL_SECONDS)


def _run(command: list[str]) -> None:
    """Run a program to its end; nobody is left to tell of a failure."""
    with suppress(OSError):
        os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)


def main() -> None:
    """Read sessions until the parent is gone, then end what is left of them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    removals: dict[int, list[str]] = {}
    for line in sys.stdin:
        session, _, removal = line[1:].partition(" ")
        if line.startswith("+"):
            removals[int(session)] = json.loads(removal) if removal else []
        else:
            removals.pop(int(session), None)
    end(removals, sys.argv[1])
    for command in filter(None, removals.values()):
        _run(command)


if __name__ == "__main__":
    main()
