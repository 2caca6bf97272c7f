"""Run a python engine in a process of its own, which isolates its interpreter lock, memory and crashes.

The parent talks to it over a socket pair, one call at a time. Run as `python -m estiba.model.engines.isolated`, with a
EngineSpec as JSON on standard input.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
import numpy as np

from estiba.core import child, cpus, errors
from estiba.core.errors import BadArtifact, BadInput, EstibaError, Problem, Unavailable

if TYPE_CHECKING:
    from estiba.model.artifact.artifact import Artifact
    from estiba.model.coding.coder import Coded, Matrix

TIMEOUT_SECONDS = 60.0
"""Seconds after which a call, or loading, is given up and the process is replaced."""

EXIT_SECONDS = 5.0
"""The limit on the time that a process takes to exit once it closed its channel."""


PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|ESTIBA_UP|ESTIBA_KERNEL|LD_LIBRARY_PATH"
    r"|(PYTHON|MALLOC_|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|BLIS_|NUMEXPR_|CUDA_|NVIDIA_|XDG_|COVERAGE_)\w*"
)
"""Variables that the process of a model gets from the server's environment, which may hold secrets."""

ALSO_PASSED_ON = "ESTIBA_MODEL_ENVIRONMENT"
"""The variable with the names of further ones, separated by commas, that the code of a model needs."""


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that the process of a model gets."""
    more = {name.strip() for name in environment.get(ALSO_PASSED_ON, "").split(",")}
    return {name: text for name, text in environment.items() if name in more or PASSED_ON.fullmatch(name)}


class EngineSpec(msgspec.Struct, frozen=True):
    """The specification that the child process reads: the artifact's directory, and the descriptor of its channel."""

    path: str
    threads: int
    trust: bool
    channel: int


class Request(msgspec.Struct, frozen=True):
    """A request: coded rows, the matrix as the bytes of its float64, and its shape."""

    shape: tuple[int, int]
    matrix: bytes
    texts: dict[str, list[str | None]]


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request with its shape, or an error by the name of its class.

    The first one, which says that the engine is ready, has its runtime as the message.
    """

    shape: tuple[int, int] = (0, 0)
    matrix: bytes = b""
    error: str = ""
    message: str = ""
    hint: str | None = None
    problems: tuple[Problem, ...] = ()


class IsolatedEngine:
    """Asks a python engine that runs in a child process. A process that died is started anew by the next call."""

    def __init__(self, artifact: Artifact, *, threads: int = 1, trust: bool = False) -> None:
        self._artifact = artifact
        self._threads = threads
        self._trust = trust
        self._lock = threading.Lock()
        self._closed = False
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        with self._lock:
            self._start()

    def predict(self, coded: Coded) -> Matrix:
        """As Engine says; raises Unavailable where the process died or took too long."""
        matrix = np.ascontiguousarray(coded.matrix)
        request = Request((matrix.shape[0], matrix.shape[1]), matrix.tobytes(), coded.texts)
        with self._lock:
            if self._closed:
                raise Unavailable(f"The model {self._artifact.manifest.name!r} is not served any more.")
            if self._child is None or self._child.poll() is not None:
                self._start()
            assert self._channel is not None
            try:
                self._channel.send_bytes(msgspec.msgpack.encode(request))
            except OSError:
                self._give_up(closed=True)
            reply = self._receive()
        return np.frombuffer(reply.matrix).reshape(reply.shape)

    def close(self) -> None:
        """End the process at once; a call in progress fails as unavailable."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()  # so that whoever holds the lock reads the end of the channel, and lets go
        with self._lock:
            self._end()

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the interpreter, its modules are gone
            self._end()

    def _start(self) -> None:
        self._end()
        ours, theirs = socket.socketpair()
        spec = EngineSpec(str(self._artifact.path), self._threads, self._trust, theirs.fileno())
        threads = {name: str(self._threads) for name in cpus.NATIVE_THREADS}
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "estiba.model.engines.isolated"],
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**inherited(os.environ), **threads},
        )
        theirs.close()
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):  # it died before it listened: its channel tells
            self._child.stdin.write(msgspec.json.encode(spec) + b"\n")
            self._child.stdin.flush()  # and stays open: at its end the child knows that this process is gone
        self._channel = Connection(ours.detach())
        self._poll = select.poll()  # made once: Connection.poll makes one for each call
        self._poll.register(self._channel, select.POLLIN)
        try:
            self.runtime = f"{self._receive().message}, in a process of its own"
        except BaseException:
            self._end()
            raise

    def _receive(self) -> Reply:
        assert self._channel is not None
        try:
            if not self._poll.poll(TIMEOUT_SECONDS * 1000):
                self._give_up(closed=False)
            reply = msgspec.msgpack.decode(self._channel.recv_bytes(), type=Reply)
        except (EOFError, OSError):
            self._give_up(closed=True)
        if reply.problems:
            raise BadInput(reply.problems, hint=reply.hint)
        if reply.error:
            kind = getattr(errors, reply.error, None)
            if kind is None:
                raise RuntimeError(f"{reply.error}: {reply.message}")
            raise kind(reply.message, hint=reply.hint)
        return reply

    def _give_up(self, *, closed: bool) -> NoReturn:
        """End the process; `closed` says that it closed its end of the channel, as a process does that dies."""
        how = self._ending() if closed else f"did not answer within {TIMEOUT_SECONDS:g} seconds"
        self._end()
        raise Unavailable(f"The process of the model {self._artifact.manifest.name!r} {how}.")

    def _ending(self) -> str:
        """Describe how the process ended, with the signal where one killed it (SIGSEGV of a native library)."""
        assert self._child is not None
        try:
            code = self._child.wait(EXIT_SECONDS)  # it closes its files a moment before it can be waited for
        except subprocess.TimeoutExpired:
            return "stopped answering"
        return f"died (exit code {code})" if code >= 0 else f"was killed by {signal.Signals(-code).name}"

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            assert self._child.stdin is not None
            with suppress(OSError):
                self._child.stdin.close()
        self._child = self._channel = None


def main() -> None:
    spec = child.read_spec(EngineSpec)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when this ends
    child.on_parent_exit(lambda: os._exit(1))  # also within a call that never returns
    channel = Connection(spec.channel)
    from estiba.model.artifact.artifact import read
    from estiba.model.coding.coder import Coded
    from estiba.model.engines.own_code import check_trust, put_on_path
    from estiba.model.engines.python import PythonEngine

    try:
        artifact = read(Path(spec.path))
        check_trust(artifact, trust=spec.trust)
        if artifact.manifest.code_files:
            put_on_path(artifact)
        engine = PythonEngine(artifact, threads=spec.threads, trust=spec.trust, one_thread=True)
    except Exception as error:
        channel.send_bytes(msgspec.msgpack.encode(_failed(error)))
        return
    channel.send_bytes(msgspec.msgpack.encode(Reply(message=engine.runtime)))
    while True:
        try:
            request = msgspec.msgpack.decode(channel.recv_bytes(), type=Request)
        except (EOFError, OSError):
            return  # the parent is gone, or done with this
        try:
            matrix = np.frombuffer(request.matrix).reshape(request.shape)
            answer = np.ascontiguousarray(engine.predict(Coded(matrix, request.texts)), np.float64)
            reply = Reply((answer.shape[0], answer.shape[1]), answer.tobytes())
        except Exception as error:
            reply = _failed(error)
        channel.send_bytes(msgspec.msgpack.encode(reply))


def _failed(error: Exception) -> Reply:
    if isinstance(error, BadInput):
        return Reply(error=BadInput.__name__, message=error.message, hint=error.hint, problems=error.problems)
    if isinstance(error, EstibaError):
        known = type(error).__name__ if hasattr(errors, type(error).__name__) else BadArtifact.__name__
        return Reply(error=known, message=error.message, hint=error.hint)
    return Reply(error=type(error).__name__, message=str(error))


if __name__ == "__main__":
    main()
