"""Guard: a small process that ends what its parent started, when the parent has died without doing so itself.

It runs as a script of its own, which imports nothing of Estiba: `python guard.py MARK`. From standard input it reads
session ids, `+123` when one begins and `-123` when it is over. At the end of its input the parent is gone.

What belongs to a session is found in /proc: every process in that session or process group, and every process whose
environment holds the mark, because a daemon leaves its session. Where there is no /proc, the process groups count.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

VARIABLE = "ESTIBA_UP"
"""The variable of the environment that holds the mark of who started a process."""

POLITE = 5.0
"""Seconds between asking what is left to end and killing it."""


def members(sessions: Collection[int], mark: str) -> set[int]:
    """Processes of some sessions, and those whose mark begins so. Those that only wait to be reaped do not count."""
    own = os.getpid()
    found = {int(entry) for entry in os.listdir("/proc") if entry.isdecimal()} - {own}  # noqa: PTH208 - much faster
    return {pid for pid in found if _belongs(pid, sessions, f"{VARIABLE}={mark}".encode())}


def _belongs(pid: int, sessions: Collection[int], mark: bytes) -> bool:
    try:
        state, _, group, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
        if state in "ZX":
            return False
        if int(session) in sessions or int(group) in sessions:
            return True
        return any(word.startswith(mark) for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:  # it is gone, or somebody else's
        return False


def send(sessions: Collection[int], mark: str, number: int) -> bool:
    """Sends a signal to all that belong to some sessions; whether there was anybody."""
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
    """Asks all that is left to end, and kills what does not."""
    if not send(sessions, mark, signal.SIGTERM):
        return
    until = time.monotonic() + POLITE
    while send(sessions, mark, 0) and time.monotonic() < until:
        time.sleep(0.1)
    for _ in range(50):  # not for ever: nobody can kill what waits for a broken disk
        if not send(sessions, mark, signal.SIGKILL):
            break
        time.sleep(0.1)


def main() -> None:
    """Listens until the parent is gone, then ends what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sessions: set[int] = set()
    for line in sys.stdin:
        if line.startswith("+"):
            sessions.add(int(line[1:]))
        else:
            sessions.discard(int(line[1:]))
    end(sessions, sys.argv[1])


if __name__ == "__main__":
    main()
