"""Process groups pass on their children's output, and leave no child behind, whichever process dies first."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError, NotFound
from estiba.core.process_group import Guard, ProcessGroup, marked

FORKS = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
inner = subprocess.Popen([sys.executable, "-c", '''
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
'''], stdout=subprocess.PIPE)
daemon = subprocess.Popen(["sleep", "60"], start_new_session=True)
inner.stdout.readline()
print(inner.pid, daemon.pid, flush=True)
time.sleep(60)
"""
"""Ignores SIGTERM, as does what it starts; and starts a daemon in another session."""


@pytest.fixture
def guard() -> Iterator[Guard]:
    made = Guard()
    yield made
    made.close()


def group(code: str, guard: Guard, lines: list[str], folder: Path = Path("/")) -> ProcessGroup:
    environment = marked(os.environ, guard.mark, "one")
    return ProcessGroup([sys.executable, "-c", code], folder=folder, environment=environment, on_line=lines.append)


def running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def first(lines: list[str]) -> str:
    for _ in range(200):
        if lines:
            return lines[0]
        await asyncio.sleep(0.05)
    raise AssertionError("it said nothing")


def test_its_lines_and_its_exit_code(guard: Guard) -> None:
    async def check() -> None:
        lines: list[str] = []
        code = "import sys; print('out', flush=True); print('50%\\r100%\\nlast', end='', file=sys.stderr); sys.exit(7)"
        child = group(code, guard, lines)
        assert await child.wait() == 7
        await child.stop()
        assert lines == ["out", "50%", "100%", "last"]

    asyncio.run(check())


def test_a_line_without_end_comes_in_pieces(guard: Guard) -> None:
    async def check() -> None:
        lines: list[str] = []
        child = group("print('x' * 200_000)", guard, lines)
        await child.wait()
        await child.stop()
        assert sum(map(len, lines)) == 200_000
        assert max(map(len, lines)) <= 2 * 65_536

    asyncio.run(check())


def test_what_ignores_sigterm_is_killed_with_all_that_it_started(guard: Guard) -> None:
    async def check() -> None:
        lines: list[str] = []
        child = group(FORKS, guard, lines)
        pids = [int(word) for word in (await first(lines)).split()]
        began = time.monotonic()
        assert not await child.stop(grace=0.3)
        assert 0.2 < time.monotonic() - began < 5
        assert child.code == -signal.SIGKILL
        assert not any(map(running, pids))

    asyncio.run(check())


def test_a_program_that_ends_politely_takes_as_long_as_it_takes_and_its_children_are_asked_too(guard: Guard) -> None:
    async def check() -> None:
        lines: list[str] = []
        child = group(
            "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()", guard, lines
        )
        pid = int(await first(lines))
        assert await child.stop(grace=30)
        assert not running(pid)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("/nowhere/it", NotFound, "The program /nowhere/it is not installed"),
        ("/etc/passwd", EstibaError, "cannot be run"),
    ],
)
def test_what_cannot_be_started_is_a_sentence(guard: Guard, program: str, kind: type, message: str) -> None:
    async def check() -> None:
        with pytest.raises(kind, match=message):
            ProcessGroup([program], folder=Path("/"), environment=marked({}, guard.mark, "one"), on_line=print)

    asyncio.run(check())


@pytest.mark.slow
def test_nothing_is_left_when_this_process_is_killed(tmp_path: Path) -> None:
    """A parent starts a program that ignores SIGTERM, and is killed with all of its own group."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import asyncio, os, pathlib, sys
        from estiba.core.process_group import ProcessGroup, Guard, marked
        async def main():
            guard = Guard()
            child = ProcessGroup([sys.executable, "-c", {FORKS!r}], folder=pathlib.Path("/"),
                environment=marked(os.environ, guard.mark, "one"), on_line=lambda line: print(line, flush=True))
            guard.begin(child)
            await asyncio.sleep(60)
        asyncio.run(main())
        """)
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert all(map(running, pids))
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 15
    while any(map(running, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(running, pids))


TRACER = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
if libc.ptrace(0x4206, int(sys.argv[1]), None, None):  # PTRACE_SEIZE
    sys.exit(os.strerror(ctypes.get_errno()))
print("holds it", flush=True)
time.sleep(60)
"""
"""Holds a process as a debugger does: killed, it is not gone until this one lets go."""


@pytest.mark.slow
def test_what_the_system_does_not_let_go_of_is_waited_for_only_so_long(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("estiba.core.process_group.MAX_POLLS", 10)

    async def check() -> None:
        lines: list[str] = []
        child = group("import time; print('here', flush=True); time.sleep(60)", guard, lines)
        await first(lines)
        tracer = subprocess.Popen([sys.executable, "-c", TRACER, str(child.pid)], stdout=-1, stderr=-1)
        try:
            assert tracer.stdout is not None
            if await asyncio.to_thread(tracer.stdout.readline) != b"holds it\n":
                pytest.skip(f"a process may not be held here: {tracer.communicate()[1].decode()}")
            assert not await asyncio.wait_for(child.stop(grace=0.3), 10)
            assert child.left == {child.pid}
        finally:
            tracer.kill()
            tracer.communicate()
        assert await child.wait() == -signal.SIGKILL

    asyncio.run(check())
