"""Here: what the references of a plan are on this machine, and the programs and environments that follow from them."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from estiba.core.errors import BadProject
from estiba.core.stores.disk import explained, make_folder, write_whole
from estiba.deploy.observability import config_files
from estiba.deploy.observability.config_files import Surroundings
from estiba.deploy.plan import secrets
from estiba.deploy.plan.plan import Command, File, Http, Plan, Service
from estiba.deploy.plan.references import Reference, resolve
from estiba.deploy.plan.service_options import MODELS

_EXEC = re.compile(r"\bexec\s+([A-Za-z0-9_./-]+)")
"""What a shell becomes: the program of an image whose command has to read a secret first."""

HOST = "127.0.0.1"
"""What services bind to and are reached at: nobody else's machine gets in."""


@dataclass(frozen=True)
class LocalTarget:
    """A plan on this machine.

    Args:
        port: of the server of all models. variables: of the environment, those of `.env` included.
    """

    plan: Plan
    port: int
    variables: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """What is made for the services: volumes, files, environments."""
        return self.plan.folder / ".estiba"

    def words(self, service: Service) -> list[str]:
        """The command of a service; raises BadProject for a variable that is not set."""
        return [self.text(service, word) for word in _words(service)]

    def text(self, service: Service, text: str) -> str:
        """A text of a service with every reference replaced; raises BadProject for a variable that is not set."""
        return resolve(text, lambda reference: self._meaning(service, reference))

    def environment(self, service: Service, packages: Path | None) -> dict[str, str]:
        """The whole environment of a service.

        Args:
            packages: the virtual environment made for it.
        """
        own = {name: self.text(service, value) for name, value in service.environment.items()}
        return {**self._inherited(packages), **own}

    def _inherited(self, packages: Path | None) -> dict[str, str]:
        found = {"PYTHONUNBUFFERED": "1", **self.variables}  # else what a Python program prints comes late
        paths = [path for path in found.get("PATH", os.defpath).split(os.pathsep) if path]
        estiba = str(Path(sys.executable).parent)
        if packages is not None:
            paths.insert(0, str(packages / "bin"))
            found["VIRTUAL_ENV"] = str(packages)
            found.pop("PYTHONHOME", None)
        elif "VIRTUAL_ENV" in found or "CONDA_PREFIX" in found:
            paths.append(estiba)
        else:  # nobody chose an environment: the one that Estiba is in, as if it were active
            paths.insert(0, estiba)
        return {**found, "PATH": os.pathsep.join(paths)}

    def program(self, service: Service, packages: Path | None) -> str:
        """The path of the program of a service; empty where it is not on this machine."""
        program = self.text(service, _words(service)[0])
        if os.sep in program:
            program = str(self.plan.folder / service.folder / program)
        return shutil.which(program, path=self._inherited(packages)["PATH"]) or ""

    def missing(self, service: Service) -> str:
        """Why a service cannot run here, in a few words; empty where it can, as far as can be told now."""
        if not _words(service):
            return f"it is only the image {service.image}, and has no command"
        if _words(service)[0].startswith("-"):
            return f"only the image {service.image} has its program"
        build = service.build
        if build is not None and build.requirements is not None and build.kind != "training":
            return ""
        program = self.text(service, _words(service)[0])
        if self.program(service, None):
            lost = self._lost(service)
            return f"{lost} is not on PATH" if lost else ""
        return f"there is no {program}" if os.sep in program else f"{program} is not on PATH"

    def _lost(self, service: Service) -> str:
        """The program that the shell of an image's command becomes, where this machine does not have it."""
        if service.build is not None:
            return ""
        path = self._inherited(None)["PATH"]
        names = [name for word in service.command[1:] for name in _EXEC.findall(word)]
        return next((name for name in names if shutil.which(name, path=path) is None), "")

    def url(self, service: Service) -> str:
        """Where a person finds a service; empty where it has no port."""
        if service.port is None:
            return ""
        return f"{'http' if isinstance(service.health, Http) else 'tcp'}://{HOST}:{service.port}"

    def check(self, services: Collection[Service]) -> None:
        """Looks every reference of some services up; raises BadProject, or EstibaError for an empty secret."""
        for service in services:
            secrets.ensure(self.plan.folder, service.secrets)
            self.words(service)
            self.environment(service, None)
            if isinstance(service.health, Command):
                for argument in service.health.argv:
                    self.text(service, argument)

    def furnish(self, service: Service, running: Collection[str]) -> None:
        """Makes the volumes of a service, and writes the files that Estiba generates for it.

        Args:
            running: names of the services that run; the files tell of no others.

        Raises:
            EstibaError: they cannot be written. BadProject: a file that Estiba does not know.
        """
        for name in service.volumes:
            place = self._volume(service, name)
            with explained("make", place):
                make_folder(place)
        plan = replace(self.plan, services=tuple(s for s in self.plan.services if s.name in running or s.models))
        around = Surroundings(self._address, lambda other, file: str(self._file(other, file)))
        for file in service.files.values():
            if file.generated:
                for name, text in config_files.generate(plan, service, file, around).items():
                    _write(self._file(service, file) / name, text)

    def _meaning(self, service: Service, reference: Reference) -> str:
        match reference.kind:
            case "own":
                return str(service.port) if reference.part == "port" else HOST
            case "services":
                return self._part(reference)
            case "models":
                return f"http://{HOST}:{self.port}/models/{reference.name}"
            case "secrets":
                return str(secrets.place(self.plan.folder, reference.name))
            case "volumes":
                return str(self._volume(service, reference.name))
            case "files":
                return str(self._file(service, service.files[reference.name]))
            case _:
                return self._variable(service, reference)

    def _part(self, reference: Reference) -> str:
        if reference.name == MODELS:
            port, url = self.port, f"http://{HOST}:{self.port}"
        else:
            service = self.plan[reference.name]
            assert service.port is not None
            port, url = service.port, self.url(service)
        return {"host": HOST, "port": str(port), "url": url}[reference.part]

    def _variable(self, service: Service, reference: Reference) -> str:
        found = self.variables.get(reference.name)
        if not found and reference.default is not None:  # as in a shell, empty is as good as not set
            return reference.default
        if found is None:
            raise BadProject(
                f"services.{service.name}: the variable {reference.name} is not set.",
                hint=f"Set it in .env, or give it a default: ${{env.{reference.name}:-...}}.",
            )
        return found

    def _volume(self, service: Service, name: str) -> Path:
        return self.folder / "volumes" / service.name / name

    def _file(self, service: Service, file: File) -> Path:
        """Generated files lie as they do in the container, since some name others beside them."""
        if file.generated:
            return self.folder / "files" / service.name / file.target.lstrip("/")
        return self.plan.folder / file.source

    def _address(self, service: Service) -> str:
        if service.models:
            return f"{HOST}:{self.port if service.name == MODELS else service.published}"
        return f"{HOST}:{service.port}"


def _write(path: Path, text: str) -> None:
    with explained("write", path):
        make_folder(path.parent)
    write_whole(path, text.encode())


def _words(service: Service) -> tuple[str, ...]:
    """What runs on this machine: the command, behind the program that an image would start with it."""
    return (service.program, *service.command) if service.program else service.command
