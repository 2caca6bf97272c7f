"""Run a service of `estiba up` as a container, where only its image has the program, with docker or podman.

The container is a child of `estiba up` like any process: `docker run` stays in the foreground, passes its output on and
forwards signals. It has its name and labels so that one that is left, after a SIGKILL, is found at the next start.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from estiba.core.errors import EstibaError
from estiba.core.guard import process_stat
from estiba.core.process_group import OnLine, ProcessGroup
from estiba.deploy.image import container_engine
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.plan.plan import Plan, Service

Choice = Literal["auto", "docker", "podman", "none"]

HOST = "host.docker.internal"
"""The name by which a container reaches the services of this machine, containers included."""

HOST_GATEWAY = "host-gateway"
"""The address that a container engine itself gives the host, where `estiba up` does not know it."""

FOLDER_LABEL = "org.estiba.folder"
PID_LABEL = "org.estiba.up"
"""The label of the `estiba up` that a container belongs to: its process and when that started, `812:3456789`."""

ENGINE_TIMEOUT_SECONDS = 60.0
SHOWN_LINES = 20

_CLIENT_VARIABLE = re.compile(
    r"PATH|HOME|TMPDIR|ESTIBA_UP|(HTTP|HTTPS|FTP|NO|ALL)_PROXY|(http|https|ftp|no|all)_proxy"
    r"|DOCKER_(HOST|CONFIG|CONTEXT|TLS|TLS_VERIFY|CERT_PATH|API_VERSION|DEFAULT_PLATFORM|CUSTOM_HEADERS|AUTH_CONFIG)"
    r"|DOCKER_(CONTENT_TRUST|CONTENT_TRUST_SERVER|HIDE_LEGACY_COMMANDS|CLI_\w+)"
    r"|CONTAINER_(HOST|SSHKEY|PASSPHRASE|CONNECTION)|CONTAINERS_\w+|STORAGE_(DRIVER|OPTS)|REGISTRY_AUTH_FILE"
    r"|XDG_\w+|LD_\w+|SSL_CERT_(FILE|DIR)|GO(DEBUG|GC|MAXPROCS|MEMLIMIT|TRACEBACK)"
)
"""Variables that docker and podman read themselves, so that a container's own value must not reach them."""


class PullFailed(EstibaError):
    """An image could not be pulled. `output` is the end of the engine's output."""

    def __init__(self, message: str, *, hint: str, output: str) -> None:
        super().__init__(message, hint=hint)
        self.output = output


class Containers:
    """The container engine of a run: looked for when a service first needs it."""

    def __init__(self, choice: Choice = "auto") -> None:
        self._choice = choice

    @property
    def engine(self) -> Engine | None:
        """The engine; None where there is none, for the reason `missing`."""
        return self._found[0]

    @property
    def missing(self) -> str:
        """The reason why no engine runs containers, in a few words."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[Engine | None, str]:
        if self._choice == "none":
            return None, "containers are off (--containers none)"
        names = ("docker", "podman") if self._choice == "auto" else (self._choice,)
        reasons = []
        for name in names:
            reason = container_engine.trouble(name)
            if not reason:
                return Engine(name), ""
            reasons.append(f"{name}: {reason}")
        return None, f"no container engine works here ({'; '.join(reasons)})"

    def remove_left(self, folder: Path) -> list[str]:
        """Remove the containers of a project whose `estiba up` was killed; return their names."""
        if self.engine is None:
            return []
        listing = ["ps", "--all", "--filter", f"label={FOLDER_LABEL}={folder}"]
        form = f'{{{{.Names}}}} {{{{index .Labels "{PID_LABEL}"}}}}'
        if self.engine.program == "docker":
            form = f'{{{{.Names}}}} {{{{.Label "{PID_LABEL}"}}}}'
        lines = self.engine.ask(*listing, "--format", form, timeout=ENGINE_TIMEOUT_SECONDS).splitlines()
        left = [name for name, pid in (line.split() for line in lines) if not _lives(pid)]
        for name in left:
            self.engine.try_to("rm", "--force", "--volumes", name, timeout=ENGINE_TIMEOUT_SECONDS)
        return left

    def gateway(self) -> str:
        """The address of this machine on the containers' network; `HOST_GATEWAY` where it is not ours to listen at."""
        engine = self.engine
        if engine is None or sys.platform != "linux" or (engine.program == "podman" and os.geteuid()):
            return HOST_GATEWAY
        if engine.program == "docker":
            form = ("bridge", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}")
        else:
            form = ("podman", "--format", "{{range .Subnets}}{{.Gateway}} {{end}}")
        done = engine.try_to("network", "inspect", *form, timeout=ENGINE_TIMEOUT_SECONDS)
        addresses = [address for address in done.output.split() if re.fullmatch(r"[0-9.]+", address)]
        return addresses[0] if done.code == 0 and addresses else HOST_GATEWAY


def _lives(label: str) -> bool:
    """Tell if the `estiba up` of a label runs: its number may have become another process's, or this one's."""
    pid, _, start = label.partition(":")
    if int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not start or _start(int(pid)) in ("", start)


def _start(pid: int) -> str:
    """The time at which a process started, as the kernel counts it; empty where that is unknown."""
    try:
        return str(process_stat(pid).start_ticks)
    except OSError:
        return ""


def name_of(plan: Plan, service: Service) -> str:
    """The name of a container: two checkouts of a project do not share it."""
    return f"{plan.project}-{service.name}-{_checkout(plan)}"


def volume_of(plan: Plan, service: Service, volume: str) -> str:
    """The name of a volume. It is the engine's, as a folder of this user is not writable for the image's user."""
    return f"{plan.project}-{service.name}-{volume}-{_checkout(plan)}"


def _checkout(plan: Plan) -> str:
    return hashlib.sha256(str(plan.folder).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class ContainerSpec:
    """All that `docker run` is told of a container, with every reference resolved.

    Args:
        environment: its variables. mounts: by path in the container, the file or folder of this machine, read-only.
        env_file: holds those variables whose values must not reach the engine's program.
        gateway: the address of `HOST`. port: that the image listens on, if it is not the published one.
    """

    plan: Plan
    service: Service
    argv: Sequence[str]
    environment: Mapping[str, str]
    mounts: Mapping[str, Path]
    env_file: Path
    gateway: str = HOST_GATEWAY
    port: int | None = None

    @property
    def name(self) -> str:
        return name_of(self.plan, self.service)

    def command(self, engine: Engine) -> list[str]:
        """The command line that runs the container in the foreground."""
        service = self.service
        command = [engine.program, "run", "--rm", "--name", self.name, "--pull=never"]
        command += [
            f"--label={FOLDER_LABEL}={self.plan.folder}",
            f"--label={PID_LABEL}={os.getpid()}:{_start(os.getpid())}",
        ]
        # Docker alone always has an init; without one, a program that sets no handler ignores SIGTERM.
        command += ["--init"] if engine.program == "docker" else ["--security-opt=label=disable"]
        command += ["--security-opt=no-new-privileges", f"--add-host={HOST}:{self.gateway}"]
        if service.port is not None:
            command.append(f"--publish=127.0.0.1:{service.port}:{self.port or service.port}")
        if service.user is not None:
            command.append(f"--user={service.user}")
        command += [f"--memory={service.memory}", f"--cpus={service.cpus:g}"]
        command += [f"--tmpfs={path}:mode=1777" for path in service.writable]
        command += [f"--env={name}" for name in self.environment if name not in self.hidden]
        command += [f"--env-file={self.env_file}"] * bool(self.hidden)
        command += [option for mount in self._mounts() for option in ("--mount", mount)]
        return [*command, service.image, *self.argv]

    def client_environment(self) -> dict[str, str]:
        """The environment of `docker run`: values in it are not seen in the list of processes."""
        own = {name: value for name, value in self.environment.items() if name not in self.hidden}
        return {**os.environ, **own}

    @cached_property
    def hidden(self) -> dict[str, str]:
        """The variables that the engine's program would read itself. A file of variables has no lines in a value."""
        return {
            name: value
            for name, value in self.environment.items()
            if _CLIENT_VARIABLE.fullmatch(name) and not re.search(r"[\r\n]", value)
        }

    def _mounts(self) -> list[str]:
        volumes = [
            f"type=volume,source={volume_of(self.plan, self.service, name)},target={path}"
            for name, path in self.service.volumes.items()
        ]
        return volumes + [
            ",".join(["type=bind", _cell(f"source={source}"), _cell(f"target={path}"), "readonly"])
            for path, source in self.mounts.items()
        ]


def _cell(text: str) -> str:
    """A field of a line of CSV, as which --mount is read."""
    return '"' + text.replace('"', '""') + '"' if re.search('[",]', text) else text


def removal(engine: Engine, name: str) -> list[str]:
    """The command that ends a container however it stands."""
    return [engine.program, "rm", "--force", "--volumes", name]


def exec_command(engine: Engine, name: str, argv: Sequence[str]) -> list[str]:
    """The command that runs a program in a container, such as a health check."""
    return [engine.program, "exec", name, *argv]


def stop_signal(engine: Engine, image: str) -> str:
    """The stop signal of an image, such as `SIGINT`; SIGTERM where it names none that is known by name."""
    named = str(engine.inspect("image", image)["Config"].get("StopSignal") or "")
    full = named if named.startswith("SIG") else f"SIG{named}"
    return full if full in _STOP_SIGNALS else "SIGTERM"


_STOP_SIGNALS: Collection[str] = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH")


async def pull(engine: Engine, image: str, environment: Mapping[str, str], on_line: OnLine) -> None:
    """Pull an image.

    Args:
        environment: of the engine's program, made by `marked`. on_line: called with each line of its output.

    Raises:
        PullFailed: there is no such image, or its registry cannot be reached.
    """
    lines: list[str] = []

    def forward(line: str) -> None:
        lines.append(line)
        on_line(line)

    group = ProcessGroup([engine.program, "pull", image], folder=Path("/"), environment=environment, on_line=forward)
    try:
        code = await group.wait()
    finally:
        await group.kill()
    if code:
        hint = f"Check the name of the image and the connection to its registry, or load it: {engine.program} load."
        message = f"The image {image} could not be pulled (exit code {code})."
        raise PullFailed(message, hint=hint, output="\n".join(lines[-SHOWN_LINES:]))
