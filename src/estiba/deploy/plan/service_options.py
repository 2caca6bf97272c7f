"""Services: `[services.NAME]` of the project file, applications beside the models, checked as a whole."""

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

_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")

_URL_PATH = re.compile(r"/[A-Za-z0-9/._~%?&=:@+,;-]*")
"""What needs no quoting, neither in a shell, nor in Compose, nor in Python."""


class ServiceOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[services.NAME]` of the project file: an application beside the models.

    Texts in `command` and `environment` may refer to others, such as `${services.postgres.host}`.

    Args:
        command: the program and its arguments, as a list or as one line. A service without one runs what its image
            starts.
        program: what the image starts, where `command` is only its arguments: `estiba up` runs it with them, if it is
            installed here.
        image: the container image that has the program; without it, `estiba build` makes one. `estiba up` runs the
            command with what is installed here, and leaves out a service whose program is not here.
        folder: relative to the project file, where the program starts.
        requirements: a file of pinned Python packages that the program needs; `estiba up` makes an environment of
            them, an image installs them.
        include: files and folders of the project that the image gets; by default `folder`, unless that is `.`.
        packages: Debian packages that the image gets.
        port: what it listens on, and is reached at from outside.
        health: a path that answers 200 once it works; a list is a command that then exits 0. By default a connection
            to `port`.
        needs: services and models that have to be healthy first; as a table with the condition: started, healthy or
            completed. Without a health check, started counts as healthy; for what is done once, completed.
        environment: variables of its environment.
        secrets: names of secrets it may read, each a file: `${secrets.NAME}`.
        volumes: by name, where its image keeps data that stay: `${volumes.NAME}`.
        files: by name, a read-only file or folder of the project and its place in the container, as `from:to`.
            `estiba:prometheus` and the like are written by Estiba. `${files.NAME}`.
        profile: the service takes part only if this profile is chosen; without one, always.
        metrics: the path of its Prometheus metrics.
        public: whether it can be reached from outside of a deployment; only what has a port can.
        replicas: how many run, where more than one can.
        cpus: processors that it may use.
        memory: that it may use, such as 512MB.
        start_timeout: seconds that it has to become healthy.
        stop_grace: seconds that it has to end.
        stop_signal: asks it to end; by default what its image says, or else SIGTERM.
        restart: whether it is started again when it ends; `no` is for tasks that are done once.
        watch: files and folders at whose change `estiba up --watch` starts it again; by default what `include` says.
        style: of its image.
        budget: the most its image may weigh, such as 230MB.
        kind: `notebook` gives its image what JupyterLab needs to install packages by itself, `training` what `estiba
            train` needs.
        read_only: whether the root of its file system is.
        writable: folders that it may write to all the same; what is in them goes with the container.
        user: numeric user of an image that has a user of its own to run as.
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
    needs: tuple[str, ...] | dict[str, Condition] = ()
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    volumes: dict[str, str] = {}
    files: dict[str, str] = {}
    profile: str = ""
    metrics: str = ""
    public: bool = True
    replicas: Annotated[int, Meta(ge=1)] = 1
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
        """What it needs, with the condition of each."""
        return self.needs if isinstance(self.needs, dict) else dict.fromkeys(self.needs, "healthy")


def check(services: Mapping[str, ServiceOptions], models: Mapping[str, int | None], server_port: int) -> None:
    """Looks at all services together.

    Args:
        models: by name of each model, its own port if it has one.
        server_port: of the server of all models.

    Raises:
        BadProject: a name that is no DNS label, neither command nor image, a port taken twice, a cycle in `needs`, a
            reference to nothing.
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
        _check_places(path, options)
        _check_surroundings(path, options)
        _check_needs(path, options, services, models)
        for where, text in _texts(path, options):
            if "\0" in text:
                raise BadProject(f"{where}: no program can be given a NUL character.")
            for reference in references(text, where):
                _check_reference(where, reference, options, services, models)
    _check_volumes(services)
    _check_cycles(services, models)


def start_order(services: Mapping[str, ServiceOptions], models: Mapping[str, int | None]) -> list[str]:
    """Names of services, each behind what it needs; `MODELS` comes first."""
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
        # graphlib names what is needed before what needs it; readers expect "a needs b needs a".
        circle = " needs ".join(reversed(error.args[1]))
        raise BadProject(f"services: {circle}.", hint="Take one `needs` out of the circle.") from None


def _check_name(path: str, name: str, models: Mapping[str, int | None]) -> None:
    if not _DNS_LABEL.fullmatch(name):
        hint = "A name is also a host name: lower-case letters, digits and -, at most 63, no - at the ends."
        raise BadProject(f"{path}: {name!r} cannot be the name of a service.", hint=hint)
    if name == MODELS or name in models:
        what = "the server of all models" if name == MODELS else f"the model {name}"
        raise BadProject(f"{path}: {name!r} is already {what}.", hint="Choose another name.")


def _check_program(path: str, options: ServiceOptions) -> None:
    try:
        arguments = options.arguments
    except ValueError as error:
        raise BadProject(f"{path}.command: {str(error).lower()}.", hint="Or write it as a list of words.") from None
    if not arguments and not options.image:
        raise BadProject(f"{path}: has neither a command nor an image.", hint='Such as command = "flask run"')
    if any(mark in options.image for mark in "$ "):
        hint = "It is written as it stands: ${...} is for command, environment and health."
        raise BadProject(f"{path}.image: {options.image!r} cannot be the name of an image.", hint=hint)
    if options.program and not options.image:
        raise BadProject(f"{path}.program: belongs to a service with an image.", hint="Put it into the command.")
    if not arguments and options.requirements:
        raise BadProject(f"{path}.requirements: there is no command that could use them.")
    if options.image and options.requirements:
        hint = "Leave image out to have one built, or requirements."
        raise BadProject(f"{path}.requirements: the image {options.image} brings its own packages.", hint=hint)
    _check_health(path, options)


def _check_health(path: str, options: ServiceOptions) -> None:
    if options.health == ():
        raise BadProject(f"{path}.health: a command of no words.", hint="Leave it out to have its port asked.")
    if not isinstance(options.health, str) or not options.health:
        return
    if not _URL_PATH.fullmatch(options.health):
        raise BadProject(f"{path}.health: must be a path such as /health, or a list: a command.")
    if options.port is None:
        raise BadProject(f"{path}.health: there is no port to ask.", hint=f"Add port to [{path}].")


def _check_places(path: str, options: ServiceOptions) -> None:
    for key, names in (("secrets", options.secrets), ("volumes", options.volumes), ("files", options.files)):
        for name in names:
            if not _PLACE.fullmatch(name):
                hint = "Letters, digits, and _ . - behind the first."
                raise BadProject(f"{path}.{key}: {name!r} cannot be a name here.", hint=hint)
    for name, target in options.volumes.items():
        if not target.startswith("/"):
            raise BadProject(f"{path}.volumes.{name}: must be an absolute path in the container, not {target!r}.")
    for name, pair in options.files.items():
        source, _, target = pair.rpartition(":")
        if not source or not target.startswith("/"):
            raise BadProject(f"{path}.files.{name}: must be from:/to, not {pair!r}.")


def _check_surroundings(path: str, options: ServiceOptions) -> None:
    """What the names of variables and folders may be."""
    for name in options.environment:
        if not _VARIABLE.fullmatch(name):
            hint = "Letters, digits and _, as for a shell; . and - where a program asks for them."
            raise BadProject(f"{path}.environment: {name!r} cannot be the name of a variable.", hint=hint)
    for key, places in (("include", options.include), ("folder", (options.folder,)), ("watch", options.watch)):
        for place in places:
            _check_inside(f"{path}.{key}", place)
    for place in options.writable:
        if not place.startswith("/") or ":" in place:
            raise BadProject(f"{path}.writable: must be an absolute path in the container, not {place!r}.")


def _check_inside(path: str, place: str) -> None:
    """An image has the layout of the project, so nothing of it can lie outside."""
    if PurePath(place).is_absolute() or ".." in PurePath(place).parts:
        raise BadProject(f"{path}: {place!r} is not inside the project.", hint="Name it relative to estiba.toml.")


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
    """In containers a volume is named after its service too, and two of one name would be one volume."""
    taken: dict[str, str] = {}
    for path, full in ((f"services.{s}.volumes.{v}", f"{s}-{v}") for s, o in services.items() for v in o.volumes):
        if full in taken:
            raise BadProject(f"{path}: {full!r} is also the volume of {taken[full]}.", hint="Choose another name.")
        taken[full] = path


def _texts(path: str, options: ServiceOptions) -> Iterator[tuple[str, str]]:
    for word in options.arguments:
        yield f"{path}.command", word
    for name, value in options.environment.items():
        yield f"{path}.environment.{name}", value
    if not isinstance(options.health, str):
        for word in options.health:
            yield f"{path}.health", word


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
        raise BadProject(f"{where}: the service {reference.name} has no port to be reached at.")


def _server(models: Mapping[str, int | None]) -> list[str]:
    """The name of the server of all models, where there are any."""
    return [MODELS] if models else []


def _no_models(where: str) -> BadProject:
    return BadProject(f"{where}: the project has no models.", hint="Add a section [models.NAME], or take this out.")


def _unknown(text: str, name: str, known: list[str]) -> BadProject:
    return BadProject(text + did_you_mean(name, known), hint=f"Known: {', '.join(known) or 'none'}.")
