"""The watchdog judges silent workers: real processes that compute, sleep or are stopped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from estiba.serving.workers.supervisor import TICK_SECONDS
from estiba.serving.workers.worker_process import INACTIVITY_SECONDS, MAX_SILENCE_SECONDS, SILENCE_SECONDS, Watchdog

pytestmark = pytest.mark.slow

SLEEPS = "import time; print(flush=True); time.sleep(60)"
COMPUTES = "print(flush=True)\nwhile True: pass"


@contextmanager
def child(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def told(pid: int, seconds: float) -> str:
    """The first trouble that is seen within so many seconds of silence, asked as often as a supervisor does."""
    watch, began = Watchdog(), time.monotonic() - SILENCE_SECONDS
    while (silence := time.monotonic() - began) < SILENCE_SECONDS + seconds:
        if trouble := watch.trouble(pid, silence):
            return trouble
        time.sleep(0.05)
    return ""


def test_one_that_does_nothing_is_hung() -> None:
    with child(SLEEPS) as pid:
        assert told(pid, INACTIVITY_SECONDS / 2) == ""
        assert told(pid, 20 * INACTIVITY_SECONDS) == "hung"


def test_one_that_is_hung_is_noticed_within_a_second() -> None:
    assert SILENCE_SECONDS + INACTIVITY_SECONDS + 2 * TICK_SECONDS < 1


def test_one_that_computes_is_slow_and_not_hung_until_it_was_silent_for_long() -> None:
    with child(COMPUTES) as pid:
        assert told(pid, 3 * INACTIVITY_SECONDS) == ""
        assert Watchdog().trouble(pid, MAX_SILENCE_SECONDS + 1) == "hung"


def test_one_that_is_stopped_is_told_at_the_first_look() -> None:
    with child(COMPUTES) as pid:
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)
        assert Watchdog().trouble(pid, SILENCE_SECONDS / 2) == ""
        assert Watchdog().trouble(pid, SILENCE_SECONDS) == "stopped"


def test_after_a_long_pause_of_both_it_is_given_time() -> None:
    """A machine that slept: the supervisor looks before the worker could beat."""
    with child(SLEEPS) as pid:
        watch = Watchdog()
        assert watch.trouble(pid, MAX_SILENCE_SECONDS / 2) == ""
        assert watch.trouble(pid, 0.0) == ""
        time.sleep(INACTIVITY_SECONDS)
        assert watch.trouble(pid, MAX_SILENCE_SECONDS / 2) == ""
