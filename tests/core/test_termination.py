"""Signals before there is an event loop end a command as Ctrl-C does, and are not forgotten where that is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

START = "import os, signal, sys\nfrom estiba.core import termination\ntermination.install_handlers()\n"


def ran(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_was_begun_is_taken_back(number: signal.Signals, code: int) -> None:
    done = ran(f"try:\n    os.kill(os.getpid(), {number})\nfinally:\n    print('taken back')\n")
    assert (done.returncode, done.stdout, done.stderr) == (code, "taken back\n", "")


def test_ctrl_c_is_the_exception_that_python_raises_too() -> None:
    text = f"try:\n    os.kill(os.getpid(), {signal.SIGINT})\nexcept KeyboardInterrupt:\n    sys.exit(7)\n"
    assert ran(text).returncode == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_a_library_lost_is_remembered(number: signal.Signals) -> None:
    text = (
        f"print(termination.requested())\ntry:\n    os.kill(os.getpid(), {number})\nexcept BaseException:\n    pass\n"
    )
    assert ran(f"{text}print(termination.requested())\n").stdout.split() == ["False", "True"]


def test_who_is_to_be_left_alone_is() -> None:
    code = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from estiba.core import termination
termination.install_handlers()
os.kill(os.getpid(), signal.SIGHUP)
"""
    done = subprocess.run([sys.executable, "-c", code + "print('on')"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "on\n")


def test_what_must_not_be_disturbed_is_ended_after_it() -> None:
    inner = f"os.kill(os.getpid(), {signal.SIGTERM})\n        print('whole')"
    text = f"try:\n    with termination.deferred():\n        {inner}\n"
    done = ran(f"{text}    print('never')\nfinally:\n    print('taken back')\n")
    assert (done.returncode, done.stdout, done.stderr) == (143, "whole\ntaken back\n", "")


def test_in_another_thread_nothing_is_held_back_from_the_main_one() -> None:
    text = """
import threading, time
def hold():
    with termination.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        print("held")
thread = threading.Thread(target=hold)
try:
    thread.start()
    time.sleep(20)
except KeyboardInterrupt:
    print("ended")
thread.join()
"""
    done = ran(text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\nheld\n", "")


STARTED = """
import subprocess
from pathlib import Path
from estiba.core import shell

class Interrupted(subprocess.Popen):
    def __init__(self, *words, **options):
        super().__init__(*words, **options)
        print(self.pid, flush=True)
        os.kill(os.getpid(), NUMBER)  # before anybody knows of the program

subprocess.Popen = Interrupted
command = [sys.executable, "-c", "import time; time.sleep(60)"]
"""

CONVERSE = "shell.converse(command, b'', on_line=print, folder=Path('/'), environment={}, errors=Path(os.devnull))"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("call", ["shell.run(command)", "shell.run(command, on_line=print)", CONVERSE])
def test_a_program_that_was_just_started_is_ended_too(number: signal.Signals, call: str) -> None:
    done = ran(STARTED.replace("NUMBER", str(int(number))) + call)
    assert done.returncode == (-2 if number == signal.SIGINT else 143)
    assert not Path(f"/proc/{int(done.stdout)}").exists()
