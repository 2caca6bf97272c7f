"""Child programs get their arguments and input, their output is read, and none is left behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from estiba.core import shell
from estiba.core.errors import EstibaError, NotFound


def converse(code: str, folder: Path, *, on_line: object = None, **environment: str) -> tuple[int, list[bytes]]:
    lines: list[bytes] = []
    told = on_line if callable(on_line) else lines.append
    command = [sys.executable, "-c", code]
    exit_code = shell.converse(
        command, b"a message", on_line=told, folder=folder, environment=environment, errors=folder / "errors"
    )
    return exit_code, lines


def test_it_gets_the_message_and_each_line_comes_back(tmp_path: Path) -> None:
    code = "import os\nprint(input())\nprint(os.getcwd(), os.environ['WORD'])"
    assert converse(code, tmp_path, WORD="yes") == (0, [b"a message\n", f"{tmp_path} yes\n".encode()])


def test_its_exit_code_and_its_errors_are_kept(tmp_path: Path) -> None:
    code = "import sys\nprint('oh', file=sys.stderr)\nsys.exit(7)"
    assert converse(code, tmp_path) == (7, [])
    assert (tmp_path / "errors").read_text() == "oh\n"


def test_one_that_dies_before_it_listens_is_no_error_here(tmp_path: Path) -> None:
    assert converse("import os\nos.close(0)\nos.kill(os.getpid(), 9)", tmp_path) == (-9, [])


def test_an_exception_here_ends_it_and_what_it_started(tmp_path: Path) -> None:
    code = "import subprocess, time\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)"
    pids: list[int] = []

    def leave(line: bytes) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converse(code, tmp_path, on_line=leave)
    for _ in range(100):
        if not _runs(pids[0]):
            return
        time.sleep(0.05)
    raise AssertionError("what it started is still running")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="Cannot run a program in"):
        converse("", tmp_path / "nowhere")


def test_a_program_runs_to_its_end() -> None:
    done = shell.run([sys.executable, "-c", "import sys; print('out'); sys.exit('bad')"], timeout=20)
    assert (done.code, done.output, done.errors, done.said) == (1, "out\n", "bad\n", "bad")


def test_lines_come_as_they_are_said(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import sys\nprint('one', flush=True)\nprint('two', file=sys.stderr)"
    done = shell.run([sys.executable, "-c", code], folder=tmp_path, on_line=lines.append)
    assert lines == ["one", "two"]
    assert done.code == 0


def test_a_program_that_is_not_here_or_takes_too_long() -> None:
    with pytest.raises(NotFound, match="no-such-program is not installed"):
        shell.run(["no-such-program"])
    with pytest.raises(EstibaError, match=r"did not end within 0\.2 seconds"):
        shell.run([sys.executable, "-c", "import time; time.sleep(30)"], timeout=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import time; print('a', flush=True); time.sleep(30)",
        "import os, time; os.close(1); os.close(2); time.sleep(30)",
        "import subprocess; subprocess.Popen(['sleep', '30'])",
    ],
    ids=["it speaks", "it closes its output", "what it left behind holds its output"],
)
def test_one_that_takes_too_long_while_its_lines_are_read(code: str) -> None:
    began = time.monotonic()
    with pytest.raises(EstibaError, match=r"did not end within 0\.5 seconds"):
        shell.run([sys.executable, "-c", code], timeout=0.5, on_line=lambda line: None)
    assert time.monotonic() - began < 10
