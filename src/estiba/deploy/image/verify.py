"""Run an image with the restrictions of a deployment, and compare its answers with those of training."""

from __future__ import annotations

import math
import re
import secrets
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

from estiba.core.errors import EstibaError
from estiba.core.stores.disk import temporary
from estiba.core.variables import KEYS
from estiba.deploy.image import golden_check
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.image.spec import ImageSpec
from estiba.deploy.plan.model_source import MOUNT_PATH, is_folder
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_TIMEOUT_SECONDS, STARTED_SECONDS

HARDENED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256")

NEEDS_OTHERS_SECONDS = 20.0
"""Time in which a service that needs others may become healthy without them, as many do."""

WRITES_SECONDS = 3.0
"""Time that a service without a health check, or that was not healthy before, runs until its writes are looked at."""

_FAULTS_OF_IMAGES = re.compile(
    r"ModuleNotFoundError|ImportError|SyntaxError|Read-only file system|Permission denied|Operation not permitted"
    r"|No module named|command not found|cannot open shared object"
)
"""Words of a program that ended because of its image, and not because another service was missing."""

_NOT_STARTED = (125, 126, 127)
"""Exit codes of a container whose program could not be started."""


class NeedsOthers(EstibaError):
    """A program ended without the services that it needs: only a deployment shows whether its image works."""


@dataclass(frozen=True)
class Verified:
    """The measurements of a verified image.

    Args:
        start: seconds from the start of the container until it was healthy; None if that needs other services.
        memory: resident bytes of all processes after the golden rows; a shared page counts in each of them.
        rows: golden rows whose answers equal those of training.
        stop: seconds from the stop signal to the end; None if it may still have been starting, waiting for others.
    """

    start: float | None
    memory: int
    rows: int
    stop: float | None


def verify(engine: Engine, image: str, spec: ImageSpec, models: Path) -> Verified:
    """Run an image as a random unprivileged user, on a read-only file system and without capabilities.

    It must become healthy, answer every golden row over HTTP, end when told to, and write nothing outside /tmp.

    Args:
        image: its id. models: the folder of a registry with the models in the image, or with those to mount.

    Raises:
        ParityError: an answer differs. NeedsOthers: it ended without a service that it needs. EstibaError: anything
            else would fail in a deployment; the message says what.
    """
    if spec.kind == "training":
        return _verify_training(engine, image, spec)
    user = 20_000 + secrets.randbelow(30_000)
    began = time.monotonic()
    limits = ["--memory", str(spec.runtime.memory), "--cpus", f"{spec.runtime.cpus:g}"]
    mounted = ["--volume", f"{models}:{MOUNT_PATH}:ro,z"] if spec.contents.registry else []
    if spec.contents.registry and not is_folder(spec.contents.registry):
        _check_opens(engine, image, spec)
    with _running(engine, image, spec, ["--read-only", "--user", f"{user}:0", *limits, *mounted]) as container:
        start = _wait(engine, container, spec, began, _start_limit(spec))
        rows = _golden_rows(engine, container, spec, models) if spec.contents.models else 0
        memory = _memory(engine, container)
        starting = start is None and bool(spec.process.health)
        stop = None if starting else _stop(engine, container, spec)
    with _running(engine, image, spec, mounted) as container:
        _wait(engine, container, spec, time.monotonic(), _start_limit(spec) if start else WRITES_SECONDS)
        _check_unchanged(engine, container, spec)
    return Verified(start, memory, rows, stop)


def _check_opens(engine: Engine, image: str, spec: ImageSpec) -> None:
    """Check that the image has the libraries for its registry's address; the registry itself is not asked."""
    code = "import sys; from estiba.core.stores.files import open_store; open_store(sys.argv[1])"
    argv = ["run", "--rm", *HARDENED, "--network", "none", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "python"]
    engine.ask(*argv, image, "-c", code, spec.contents.registry, timeout=spec.runtime.start_timeout)


def _verify_training(engine: Engine, image: str, spec: ImageSpec) -> Verified:
    """Import the modules of training; training itself would need data and time."""
    code = "import estiba.model.training.worker, estiba.model.packing.pack, skl2onnx, sklearn, pandas, skops"
    began = time.monotonic()
    argv = ["run", "--rm", *HARDENED, "--read-only", "--tmpfs", "/tmp", "--user", "20000:0", image]
    engine.ask(*argv, "python", "-c", code, timeout=spec.runtime.start_timeout)
    return Verified(time.monotonic() - began, 0, 0, 0.0)


@contextmanager
def _running(engine: Engine, image: str, spec: ImageSpec, extra: list[str]) -> Iterator[str]:
    """Run a container of the image, and remove it at the end of the block."""
    name = f"estiba-verify-{secrets.token_hex(6)}"
    argv = ["run", "--detach", "--name", name, *HARDENED, *extra]
    variables = {KEYS: "off"} if "gateway" in spec.contents.settings else {}  # golden rows are asked without a key
    for variable, value in (variables | spec.runtime.environment).items():
        argv += ["--env", f"{variable}={value}"]
    for path in ("/tmp", *spec.runtime.writable, *spec.runtime.volumes):
        argv += ["--tmpfs", f"{path}:rw,nosuid,nodev,size={spec.runtime.tmp},mode=1777"]
    if spec.process.port is not None:
        argv += ["--publish", f"127.0.0.1::{spec.process.port}"]
    with _random_secrets(spec) as mounts:
        try:
            engine.ask(*argv, *mounts, image, timeout=120)
            yield name
        finally:
            engine.try_to("rm", "--force", "--volumes", name)


@contextmanager
def _random_secrets(spec: ImageSpec) -> Iterator[list[str]]:
    """Options that mount a random secret for each secret that the service reads."""
    with temporary("verify") as folder:
        folder.chmod(0o755)  # the container reads it as another user
        mounts = []
        for secret in spec.runtime.secrets:
            (path := folder / secret).write_text(secrets.token_urlsafe(32))
            path.chmod(0o644)
            mounts += ["--volume", f"{path}:/run/secrets/{secret}:ro,z"]
        yield mounts


def _start_limit(spec: ImageSpec) -> float:
    """Seconds in which a container has to become healthy, or has to keep running where it has no health check."""
    if not spec.process.health:
        return STARTED_SECONDS
    return (
        spec.runtime.start_timeout if spec.runtime.standalone else min(NEEDS_OTHERS_SECONDS, spec.runtime.start_timeout)
    )


def _wait(engine: Engine, container: str, spec: ImageSpec, began: float, limit: float) -> float | None:
    """Wait until a container is healthy.

    Returns:
        Seconds until its port answered, confirmed by the health check of the image; None where it only kept running,
        or is a task that has done its work.
    """
    until, pause, failure = began + limit, 0.01, ""
    while time.monotonic() < until:
        if not _is_up(engine, container):
            _check_ending(engine, container, spec)
            return None
        if spec.process.health and _answers(engine, container, spec):
            seconds = time.monotonic() - began
            failure = _failed_health_check(engine, container, spec)
            if not failure:
                return seconds
        time.sleep(pause)
        pause = min(0.1, pause * 1.2)
    if not spec.runtime.standalone or not spec.process.health:
        return None
    port = "" if spec.process.port is None else f" at port {spec.process.port}{spec.process.health_path}"
    raise EstibaError(
        f"The image of {spec.service} was not healthy within {spec.runtime.start_timeout:g} s{port}:\n"
        f"{failure or _log_tail(engine, container)}",
        hint="Check `health` and `port` of the service, or raise its start_timeout.",
    )


def _failed_health_check(engine: Engine, container: str, spec: ImageSpec) -> str:
    """Run the health check of the image in its container; empty if it succeeds, else why not."""
    command = shlex.join(spec.process.health)
    try:
        done = engine.try_to("exec", container, *spec.process.health, timeout=HEALTH_COMMAND_TIMEOUT_SECONDS)
    except EstibaError:
        return f"The health check did not end within {HEALTH_COMMAND_TIMEOUT_SECONDS} seconds: {command}"
    return f"The health check ended with exit code {done.code}: {command}\n{done.said}" if done.code else ""


def _check_ending(engine: Engine, container: str, spec: ImageSpec) -> None:
    """Raise EstibaError unless the container was a task that has done its work."""
    code = engine.inspect("container", container)["State"]["ExitCode"]
    if spec.process.port is None and code == 0:
        return
    log = _log_tail(engine, container)
    needs = ", ".join(spec.runtime.needs)
    if needs and code not in _NOT_STARTED and not _FAULTS_OF_IMAGES.search(log):
        raise NeedsOthers(f"it needs {needs}, and without ended with exit code {code}: {log.splitlines()[-1]}")
    raise EstibaError(
        f"The image of {spec.service} ended with exit code {code} while it started, read-only and without privileges:"
        f"\n{log}",
        hint="List the folders that it writes to in `writable` of the service; /tmp is always writable. If it needs "
        "another service when it starts, name that in `needs`. --no-verify makes the image without running it.",
    )


def _answers(engine: Engine, container: str, spec: ImageSpec) -> bool:
    """Ask the published port of a container, which is quicker than a program in it; True where it has no port."""
    if spec.process.port is None:
        return True
    address = _address(engine, container, spec.process.port)
    if address is None:
        return False
    if not spec.process.health_path:
        # A published port accepts before the program behind it listens: only an answer or a kept connection counts.
        with suppress(OSError), socket.create_connection(address, 1) as connection:
            connection.settimeout(0.2)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                return True
        return False
    try:
        with _opener().open(
            f"http://{address[0]}:{address[1]}{spec.process.health_path}", timeout=HEALTH_TIMEOUT_SECONDS
        ) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPError, URLError):
        return False


def _opener() -> Any:
    return build_opener(ProxyHandler({}))


def _address(engine: Engine, container: str, port: int) -> tuple[str, int] | None:
    """The address at which the container's port is published; None if the container has ended."""
    done = engine.try_to("port", container, str(port))
    if done.code or not done.output.strip():
        return None
    host, _, number = done.output.splitlines()[0].rpartition(":")
    return host or "127.0.0.1", int(number)


def _is_up(engine: Engine, container: str) -> bool:
    return bool(engine.inspect("container", container)["State"]["Running"])


def _log_tail(engine: Engine, container: str) -> str:
    done = engine.try_to("logs", "--tail", "15", container)
    return (done.output + done.errors).strip() or "(it printed nothing)"


def _golden_rows(engine: Engine, container: str, spec: ImageSpec, models: Path) -> int:
    """Compare the answers to golden rows, and return their number."""
    assert spec.process.port is not None
    address = _address(engine, container, spec.process.port)
    if address is None:
        raise EstibaError(f"The container of {spec.service} ended:\n{_log_tail(engine, container)}")
    return golden_check.ask(f"http://{address[0]}:{address[1]}", spec.contents, models)


def _memory(engine: Engine, container: str) -> int:
    """Resident bytes of all processes of a container."""
    argv = ("top", container, "-eo", "pid,rss") if engine.program == "docker" else ("top", container, "hpid", "rss")
    done = engine.try_to(*argv)
    if done.code:
        return 0
    total = 0
    for line in done.output.splitlines()[1:]:
        figure = line.split()[-1]
        total += int(float(figure.rstrip("KMGB") or 0) * {"M": 1e6, "G": 1e9}.get(figure[-2:-1], 1024))
    return total


def _stop(engine: Engine, container: str, spec: ImageSpec) -> float:
    """Stop a container, and return the seconds that it took to end."""
    began = time.monotonic()
    engine.ask("stop", "--time", str(math.ceil(spec.runtime.stop_grace)), container)
    seconds = time.monotonic() - began
    code = engine.inspect("container", container)["State"]["ExitCode"]
    if code == 137:
        raise EstibaError(
            f"The image of {spec.service} did not end within {spec.runtime.stop_grace:g} s"
            f" of {spec.process.stop_signal}.",
            hint="Process 1 ignores a signal that it has no handler for. "
            'For Python without a handler: stop_signal = "SIGINT".',
        )
    # A program without a handler ends with 128 plus the number of the signal; only a model server must handle it.
    if code not in (0, 143, 130) or (spec.kind == "models" and code != 0):
        raise EstibaError(
            f"The image of {spec.service} ended with exit code {code} when told to stop:\n"
            f"{_log_tail(engine, container)}"
        )
    return seconds


def _check_unchanged(engine: Engine, container: str, spec: ImageSpec) -> None:
    """Raise EstibaError if a container with a writable file system has written outside the allowed folders."""
    allowed = ("/tmp", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/run", "/proc", "/sys")
    changed = [line.split(maxsplit=1) for line in engine.ask("diff", container).splitlines()]
    paths = [
        path
        for kind, path in changed
        if not path.startswith((*allowed, MOUNT_PATH, *spec.runtime.writable, *spec.runtime.volumes)) and kind != "C"
    ]
    if paths:
        shown = ", ".join(paths[:5])
        raise EstibaError(
            f"The image of {spec.service} writes outside /tmp: {shown}.",
            hint="Let it write below /tmp, or name the folder in `writable` of the service.",
        )
