"""Verify: an image is run as a deployment would run it, hardened, and has to answer as its models did in training."""

from __future__ import annotations

import json
import math
import secrets
import shlex
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from estiba.core.errors import EstibaError, ParityError
from estiba.core.stores.disk import temporary
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.image.spec import Recipe
from estiba.deploy.plan.model_source import PLACE, is_folder
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_TIMEOUT_SECONDS, STARTED_SECONDS
from estiba.model.artifact import artifact, golden_rows
from estiba.model.coding.predictions import Predictions
from estiba.model.inference.load import GOLDEN_FILE

HARDENED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "256")

NEEDS_OTHERS_SECONDS = 20.0
"""Time in which a service that needs others may become healthy without them, as many do."""

WRITES_SECONDS = 3.0
"""Time that a service without a health check, or that was not healthy before, runs until its writes are looked at."""

_BATCH = 256
"""Golden rows in one request."""


@dataclass(frozen=True)
class Verified:
    """What was seen.

    Args:
        start: seconds from the command to run it until it was healthy; None where that needs other services.
        memory: bytes resident after the golden rows, all processes together, shared pages counted in each.
        rows: golden rows that were answered as in training.
        stop: seconds from the signal to its end; None where it may have been starting still, as it waits for others.
    """

    start: float | None
    memory: int
    rows: int
    stop: float | None


def verify(engine: Engine, image: str, recipe: Recipe, models: Path) -> Verified:
    """Runs an image as nobody in particular, on a read-only file system and without any privilege.

    It must become healthy, answer every golden row over HTTP, end well when told to, and write nothing outside /tmp.

    Args:
        image: its id. models: a registry folder: what went into it, or what it gets to serve here.

    Raises:
        ParityError: an answer differs. EstibaError: anything else that a deployment would trip over; says what.
    """
    if recipe.kind == "training":
        return _verify_training(engine, image, recipe)
    user = 20_000 + secrets.randbelow(30_000)
    began = time.monotonic()
    limits = ["--memory", str(recipe.memory), "--cpus", f"{recipe.cpus:g}"]
    mounted = ["--volume", f"{models}:{PLACE}:ro,z"] if recipe.registry else []
    if recipe.registry and not is_folder(recipe.registry):
        _check_opens(engine, image, recipe)
    with _running(engine, image, recipe, ["--read-only", "--user", f"{user}:0", *limits, *mounted]) as container:
        start = _wait(engine, container, recipe, began, _start_limit(recipe))
        rows = sum(_ask_golden(engine, container, recipe, models, name) for name in recipe.models)
        memory = _memory(engine, container)
        starting = start is None and bool(recipe.health)
        stop = None if starting else _stop(engine, container, recipe)
    with _running(engine, image, recipe, mounted) as container:
        _wait(engine, container, recipe, time.monotonic(), _start_limit(recipe) if start else WRITES_SECONDS)
        _check_unchanged(engine, container, recipe)
    return Verified(start, memory, rows, stop)


def _check_opens(engine: Engine, image: str, recipe: Recipe) -> None:
    """Whether it has the libraries of its registry's address; nothing is asked of the registry."""
    code = "import sys; from estiba.core.stores.files import open_store; open_store(sys.argv[1])"
    words = ["run", "--rm", *HARDENED, "--network", "none", "--read-only", "--tmpfs", "/tmp", "--entrypoint", "python"]
    engine.ask(*words, image, "-c", code, recipe.registry, timeout=recipe.start_timeout)


def _verify_training(engine: Engine, image: str, recipe: Recipe) -> Verified:
    """Training itself needs data and time; that everything it imports is there is seen at once."""
    code = "import estiba.model.training.worker, estiba.model.packing.pack, skl2onnx, sklearn, pandas, skops"
    began = time.monotonic()
    words = ["run", "--rm", *HARDENED, "--read-only", "--tmpfs", "/tmp", "--user", "20000:0", image]
    engine.ask(*words, "python", "-c", code, timeout=recipe.start_timeout)
    return Verified(time.monotonic() - began, 0, 0, 0.0)


@contextmanager
def _running(engine: Engine, image: str, recipe: Recipe, extra: list[str]) -> Iterator[str]:
    """A container of the image, removed at the end."""
    name = f"estiba-verify-{secrets.token_hex(6)}"
    words = ["run", "--detach", "--name", name, *HARDENED, *extra]
    for variable, value in recipe.given.items():
        words += ["--env", f"{variable}={value}"]
    for place in ("/tmp", *recipe.writable, *recipe.volumes):
        words += ["--tmpfs", f"{place}:rw,nosuid,nodev,size=64m,mode=1777"]
    if recipe.port is not None:
        words += ["--publish", f"127.0.0.1::{recipe.port}"]
    with _made_up(recipe) as mounts:
        try:
            engine.ask(*words, *mounts, image, timeout=120)
            yield name
        finally:
            engine.try_to("rm", "--force", "--volumes", name)


@contextmanager
def _made_up(recipe: Recipe) -> Iterator[list[str]]:
    """Options that mount a secret of the moment wherever the service expects one of its own."""
    with temporary("verify") as folder:
        folder.chmod(0o755)  # the container reads it as another user
        mounts = []
        for secret in recipe.secrets:
            (path := folder / secret).write_text(secrets.token_urlsafe(32))
            path.chmod(0o644)
            mounts += ["--volume", f"{path}:/run/secrets/{secret}:ro,z"]
        yield mounts


def _start_limit(recipe: Recipe) -> float:
    """Seconds in which a container has to become healthy, or has to keep running where it has no health check."""
    if not recipe.health:
        return STARTED_SECONDS
    return recipe.start_timeout if recipe.alone else min(NEEDS_OTHERS_SECONDS, recipe.start_timeout)


def _wait(engine: Engine, container: str, recipe: Recipe, began: float, limit: float) -> float | None:
    """Wait until a container is healthy.

    Returns:
        Seconds until its port answered, confirmed by the health check of the image; None where it only kept running,
        or is a task that has done its work.
    """
    until, pause, failure = began + limit, 0.01, ""
    while time.monotonic() < until:
        if not _is_up(engine, container):
            _check_ending(engine, container, recipe)
            return None
        if recipe.health and _answers(engine, container, recipe):
            seconds = time.monotonic() - began
            failure = _failed_health_check(engine, container, recipe)
            if not failure:
                return seconds
        time.sleep(pause)
        pause = min(0.1, pause * 1.2)
    if not recipe.alone or not recipe.health:
        return None
    port = "" if recipe.port is None else f" at port {recipe.port}{recipe.health_path}"
    raise EstibaError(
        f"The image of {recipe.service} was not healthy within {recipe.start_timeout:g} s{port}:\n"
        f"{failure or _last_words(engine, container)}",
        hint="Check `health` and `port` of the service, or raise its start_timeout.",
    )


def _failed_health_check(engine: Engine, container: str, recipe: Recipe) -> str:
    """Run the health check of the image in its container; empty if it succeeds, else why not."""
    command = shlex.join(recipe.health)
    try:
        done = engine.try_to("exec", container, *recipe.health, timeout=HEALTH_COMMAND_TIMEOUT_SECONDS)
    except EstibaError:
        return f"The health check did not end within {HEALTH_COMMAND_TIMEOUT_SECONDS} seconds: {command}"
    return f"The health check ended with exit code {done.code}: {command}\n{done.said}" if done.code else ""


def _check_ending(engine: Engine, container: str, recipe: Recipe) -> None:
    """A task that is done is fine; anything else has failed."""
    if recipe.port is None and engine.inspect("container", container)["State"]["ExitCode"] == 0:
        return
    raise EstibaError(
        f"The image of {recipe.service} ended while it started, read-only and without privileges:\n"
        f"{_last_words(engine, container)}",
        hint="What it must write to goes into `writable` of the service; /tmp always can be.",
    )


def _answers(engine: Engine, container: str, recipe: Recipe) -> bool:
    """Ask the published port of a container, which is quicker than a program in it; True where it has no port."""
    if recipe.port is None:
        return True
    address = _address(engine, container, recipe.port)
    if address is None:
        return False
    if not recipe.health_path:
        # A published port accepts before the program behind it listens, so only an answer or a kept connection counts.
        with suppress(OSError), socket.create_connection(address, 1) as connection:
            connection.settimeout(0.2)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                return True
        return False
    try:
        with _opener().open(
            f"http://{address[0]}:{address[1]}{recipe.health_path}", timeout=HEALTH_TIMEOUT_SECONDS
        ) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, HTTPError, URLError):
        return False


def _opener() -> Any:
    return build_opener(ProxyHandler({}))


def _address(engine: Engine, container: str, port: int) -> tuple[str, int] | None:
    """Where the container's port is reached; None once it has ended."""
    said = engine.try_to("port", container, str(port))
    if said.code or not said.output.strip():
        return None
    host, _, number = said.output.splitlines()[0].rpartition(":")
    return host or "127.0.0.1", int(number)


def _is_up(engine: Engine, container: str) -> bool:
    return bool(engine.inspect("container", container)["State"]["Running"])


def _last_words(engine: Engine, container: str) -> str:
    said = engine.try_to("logs", "--tail", "15", container)
    return (said.output + said.errors).strip() or "(it said nothing)"


def _ask_golden(engine: Engine, container: str, recipe: Recipe, models: Path, name: str) -> int:
    """Asks one model its golden rows over HTTP and returns how many those are."""
    found = artifact.read(models / "artifacts" / recipe.models[name][1])
    signature = found.manifest.signature
    rows = golden_rows.unseal(found.file(GOLDEN_FILE).read_bytes())
    expected = Predictions(signature).rows(rows.matrix)
    tolerance = found.manifest.parity.tolerance if found.manifest.parity else golden_rows.TOLERANCE
    assert recipe.port is not None
    address = _address(engine, container, recipe.port)
    if address is None:
        raise EstibaError(f"The image of {recipe.service} ended:\n{_last_words(engine, container)}")
    host, port = address
    for first in range(0, len(expected), _BATCH):
        body = json.dumps({"records": rows.records[first : first + _BATCH]}).encode()
        answer = _post(f"http://{host}:{port}/models/{name}/predict", body)
        for n, (want, got) in enumerate(zip(expected[first : first + _BATCH], answer["predictions"], strict=True)):
            if not _agree(want, got, tolerance):
                raise ParityError(
                    f"In its image {name} answers golden row {first + n} with {got}, and in training with {want}.",
                    hint="The image's libraries differ from those that packed the model: train it again.",
                )
    return len(expected)


def _post(url: str, body: bytes) -> dict[str, Any]:
    request = Request(url, body, {"content-type": "application/json"})
    try:
        with _opener().open(request, timeout=60) as answer:
            decoded: dict[str, Any] = json.load(answer)
            return decoded
    except HTTPError as error:
        raise EstibaError(f"{url} answers {error.code}: {error.read().decode(errors='replace')[:500]}") from None
    except OSError as error:
        raise EstibaError(f"{url} does not answer: {error}") from None


def _agree(want: Mapping[str, Any], got: Mapping[str, Any], tolerance: float) -> bool:
    return want.keys() == got.keys() and all(_near(want[key], got[key], tolerance) for key in want)


def _near(want: Any, got: Any, tolerance: float) -> bool:
    if isinstance(want, Mapping):
        return _agree(want, got, tolerance)
    if isinstance(want, float) and isinstance(got, (int, float)):
        return (
            want == got or abs(want - got) <= tolerance * max(1.0, abs(want)) or (math.isnan(want) and math.isnan(got))
        )
    return bool(want == got)


def _memory(engine: Engine, container: str) -> int:
    """Bytes resident in all of its processes."""
    words = ("top", container, "-eo", "pid,rss") if engine.program == "docker" else ("top", container, "hpid", "rss")
    said = engine.try_to(*words)
    if said.code:
        return 0
    total = 0
    for line in said.output.splitlines()[1:]:
        figure = line.split()[-1]
        total += int(float(figure.rstrip("KMGB") or 0) * {"M": 1e6, "G": 1e9}.get(figure[-2:-1], 1024))
    return total


def _stop(engine: Engine, container: str, recipe: Recipe) -> float:
    """Seconds that it takes to end when told to."""
    began = time.monotonic()
    engine.ask("stop", "--time", str(math.ceil(recipe.stop_grace)), container)
    seconds = time.monotonic() - began
    code = engine.inspect("container", container)["State"]["ExitCode"]
    if code == 137:
        raise EstibaError(
            f"The image of {recipe.service} did not end within {recipe.stop_grace:g} s of {recipe.stop_signal}.",
            hint='As process 1, a program without a handler ignores it. Python without one: stop_signal = "SIGINT".',
        )
    # A program that leaves the signal to the system ends with its number, which counts as well where it serves others.
    if code not in (0, 143, 130) or (recipe.kind == "models" and code != 0):
        raise EstibaError(
            f"The image of {recipe.service} ended with exit code {code} when told to stop:\n"
            f"{_last_words(engine, container)}"
        )
    return seconds


def _check_unchanged(engine: Engine, container: str, recipe: Recipe) -> None:
    """On a file system that could be written to, nothing may have been."""
    allowed = ("/tmp", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/run", "/proc", "/sys")
    changed = [line.split(maxsplit=1) for line in engine.ask("diff", container).splitlines()]
    paths = [
        path
        for kind, path in changed
        if not path.startswith((*allowed, PLACE, *recipe.writable, *recipe.volumes)) and kind != "C"
    ]
    if paths:
        shown = ", ".join(paths[:5])
        raise EstibaError(
            f"The image of {recipe.service} writes outside /tmp: {shown}.",
            hint="Let it write below /tmp, or name the folder in `writable` of the service.",
        )
