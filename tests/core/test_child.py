"""The child-process protocol, with real children of both kinds of parent."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from estiba.core import child, shell
from estiba.core.errors import EstibaError
from estiba.core.process_group import Guard, ProcessGroup, marked

CHILD = """
import os, sys, time
import msgspec
from estiba.core import child

class Spec(msgspec.Struct):
    name: str
    wait: bool = False

class Done(msgspec.Struct, tag="done"):
    name: str

spec = child.read_spec(Spec)
report = child.open_reports()
child.on_parent_exit(lambda: os._exit(9))
print("printed by a library")
os.system("echo printed by a program")
print(repr(sys.stdin.read()), file=sys.stderr)
report(Done(spec.name))
while spec.wait:
    time.sleep(0.05)
report(child.Failed("no more", exit_code=5))
"""


def test_reports_come_alone_and_all_else_is_standard_error(tmp_path: Path) -> None:
    lines: list[bytes] = []
    code = shell.converse(
        [sys.executable, "-c", CHILD],
        b'{"name": "a"}',
        on_line=lines.append,
        folder=tmp_path,
        environment={},
        errors=tmp_path / "log",
    )
    assert (code, [msgspec.json.decode(line) for line in lines]) == (
        0,
        [{"type": "done", "name": "a"}, {"type": "failed", "message": "no more", "exit_code": 5}],
    )
    printed = sorted((tmp_path / "log").read_text().splitlines())
    assert printed == ["''", "printed by a library", "printed by a program"]


def test_a_process_group_is_a_parent_too(tmp_path: Path) -> None:
    async def run() -> list[str]:
        lines: list[str] = []
        guard = Guard()
        group = ProcessGroup(
            [sys.executable, "-c", CHILD],
            folder=tmp_path,
            environment=marked(os.environ, guard.mark, "child"),
            on_line=lambda line: None,
            on_message=lines.append,
        )
        group.tell(b'{"name": "b"}')
        await group.wait()
        await group.kill()
        guard.close()
        return lines

    first, second = asyncio.run(run())
    assert msgspec.json.decode(first)["name"] == "b"
    assert msgspec.json.decode(second, type=child.Failed).exit_code == 5


def test_a_child_ends_when_its_parent_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=-1, stdout=-1, stderr=subprocess.DEVNULL)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"name": "c", "wait": true}\n')
        process.stdin.flush()
        process.stdout.readline()
        time.sleep(0.2)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(10) == 9


def test_a_failure_is_an_error_again() -> None:
    error = EstibaError("It is full.", hint="Empty it.")
    error.exit_code = 7
    again = msgspec.json.decode(msgspec.json.encode(child.Failed.of(error)), type=child.Failed).error()
    assert (again.message, again.hint, again.exit_code) == ("It is full.", "Empty it.", 7)
