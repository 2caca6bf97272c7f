"""One server at a time: started on its own core, watched through /proc, always ended with everything it started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from load import NotMeasurable, Refused, ask
from peer import Peer

TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 120
_SET_CHILD_SUBREAPER = 36  # prctl(2)


def adopt_orphans() -> None:
    """Makes this process the parent of every orphan below it, so that no server's child can leave its tree."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants() -> list[int]:
    """Process ids of everything below this process, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    pids = list(children.get(os.getpid(), []))
    for pid in pids:
        pids += children.get(pid, [])
    return pids


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes and of their children that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))
    return ticks / TICKS


def memory_mb(pids: list[int]) -> tuple[float, float]:
    """Resident and proportional set size summed over these processes, in MB (10^6 bytes)."""
    rss = pss = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                rss += int(line.split()[1]) if line.startswith("Rss:") else 0
                pss += int(line.split()[1]) if line.startswith("Pss:") else 0
    return rss * 1024 / 1e6, pss * 1024 / 1e6


def machine_cpu_seconds() -> tuple[float, float]:
    """Busy time of all cores of this machine since boot, and time that its host took away."""
    cells = [int(cell) for cell in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(cells[:3]) + sum(cells[5:7])) / TICKS, cells[7] / TICKS


@dataclass
class Server:
    """A running server. `cold_start_s` is from its exec to its first right answer to a prediction."""

    url: str
    cold_start_s: float

    def cpu_seconds(self) -> float:
        return cpu_seconds(descendants())

    def memory_mb(self) -> tuple[float, float]:
        return memory_mb(descendants())


@contextlib.contextmanager
def running(peer: Peer, model: Path, *, core: int, log: Path) -> Iterator[Server]:
    """Starts a peer on one core and ends it. Raises NotMeasurable when it does not answer within 120 s."""
    port = _free_port()
    arguments = [peer.filled(word, model, port) for word in peer.command]
    command = ["taskset", "-c", str(core), "setpriv", "--pdeathsig", "KILL", *arguments]
    body = peer.bodies(model).read_bytes().splitlines()[0]
    with log.open("wb") as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=peer.folder, env=peer.variables(model, port), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        try:
            url = f"http://127.0.0.1:{port}{peer.path}"
            _wait(process, url, body, log)
            yield Server(url, time.perf_counter() - start)
        finally:
            end(process)


def _wait(process: subprocess.Popen[bytes], url: str, body: bytes, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    reason = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
            raise NotMeasurable(f"ended with {process.returncode} while starting: {last[0][:200]}")
        try:
            ask(url, body)
        except Refused:
            raise
        except (OSError, ValueError, NotMeasurable) as error:
            reason = str(error)
            time.sleep(0.005)
        else:
            return
    raise NotMeasurable(f"not ready within {START_SECONDS} s: {reason}")


def _free_port() -> int:
    """A port whose next two are free as well, for servers that open more than one."""
    for _ in range(100):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            for more in (1, 2):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port + more))
            return port
    raise NotMeasurable("no three free ports in a row")


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks the server to end, waits 5 s, and kills whatever it has left behind."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    deadline = time.monotonic() + 10
    while (tree := descendants()) and time.monotonic() < deadline:
        for pid in tree:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass  # adopted orphans have nobody else who waits for them
        time.sleep(0.02)
    process.poll()
