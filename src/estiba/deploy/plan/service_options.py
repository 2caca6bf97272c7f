"""`[services.NAME]` of the project file: applications beside the models, and the checks of all services together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePath
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from estiba.core.errors import BadProject
from estiba.core.suggest import did_you_mean
from estiba.deploy.plan.references import Reference, references

MODELS = "models"
"""The name of the built-in service that serves all models of the project."""

Condition = Literal["started", "healthy", "completed"]

Memory = Annotated[str, Meta(pattern=r"^[1-9][0-9]*(MB|GB)$")]

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

_URL_PATH = re.compile(r"/[A-Za-z0-9/._~%?&=:@+,;-]*")
"""A path that needs no quotes in a shell, in Compose or in Python."""


class ServiceOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[services.NAME]` of the project file: an application beside the models.

    `command`, `environment` and a command in `health` may hold references, such as `${services.postgres.host}`.

    Args:
        command: the program and its arguments, as a list or as one line; without one, the command of the image.
        program: the program that the image starts, if `command` holds only its arguments: `estiba up` runs it with
            them, if it is installed on this machine.
        image: the container image with the program; without one, `estiba build` makes it. `estiba up` runs the
            command on this machine or, if its program is not installed here, the image.
        folder: the working directory, relative to the project file.
        requirements: a file of pinned Python packages for the program; `estiba up` creates a virtual environment with
            them, an image installs them.
        include: files and folders of the project that are copied into the image; by default `folder`, unless that is
            `.`.
        packages: Debian packages that are installed in the image.
        port: the port that it listens on, and that is published.
        health: a path that answers 200 when the service is healthy; or a list, a command that then exits with 0. By
            default a connection to `port`.
        live: a path that answers 200 while the program works at all; Kubernetes starts it again when it does not. By
            default a connection to `port`, because `health` may fail for a reason that no restart mends, such as a
            database that is away.
        needs: services and models that have to be healthy first; a table gives the condition: started, healthy or
            completed. Instead of healthy, a service without a health check has to be started, a task completed.
        environment: variables of its environment.
        secrets: names of secrets that it may read; `${secrets.NAME}` is the path of a file.
        volumes: by name, the path of persistent data in its container: `${volumes.NAME}`.
        files: by name, a read-only file or folder of the project and its path in the container, as `from:to`.
            Estiba writes `estiba:prometheus` and the like. `${files.NAME}` is the path.
        profile: start the service only with this profile; without one it always starts.
        metrics: the path of its Prometheus metrics.
        public: publish its port outside of the deployment; has no effect without a port.
        replicas: the number of containers, on targets that can run more than one.
        tmp: the size of /tmp, and of each folder in `writable`, such as 256MB. In Compose it counts as memory.
        cpus: the limit of processors.
        memory: the limit of memory, such as 512MB.
        start_timeout: seconds in which it has to become healthy.
        stop_grace: seconds in which it has to end.
        stop_signal: the signal to stop it; by default that of its image, or else SIGTERM.
        restart: start it again when it ends; `false` is for tasks that run once.
        watch: files and folders whose changes let `estiba up --watch` restart it; by default those of `include`.
        style: `slim` or `scratch`, of its image.
        budget: the largest size of its image, such as 230MB.
        kind: `notebook` adds to its image what JupyterLab needs to install packages, `training` what `estiba train`
            needs.
        read_only: mount the root of its file system read-only.
        writable: folders that it may write to nevertheless; their contents are lost with the container.
        user: the numeric user, for an image that runs as a user of its own.
    """

    command: str | tuple[str, ...] = ()
    program: str = ""
    image: str = ""
    folder: str = "."
    requirements: str = ""
    include: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    health: str | tuple[str, ...] = ""
    live: str = ""
    needs: tuple[str, ...] | dict[str, Condition] = ()
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    volumes: dict[str, str] = {}
    files: dict[str, str] = {}
    profile: str = ""
    metrics: str = ""
    public: bool = True
    replicas: Annotated[int, Meta(ge=1)] = 1
    tmp: Memory = "256MB"
    cpus: Annotated[float, Meta(gt=0)] = 1.0
    memory: Memory = "512MB"
    start_timeout: Annotated[float, Meta(gt=0)] = 60.0
    stop_grace: Annotated[float, Meta(ge=0)] = 10.0
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGQUIT"] | None = None
    restart: bool = True
    watch: tuple[str, ...] = ()
    style: Literal["slim", "scratch"] = "slim"
    budget: Memory | None = None
    kind: Literal["app", "notebook", "training"] = "app"
    read_only: bool = True
    writable: tuple[str, ...] = ()
    user: Annotated[int, Meta(ge=0)] | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command as a list."""
        return tuple(shlex.split(self.command)) if isinstance(self.command, str) else self.command

    @property
    def conditions(self) -> dict[str, Condition]:
        """By name of a needed service or model, the condition to wait for."""
        return self.needs if isinstance(self.needs, dict) else dict.fromkeys(self.needs, "healthy")


def check(services: Mapping[str, ServiceOptions], models: Mapping[str, int | None], server_port: int) -> None:
    """Check all services together.

    Args:
        models: by name of a model, its own port or None.
        server_port: the port of the server of all models.

    Raises:
        BadProject: a name that is not a DNS label, neither command nor image, a port used twice, a cycle in `needs`, a
            reference to something unknown.
    """
    _check_ports(services, models, server_port)
    for name, port in models.items():
        if port is not None and (not _DNS_LABEL.fullmatch(name) or name == MODELS):
            hint = "Lower-case letters, digits and -, at most 63, no - at the ends."
            raise BadProject(f"models.{name}.port: {name!r} cannot be the name of a service of its own.", hint=hint)
    for name, options in services.items():
        path = f"services.{name}"
        _check_name(path, name, models)
        _check_program(path, options)
        _check_mounts(path, options)
        _check_paths(path, options)
        _check_needs(path, options, services, models)
        for where, text in _texts(path, options):
            if "\0" in text:
                raise BadProject(f"{where}: an argument cannot contain a NUL character.")
            for reference in references(text, where):
                _check_reference(where, reference, options, services, models)
    _check_volumes(services)
    _check_cycles(services, models)


def start_order(services: Mapping[str, ServiceOptions], models: Mapping[str, int | None]) -> list[str]:
    """Names of services, each after the services that it needs; `MODELS` comes first."""
    return [MODELS, *(name for name in _sorter(services, models).static_order() if name in services)]


def _sorter(services: Mapping[str, ServiceOptions], models: Mapping[str, int | None]) -> TopologicalSorter[str]:
    return TopologicalSorter(
        {
            name: [needed for needed in options.conditions if needed not in models and needed != MODELS]
            for name, options in services.items()
        }
    )


def _check_cycles(services: Mapping[str, ServiceOptions], models: Mapping[str, int | None]) -> None:
    try:
        _sorter(services, models).prepare()
    except CycleError as error:
        # graphlib lists a needed service before the one that needs it; readers expect "a needs b needs a".
        circle = " needs ".join(reversed(error.args[1]))
        raise BadProject(f"services: {circle}.", hint="Remove one `needs` from the circle.") from None


def _check_name(path: str, name: str, models: Mapping[str, int | None]) -> None:
    if not _DNS_LABEL.fullmatch(name):
        hint = "A name is also a host name: lower-case letters, digits and -, at most 63, no - at the ends."
        raise BadProject(f"{path}: {name!r} cannot be the name of a service.", hint=hint)
    if name == MODELS or name in models:
        owner = "the server of all models" if name == MODELS else f"the model {name}"
        raise BadProject(f"{path}: {name!r} is already {owner}.", hint="Choose another name.")


def _check_program(path: str, options: ServiceOptions) -> None:
    try:
        arguments = options.arguments
    except ValueError as error:
        raise BadProject(
            f"{path}.command: {str(error).lower()}.", hint="Correct the quotes, or write it as a list of arguments."
        ) from None
    if not arguments and not options.image:
        raise BadProject(f"{path}: needs a command or an image.", hint='Add one, such as command = "flask run".')
    if any(mark in options.image for mark in "$ "):
        hint = "References such as ${...} are allowed in command, environment and health only."
        raise BadProject(f"{path}.image: {options.image!r} cannot be the name of an image.", hint=hint)
    if options.program and not options.image:
        raise BadProject(f"{path}.program: is only for a service with an image.", hint="Put it into the command.")
    if not arguments and options.requirements:
        raise BadProject(f"{path}.requirements: there is no command that could use the packages.")
    if options.image and options.requirements:
        hint = "Remove image, so that one is built, or requirements."
        raise BadProject(f"{path}.requirements: the image {options.image} brings its own packages.", hint=hint)
    _check_health(path, options)


def _check_health(path: str, options: ServiceOptions) -> None:
    if options.live and not _URL_PATH.fullmatch(options.live):
        raise BadProject(f"{path}.live: must be a path such as /live.")
    if options.live and options.port is None:
        raise BadProject(f"{path}.live: there is no port to send the request to.", hint=f"Add port to [{path}].")
    if options.health == ():
        raise BadProject(f"{path}.health: the command is empty.", hint="Remove it to check only the port.")
    if not isinstance(options.health, str) or not options.health:
        return
    if not _URL_PATH.fullmatch(options.health):
        raise BadProject(f"{path}.health: must be a path such as /health, or a list: a command.")
    if options.port is None:
        raise BadProject(f"{path}.health: there is no port to send the request to.", hint=f"Add port to [{path}].")


def _check_mounts(path: str, options: ServiceOptions) -> None:
    for key, names in (("secrets", options.secrets), ("volumes", options.volumes), ("files", options.files)):
        for name in names:
            if not _KEY.fullmatch(name):
                hint = "Letters, digits, and _ . - after the first."
                raise BadProject(f"{path}.{key}: {name!r} cannot be a name here.", hint=hint)
    for name, target in options.volumes.items():
        if not target.startswith("/"):
            raise BadProject(f"{path}.volumes.{name}: must be an absolute path in the container, not {target!r}.")
    for name, pair in options.files.items():
        source, _, target = pair.rpartition(":")
        if not source or not target.startswith("/"):
            raise BadProject(f"{path}.files.{name}: must be from:/to, not {pair!r}.")


def _check_paths(path: str, options: ServiceOptions) -> None:
    """Check names of variables, and paths of files and folders."""
    for name in options.environment:
        if not _VARIABLE.fullmatch(name):
            hint = "Letters, digits and _, as for a shell; . and - where a program asks for them."
            raise BadProject(f"{path}.environment: {name!r} cannot be the name of a variable.", hint=hint)
    for key, paths in (("include", options.include), ("folder", (options.folder,)), ("watch", options.watch)):
        for inside in paths:
            _check_inside(f"{path}.{key}", inside)
    for folder in options.writable:
        if not folder.startswith("/") or ":" in folder:
            raise BadProject(f"{path}.writable: must be an absolute path in the container, not {folder!r}.")


def _check_inside(path: str, inside: str) -> None:
    """Refuse a path outside of the project: an image has the layout of the project."""
    if PurePath(inside).is_absolute() or ".." in PurePath(inside).parts:
        raise BadProject(f"{path}: {inside!r} is not inside the project.", hint="Name it relative to estiba.toml.")


def _check_needs(
    path: str, options: ServiceOptions, services: Mapping[str, ServiceOptions], models: Mapping[str, int | None]
) -> None:
    known = [*services, *models, *_server(models)]
    for needed in options.conditions:
        if needed == MODELS and not models:
            raise _no_models(f"{path}.needs")
        if needed not in known:
            raise _unknown(f"{path}.needs: there is no service {needed!r}", needed, known)


def _check_ports(services: Mapping[str, ServiceOptions], models: Mapping[str, int | None], server_port: int) -> None:
    taken = {server_port: "server.port"} if server_port else {}
    named = {f"models.{name}.port": port for name, port in models.items()}
    named |= {f"services.{name}.port": options.port for name, options in services.items()}
    for path, port in named.items():
        if port is not None and port in taken:
            raise BadProject(f"{path}: {port} is also {taken[port]}.", hint="Give one of them another port.")
        if port is not None:
            taken[port] = path


def _check_volumes(services: Mapping[str, ServiceOptions]) -> None:
    """Check the full names of volumes, `SERVICE-VOLUME`: two that are equal would be one volume."""
    taken: dict[str, str] = {}
    for path, full in ((f"services.{s}.volumes.{v}", f"{s}-{v}") for s, o in services.items() for v in o.volumes):
        if full in taken:
            raise BadProject(f"{path}: {full!r} is also the volume of {taken[full]}.", hint="Choose another name.")
        taken[full] = path


def _texts(path: str, options: ServiceOptions) -> Iterator[tuple[str, str]]:
    for argument in options.arguments:
        yield f"{path}.command", argument
    for name, value in options.environment.items():
        yield f"{path}.environment.{name}", value
    if not isinstance(options.health, str):
        for argument in options.health:
            yield f"{path}.health", argument


def _check_reference(
    where: str,
    reference: Reference,
    options: ServiceOptions,
    services: Mapping[str, ServiceOptions],
    models: Mapping[str, int | None],
) -> None:
    known: Mapping[str, list[str]] = {
        "services": [*_server(models), *services],
        "models": list(models),
        "secrets": list(options.secrets),
        "volumes": list(options.volumes),
        "files": list(options.files),
    }
    if reference.kind == "services" and reference.name == MODELS and not models:
        raise _no_models(where)
    if reference.kind in known and reference.name not in known[reference.kind]:
        text = f"{where}: ${{{reference.kind}.{reference.name}}} is not defined"
        raise _unknown(text, reference.name, known[reference.kind])
    if reference.kind == "own" and options.port is None:
        raise BadProject(f"{where}: ${{{reference.part}}}, but the service has no port.")
    if reference.kind == "services" and reference.name != MODELS and services[reference.name].port is None:
        raise BadProject(f"{where}: the service {reference.name} has no port.")


def _server(models: Mapping[str, int | None]) -> list[str]:
    """The name of the server of all models, if there are any."""
    return [MODELS] if models else []


def _no_models(where: str) -> BadProject:
    return BadProject(f"{where}: the project has no models.", hint="Add a section [models.NAME], or remove this.")


def _unknown(text: str, name: str, known: list[str]) -> BadProject:
    return BadProject(text + did_you_mean(name, known), hint=f"Known: {', '.join(known) or 'none'}.")
