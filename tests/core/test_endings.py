"""Signals before there is an event loop end a command as Ctrl-C does, and are not forgotten where that is lost."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

START = "import os, signal, sys\nfrom estiba.core import endings\nendings.heed()\n"


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
    text = f"print(endings.asked())\ntry:\n    os.kill(os.getpid(), {number})\nexcept BaseException:\n    pass\n"
    assert ran(f"{text}print(endings.asked())\n").stdout.split() == ["False", "True"]


def test_who_is_to_be_left_alone_is() -> None:
    text = "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nendings.heed()\nos.kill(os.getpid(), signal.SIGHUP)\n"
    code = f"import os, signal\n{text}".replace("endings.heed()", "from estiba.core import endings\nendings.heed()")
    done = subprocess.run([sys.executable, "-c", code + "print('on')"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, "on\n")
