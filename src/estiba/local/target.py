"""Resolve a plan's references to addresses and paths of this machine, and find the programs of its services."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from estiba.core.addresses import bracketed, http_url
from estiba.core.errors import BadProject
from estiba.core.stores.disk import explained, make_folder, write_whole
from estiba.deploy.compose.secrets_in_use import kept_data
from estiba.deploy.observability import config_files
from estiba.deploy.observability.config_files import Surroundings
from estiba.deploy.plan import secrets
from estiba.deploy.plan.plan import API_KEY, Command, File, Http, Plan, Service, in_container
from estiba.deploy.plan.references import Reference, resolve
from estiba.deploy.plan.service_options import MODELS
from estiba.local.containers import ENGINE_TIMEOUT_SECONDS, HOST, Containers, volume_of

_EXEC = re.compile(r"\bexec\s+([A-Za-z0-9_./-]+)")
"""The program that a shell replaces itself with, in images whose command has to read a secret first."""

LOOPBACK = "127.0.0.1"
"""The address that applications listen on: other machines cannot reach them."""


@dataclass(frozen=True)
class LocalTarget:
    """A plan on this machine.

    Args:
        server_host: the address at which the model server is reached. server_port: its port.
        variables: of the environment, including those of `.env`.
        debuggers: by service that runs under a debugger, the debugger's port.
        containers: runs services that exist only as images.
        container_ports: by name of a service, the port that its image listens on, where all others are moved.
    """

    plan: Plan
    server_host: str
    server_port: int
    variables: Mapping[str, str]
    debuggers: Mapping[str, int] = field(default_factory=dict)
    containers: Containers = field(default_factory=Containers)
    container_ports: Mapping[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder of volumes, generated files and virtual environments."""
        return self.plan.folder / ".estiba"

    @property
    def server_url(self) -> str:
        return http_url(self.server_host, self.server_port)

    def argv(self, service: Service) -> list[str]:
        """The command of a service; raises BadProject for a variable that is not set."""
        command = service.command if self.in_container(service) else _unresolved_argv(service)
        return [self.resolved(service, argument) for argument in command]

    def resolved(self, service: Service, text: str) -> str:
        """A text of a service with every reference replaced; raises BadProject for a variable that is not set."""
        return resolve(text, lambda reference: self._value(service, reference))

    def environment(self, service: Service, packages: Path | None) -> dict[str, str]:
        """The whole environment of a service.

        Args:
            packages: its virtual environment, if it has one.
        """
        own = {name: self.resolved(service, value) for name, value in service.environment.items()}
        return own if self.in_container(service) else {**self._inherited(packages), **own}

    def _inherited(self, packages: Path | None) -> dict[str, str]:
        variables = {"PYTHONUNBUFFERED": "1", **self.variables}  # otherwise output of Python programs comes late
        paths = [path for path in variables.get("PATH", os.defpath).split(os.pathsep) if path]
        estiba = str(Path(sys.executable).parent)
        if packages is not None:
            paths.insert(0, str(packages / "bin"))
            variables["VIRTUAL_ENV"] = str(packages)
            variables.pop("PYTHONHOME", None)
        elif "VIRTUAL_ENV" in variables or "CONDA_PREFIX" in variables:
            paths.append(estiba)
        else:  # no environment is active: use Estiba's own as if it were
            paths.insert(0, estiba)
        return {**variables, "PATH": os.pathsep.join(paths)}

    def program(self, service: Service, packages: Path | None) -> str:
        """The path of the program of a service; empty where it is not installed."""
        program = self._resolved_here(service, _unresolved_argv(service)[0])
        if os.sep in program:
            program = str(self.plan.folder / service.folder / program)
        return shutil.which(program, path=self._inherited(packages)["PATH"]) or ""

    def unavailable(self, service: Service) -> str:
        """The reason why a service cannot run here, in a few words; empty where none is known yet."""
        reason = self._no_program(service)
        if not reason or service.build is not None:
            return reason
        return f"{reason}, and {self.containers.missing}" if self.containers.engine is None else ""

    def in_container(self, service: Service) -> bool:
        """Tell if a service runs in a container: only its image has the program, and there is an engine."""
        return service.build is None and bool(self._no_program(service)) and self.containers.engine is not None

    def _no_program(self, service: Service) -> str:
        """The reason why the program of a service cannot be a process of this machine; empty where none is known."""
        if service.models:
            return ""
        argv = _unresolved_argv(service)
        if not argv:
            return f"it is only the image {service.image}, and has no command"
        if argv[0].startswith("-"):
            return f"only the image {service.image} has its program"
        build = service.build
        if build is not None and build.requirements is not None and build.kind != "training":
            return ""
        program = self._resolved_here(service, argv[0])
        if self.program(service, None):
            missing = self._missing_exec(service)
            return f"{missing} is not on PATH" if missing else ""
        return f"there is no {program}" if os.sep in program else f"{program} is not on PATH"

    def _missing_exec(self, service: Service) -> str:
        """The program that the shell of an image's command replaces itself with, where it is not installed."""
        if service.build is not None:
            return ""
        path = self._inherited(None)["PATH"]
        names = [name for argument in service.command[1:] for name in _EXEC.findall(argument)]
        return next((name for name in names if shutil.which(name, path=path) is None), "")

    def url(self, service: Service, host: str = LOOPBACK) -> str:
        """The address of a service; empty where it has no port."""
        if service.port is None:
            return ""
        return f"{'http' if isinstance(service.health, Http) else 'tcp'}://{host}:{service.port}"

    def check(self, services: Collection[Service]) -> None:
        """Resolve every reference of some services, and generate their secrets.

        Raises:
            BadProject: a reference has no value. NotFound: a secret is lost, and there are data made with it.
            EstibaError: a secret is empty.
        """
        self._check_lost_secrets(services)
        for service in services:
            secrets.ensure(self.plan.folder, service.secrets)
            self.argv(service)
            self.environment(service, None)
            if isinstance(service.health, Command):
                for argument in service.health.argv:
                    self.resolved(service, argument)

    def _check_lost_secrets(self, services: Collection[Service]) -> None:
        """Check that secrets without a file are not in use: a database keeps the password that it was made with."""
        for service in services:
            # An API key is none: a new one is admitted in place of the old one.
            names = (name for name in service.secrets if name != API_KEY)
            paths = {name: secrets.path_of(self.plan.folder, name) for name in names}
            lost = [(name, path) for name, path in paths.items() if not path.exists()]
            if lost and (found := self._data(service)):
                raise kept_data(*lost[0], *found)

    def _data(self, service: Service) -> tuple[str, str] | None:
        """The place of a service's data of earlier runs, and the command that removes them; None without data."""
        engine = self.containers.engine if self.in_container(service) else None
        for name in service.volumes:
            if engine is not None:
                volume = volume_of(self.plan, service, name)
                if engine.try_to("volume", "inspect", volume, timeout=ENGINE_TIMEOUT_SECONDS).code == 0:
                    return volume, f"{engine.program} volume rm {volume}"
            else:
                folder = self._volume(service, name)
                with explained("read", folder):
                    if folder.is_dir() and any(folder.iterdir()):
                        return str(folder), f"rm -r {shlex.quote(str(folder))}"
        return None

    def create_files(self, service: Service, running: Collection[str]) -> None:
        """Create the volumes of a service, and the files that Estiba generates for it.

        Args:
            running: names of the services that run; the files mention no others.

        Raises:
            EstibaError: they cannot be written. BadProject: a file that Estiba does not know.
        """
        boxed = self.in_container(service)
        for name in () if boxed else service.volumes:
            volume = self._volume(service, name)
            with explained("make", volume):
                make_folder(volume)
        plan = replace(self.plan, services=tuple(s for s in self.plan.services if s.name in running or s.models))
        around = Surroundings(
            lambda other: self._address(other, HOST if boxed else ""),
            lambda other, file: file.target if boxed else str(self.file(other, file)),
            secret=lambda name: f"/run/secrets/{name}" if boxed else str(secrets.path_of(self.plan.folder, name)),
        )
        for file in service.files.values():
            if file.generated:
                for name, text in config_files.generate(plan, service, file, around).items():
                    _write(self.file(service, file) / name, text)

    def _resolved_here(self, service: Service, text: str) -> str:
        return resolve(text, lambda reference: self._value_here(service, reference))

    def _value(self, service: Service, reference: Reference) -> str:
        contained = self.in_container(service)
        return (self._value_in_container if contained else self._value_here)(service, reference)

    def _value_here(self, service: Service, reference: Reference) -> str:
        """A reference of a service that is a process of this machine."""
        match reference.kind:
            case "own":
                return str(service.port) if reference.part == "port" else LOOPBACK
            case "services":
                return self._service_part(reference, "")
            case "models":
                return f"{self.server_url}/models/{reference.name}"
            case "secrets":
                return str(secrets.path_of(self.plan.folder, reference.name))
            case "volumes":
                return str(self._volume(service, reference.name))
            case "files":
                return str(self.file(service, service.files[reference.name]))
            case _:
                return self._variable(service, reference)

    def _value_in_container(self, service: Service, reference: Reference) -> str:
        """A reference of a service in a container, which reaches all others at the name of this machine."""
        match reference.kind:
            case "services":
                return self._service_part(reference, HOST)
            case "models":
                return f"{http_url(HOST, self.server_port)}/models/{reference.name}"
            case "env":
                return self._variable(service, reference)
            case _:
                inside = replace(service, port=self.container_ports.get(service.name, service.port))
                return in_container(self.plan, inside, reference, "")

    def _service_part(self, reference: Reference, host: str) -> str:
        """A part of a service's address, at `host` where that is not empty."""
        if reference.name == MODELS:
            host, port = host or self.server_host, self.server_port
            url = http_url(host, port)
        else:
            service = self.plan[reference.name]
            assert service.port is not None
            host, port = host or LOOPBACK, service.port
            url = self.url(service, host)
        return {"host": host, "port": str(port), "url": url}[reference.part]

    def _variable(self, service: Service, reference: Reference) -> str:
        value = self.variables.get(reference.name)
        if not value and reference.default is not None:  # as in a shell, an empty variable counts as not set
            return reference.default
        if value is None:
            raise BadProject(
                f"services.{service.name}: the variable {reference.name} is not set.",
                hint=f"Set it in .env, or give it a default: ${{env.{reference.name}:-...}}.",
            )
        return value

    def _volume(self, service: Service, name: str) -> Path:
        return self.folder / "volumes" / service.name / name

    def file(self, service: Service, file: File) -> Path:
        """The path of a file. Generated files are laid out as in the container, as some refer to others."""
        if file.generated:
            return self.folder / "files" / service.name / file.target.lstrip("/")
        return self.plan.folder / file.source

    def _address(self, service: Service, host: str) -> str:
        """`host:port` of a service, at its own address where `host` is empty."""
        if service.models:
            port = self.server_port if service.name == MODELS else service.published
            return f"{bracketed(host or self.server_host)}:{port}"
        return f"{host or LOOPBACK}:{service.port}"


def _write(path: Path, text: str) -> None:
    with explained("write", path):
        make_folder(path.parent)
    write_whole(path, text.encode())


def _unresolved_argv(service: Service) -> tuple[str, ...]:
    """The command as in the plan, after the program that an image would start with it."""
    return (service.program, *service.command) if service.program else service.command
