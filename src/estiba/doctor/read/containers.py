"""Combine a Dockerfile with the service of a compose file into one container: command, user, mounts, health check."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from estiba.doctor.finding import Location
from estiba.doctor.read import command_lines
from estiba.doctor.read.build_context import BuildContext
from estiba.doctor.read.command_lines import Server
from estiba.doctor.read.compose_file import Compose, Mount, Port, Service, parse_duration
from estiba.doctor.read.dockerfile_stages import Stage, resolve_path, stages
from estiba.doctor.read.dockerfile_syntax import Instruction, exec_form, split
from estiba.doctor.read.image_files import ImageFiles, contents
from estiba.doctor.read.python_sources import CodeEnvironment, ListenCall, Module, listen_calls, program_modules
from estiba.doctor.read.yaml_nodes import Node


@dataclass(frozen=True)
class Image:
    """A Dockerfile with its build context.

    Args:
        target: the stage to build, by default the last.
    """

    file: str
    instructions: tuple[Instruction, ...]
    context: BuildContext
    arguments: Mapping[str, str] = field(default_factory=dict)
    target: str = ""

    @cached_property
    def stages(self) -> list[Stage]:
        return stages(self.instructions, self.arguments)

    @property
    def final(self) -> Stage | None:
        """The stage that the image is made of; None in a Dockerfile without FROM."""
        named = [stage for stage in self.stages if self.target and stage.name.lower() == self.target.lower()]
        return next(reversed(named or self.stages), None)

    @property
    def for_windows(self) -> bool:
        """True if it is built on Windows, which has other programs and users."""
        name = f"{self.file.rpartition('/')[2]} {self.final.base if self.final else ''}"
        return bool(re.search(r"windows|nanoserver|servercore", name, re.I))

    @cached_property
    def used(self) -> list[Stage]:
        """The stages that the image needs, in order: the final one, its parents and those that it copies from."""
        waiting = [self.final] if self.final else []
        needed: list[Stage] = []
        while waiting:
            stage = waiting.pop()
            if stage in needed:
                continue
            needed.append(stage)
            waiting += [stage.below] if stage.below else []
            names = set(_referenced_stages(stage))
            waiting += [other for n, other in enumerate(self.stages) if other.name.lower() in names or str(n) in names]
        return [stage for stage in self.stages if stage in needed]

    @cached_property
    def contents(self) -> ImageFiles:
        return contents(self.final, self.stages, self.context) if self.final else ImageFiles()

    def at(self, line: int) -> Location:
        return Location(self.file, line)


def _referenced_stages(stage: Stage) -> Iterator[str]:
    """Yield the names, in lower case, and numbers of stages that a stage copies or mounts files from."""
    for step in stage.steps:
        flags = step.instruction.flags
        names = [flags.get("from", ""), *re.findall(r"from=(\w+)", flags.get("mount", ""))]
        yield from (name.lower() for name in names if name)


@dataclass(frozen=True)
class HealthCheck:
    """A health check. `test` is a list of arguments, `shell` a text for a shell; one of the two is empty."""

    test: tuple[str, ...]
    shell: str
    interval: float
    start: float
    retries: int
    at: Location

    @property
    def text(self) -> str:
        return self.shell or " ".join(self.test)


@dataclass(frozen=True)
class Container:
    """A service of a compose file, or an image by itself; at least one of `image` and `service` is not None."""

    image: Image | None
    service: Service | None
    compose: Compose | None = None

    @property
    def name(self) -> str:
        return self.service.name if self.service else ""

    @property
    def final(self) -> Stage | None:
        return self.image.final if self.image else None

    @property
    def for_development(self) -> bool:
        """True if its name, its file or one of its profiles says that it is meant for development."""
        names = [self.name, *(self.service.profiles if self.service else [])]
        files = [self.image.file if self.image else "", self.service.node.at.file if self.service else ""]
        return any(map(for_development, [*names, *files]))

    @cached_property
    def environment(self) -> dict[str, str]:
        below = self.final.environment if self.final else {}
        over = self.service.environment if self.service else {}
        return {**below, **{name: variable.value for name, variable in over.items()}}

    def variable_location(self, name: str) -> Location:
        """Return the line that sets a variable of the environment."""
        if self.service and name in self.service.environment:
            return self.service.environment[name].at
        assert self.image is not None
        assert self.final is not None
        steps = [
            step for step in self.final.steps_of("ENV") if re.search(rf"\b{re.escape(name)}\b", step.instruction.text)
        ]
        return self.image.at(steps[-1].instruction.line_of(name) if steps else 0)

    @property
    def folder(self) -> str:
        given = self.service.text("working_dir") if self.service else ""
        return resolve_path(self.final.folder if self.final else "/", given or ".")

    @property
    def user(self) -> str | None:
        """Name or number, with the group; None if an image that is not built here decides."""
        given = self.service.text("user") if self.service else ""
        return given or (self.final.user if self.final else None)

    @property
    def non_root(self) -> bool:
        """True if the program certainly runs as another user than root."""
        return bool(self.user) and str(self.user).partition(":")[0] not in ("root", "0") and "$" not in str(self.user)

    @cached_property
    def command_line(self) -> tuple[list[str], Location]:
        """The whole command line with its location; empty if an image that is not built here decides."""
        entry, entry_at = self._part("entrypoint", "ENTRYPOINT")
        argv, argv_at = self._part("command", "CMD")
        if self.service and self.service.entrypoint is not None and self.service.command is None:
            argv = []  # Docker drops the image's CMD then
        return [*entry, *argv], argv_at if argv else entry_at

    def _part(self, key: str, name: str) -> tuple[list[str], Location]:
        given = (self.service.command if key == "command" else self.service.entrypoint) if self.service else None
        if self.service is not None and given is not None:
            return given, self.service.node.get(key).at
        step = self.final.last_step(name) if self.final else None
        if step is None or self.image is None:
            return [], Location(self.image.file) if self.image else self.service.node.at if self.service else Location(
                ""
            )
        argv = (
            list(step.instruction.argv)
            if step.instruction.argv is not None
            else ["/bin/sh", "-c", step.instruction.text]
        )
        return argv, self.image.at(step.instruction.line)

    @cached_property
    def program(self) -> list[str]:
        """The arguments of the program that finally runs, without shells and runners."""
        return command_lines.unwrap(self.command_line[0], self.environment)

    @cached_property
    def server(self) -> Server | None:
        """The server that it runs, if it is a known one; from the code if the program is a Python file."""
        server = command_lines.detect_server(self.program, self.environment)
        if server is not None and self._waits_for_arguments:
            server = command_lines.without_defaults(server, self.program, self.environment)
        if server is not None and self.image is not None:
            server = _configured(server, self.image.context)
        own = self.listen_call
        if server is None and own is not None:
            return Server(
                own.kind, own.host, own.port, own.file, for_development=own.kind == "flask", debugs=own.debugs
            )
        return server

    @property
    def _waits_for_arguments(self) -> bool:
        """True for an image by itself whose ENTRYPOINT is a list, without a CMD: who starts it gives the rest."""
        if self.final is None or self.service is not None or self.final.last_step("CMD"):
            return False
        entry = self.final.last_step("ENTRYPOINT")
        return entry is not None and entry.instruction.argv is not None

    @property
    def server_location(self) -> Location:
        """The line that sets the host and port on which it listens."""
        own = self.listen_call
        if (
            own is not None
            and self.image is not None
            and command_lines.detect_server(self.program, self.environment) is None
        ):
            return self.image.context.at(own.file, own.line)
        return self.command_line[1]

    @cached_property
    def listen_call(self) -> ListenCall | None:
        """The call with which the code itself listens; None if there is none, or more than one."""
        found = [one for read in self.modules[:1] for one in listen_calls(read, self.code_environment)]
        return found[0] if len(found) == 1 and self._runs_file() else None

    def _runs_file(self) -> bool:
        words = self.program
        return len(words) >= 2 and bool(re.fullmatch(r"(?:.*/)?python[\d.]*", words[0]))

    @cached_property
    def code_environment(self) -> CodeEnvironment:
        files = self.image.contents.files if self.image else {}
        return CodeEnvironment(self.folder, self.environment, {placed.source: path for path, placed in files.items()})

    @cached_property
    def modules(self) -> list[Module]:
        """The Python files of the build context that the program consists of; the first is the one that starts."""
        if self.image is None:
            return []
        argv = self.program
        known = command_lines.detect_server(argv, self.environment)
        scripts = [argument for argument in argv[1:] if not argument.startswith("-")] if self._runs_file() else []
        target = known.target if known else scripts[0] if scripts and scripts[0].endswith(".py") else ""
        return program_modules(self.image.context, *self._source(target)) if target else []

    def _source(self, target: str) -> tuple[str, str]:
        """Return the file of the build context for a target in the container, and the folder of its imports."""
        assert self.image is not None
        named = target.partition(":")[0].removeprefix("./")
        bare = named.replace(".", "/")
        for way in [named] if named.endswith(".py") else [f"{bare}.py", f"{bare}/__init__.py"]:
            placed = self.image.contents.files.get(resolve_path(self.folder, way))
            if placed is not None and placed.source.endswith(way):
                return target, placed.source.removesuffix(way).strip("/")
            if placed is not None:
                return placed.source, ""
        return target, ""

    def source_of(self, program: str) -> str:
        """Return the file of the build context that is a program or script in the image; empty if there is none."""
        files = self.image.contents.files if self.image is not None else {}
        if "/" not in program and resolve_path(self.folder, program) not in files:
            return next((file.source for path, file in files.items() if path.endswith(f"bin/{program}")), "")
        copied = files.get(resolve_path(self.folder, program))
        return copied.source if copied is not None else ""

    @property
    def mounts(self) -> list[Mount]:
        return self.service.mounts if self.service else []

    def mount_of(self, path: str) -> Mount | None:
        """Return the deepest mount above a path of the container."""
        inside = [
            m
            for m in self.mounts
            if m.target and (path + "/").startswith(resolve_path("/", m.target).rstrip("/") + "/")
        ]
        return max(inside, key=lambda mount: len(mount.target), default=None)

    @property
    def ports(self) -> list[Port]:
        return self.service.ports if self.service else []

    @property
    def health(self) -> HealthCheck | None:
        """The health check in force; None if there is none, or an image that is not built here may have one."""
        node = self.service.node.get("healthcheck") if self.service else None
        if self.service and node:
            return _of_compose(node, self.service)
        step = self.final.last_step("HEALTHCHECK") if self.final else None
        return _of_dockerfile(step.instruction, self.image.file) if step and self.image else None


def for_development(name: str) -> bool:
    """Return True if a name, or the last part of a path, says that it is for development."""
    plain = name.rpartition("/")[2]
    return bool(re.search(r"(?:^|[-_.])(?:dev|development|debug|local|override|test)(?:$|[-_.])", plain))


def _configured(server: Server, context: BuildContext) -> Server:
    """Clear the host and port of a server whose configuration file may set them, unless the command line does."""
    names = {path.rpartition("/")[2] for path in context.entries if not path.startswith("tests/")}
    gunicorn = server.kind == "gunicorn" and "gunicorn.conf.py" in names
    streamlit = server.kind == "streamlit run" and any(
        path.endswith(".streamlit/config.toml") for path in context.entries
    )
    defaults = (server.host, server.port) in (("127.0.0.1", 8000), ("0.0.0.0", 8000), ("0.0.0.0", 8501))
    return replace(server, host="", port=0) if (gunicorn or streamlit) and defaults else server


def _of_compose(node: Node, service: Service) -> HealthCheck | None:
    test = node.get("test")
    if node.get("disable").text.lower() == "true" or not test:
        return None
    argv = [item.text for item in test.each] if test.kind == "sequence" else ["CMD-SHELL", test.text]
    argv = [argument.replace("$$", "$") for argument in argv]
    if argv[:1] == ["NONE"] or not argv:
        return None
    shell = " ".join(argv[1:]) if argv[0] == "CMD-SHELL" else ""
    plain = () if shell else tuple(argv[1:])
    times = {name: parse_duration(node.get(name).text) for name in ("interval", "start_period")}
    return _health(plain, shell, times, node.get("retries").text, test.at)


def _of_dockerfile(at: Instruction, file: str) -> HealthCheck | None:
    kind, _, rest = at.text.partition(" ")
    if kind.upper() != "CMD":
        return None
    argv = exec_form(rest.strip())
    times = {
        "interval": parse_duration(at.flags.get("interval", "")),
        "start_period": parse_duration(at.flags.get("start-period", "")),
    }
    shell = "" if argv is not None else rest.strip()
    return _health(argv or (), shell, times, at.flags.get("retries", ""), Location(file, at.line_of("CMD")))


def _health(
    test: tuple[str, ...], shell: str, times: Mapping[str, float | None], retries: str, at: Location
) -> HealthCheck:
    """Fill in Docker's defaults: every 30 s, three failures, no start period."""
    interval, start = times["interval"], times["start_period"]
    number = int(retries) if re.fullmatch(r"[1-9]\d{0,3}", retries) else 3
    return HealthCheck(test, shell, interval or 30.0, start or 0.0, number, at)


def health_programs(health: HealthCheck) -> Iterator[str]:
    """Yield the programs that a health check calls."""
    if health.test:
        words = list(health.test)
        if len(words) >= 3 and words[0].rpartition("/")[2] in command_lines.SHELLS and words[1] == "-c":
            yield from _called(words[2])
        else:
            yield words[0]
    else:
        yield from _called(health.shell)


def _called(text: str) -> Iterator[str]:
    for part in re.split(r"&&|\|\||;|\|", text):
        words = split(part.strip())
        if words:
            yield words[0]
