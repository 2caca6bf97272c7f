"""Plan: a deployment as services, with no word of the target that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from estiba.deploy.plan.references import Reference
from estiba.deploy.plan.service_options import MODELS, Condition
from estiba.serving.options import ServerOptions

SERVER_PORT = 8000
"""The port that a model server listens on inside a container."""


@dataclass(frozen=True)
class Http:
    """Healthy if a GET of the path answers with status 200; a redirect is not followed."""

    path: str


@dataclass(frozen=True)
class Tcp:
    """Healthy if the port accepts a connection."""


@dataclass(frozen=True)
class Command:
    """Healthy if the command exits with 0. Its arguments may hold references."""

    argv: tuple[str, ...]


Health = Http | Tcp | Command | None


@dataclass(frozen=True)
class PlannedModel:
    """A model as it was resolved when the plan was made.

    Args:
        digest: of the artifact. path: of the artifact, on this machine.
        engine: `onnx` or `python`. libraries: by distribution, the exact version that loads it.
        size: of the artifact, in bytes.
    """

    name: str
    version: str
    digest: str
    path: Path
    engine: str
    libraries: Mapping[str, str]
    size: int = 0


@dataclass(frozen=True)
class File:
    """A read-only file or folder in a container.

    Args:
        source: relative to the project's folder; or `estiba:NAME`, which the target writes.
        target: its absolute path in the container.
    """

    source: str
    target: str

    @property
    def generated(self) -> str:
        """The name of what Estiba writes, such as `prometheus`; empty for a file of the project."""
        return self.source.removeprefix("estiba:") if self.source.startswith("estiba:") else ""


@dataclass(frozen=True)
class Build:
    """What `estiba build` needs to make the image of a service.

    Args:
        kind: `models` (an inference image), `app` or `notebook`.
        style: `slim` or `scratch`. python: the minor version, such as `3.11`.
        requirements: a file of pinned packages, absolute, or None.
        include: files and folders, relative to the project's folder.
        packages: Debian packages. budget: bytes that the image may weigh, or None.
        trust: whether a model whose file can run code when it is read may be served.
    """

    kind: str
    style: str
    python: str
    requirements: Path | None = None
    include: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    budget: int | None = None
    trust: bool = False


@dataclass(frozen=True)
class Service:
    """One service of a plan.

    Args:
        image: a reference with its tag; of an image that `build` makes, or of somebody else's if `build` is None.
        command: words with references in them; empty for what the image starts by itself.
        program: what the image starts with the command as its arguments; empty where it is not known.
        folder: relative to the project's, where the command starts on this machine; in an image, below /app.
        port: it listens on in a container. published: it is reached at from outside, or None.
        needs: names of services and the condition of each. A model has become the service that serves it.
        stop_signal: asks it to end; empty where its image says.
        environment: values with references in them.
        volumes: by name, the absolute path in the container.
        memory: in bytes. cpus: processors. start_timeout, stop_grace: in seconds.
        models: that it serves; empty for an application.
    """

    name: str
    image: str
    build: Build | None = None
    command: tuple[str, ...] = ()
    program: str = ""
    folder: str = "."
    port: int | None = None
    published: int | None = None
    health: Health = None
    needs: Mapping[str, Condition] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    volumes: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)
    profile: str = ""
    metrics: str = ""
    public: bool = True
    replicas: int = 1
    cpus: float = 1.0
    memory: int = 512_000_000
    start_timeout: float = 60.0
    stop_grace: float = 10.0
    stop_signal: str = ""
    restart: bool = True
    watch: tuple[str, ...] = ()
    read_only: bool = True
    writable: tuple[str, ...] = ()
    user: int | None = None
    models: tuple[PlannedModel, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A deployment.

    Args:
        project: its name, as a host may be called. folder: of the project file, absolute.
        services: each behind what it needs; the first is the server of all models, where the project has models.
        drain: seconds that a model server takes to end politely, at most.
        server: settings of the model servers; where they listen is for the target to say.
        registry: a folder of this machine or a URL, where containers get models from; empty where images hold them.
    """

    project: str
    folder: Path
    services: tuple[Service, ...]
    drain: float = 10.0
    server: ServerOptions = field(default_factory=ServerOptions)
    registry: str = ""

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of profiles, sorted."""
        return tuple(sorted({service.profile for service in self.services} - {""}))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets of all services, sorted."""
        return tuple(sorted({name for service in self.services for name in service.secrets}))

    @property
    def given(self) -> tuple[str, ...]:
        """Names of those secrets that nobody can make up, because they let model servers into a registry."""
        return tuple(sorted({name for service in self.services if service.models for name in service.secrets}))

    def profiles_of(self, service: Service) -> tuple[str, ...]:
        """Profiles that bring a service in: its own, and those of what needs it. None where it always takes part."""
        found = {service.profile}
        for other in self.services:
            if service.name in other.needs:
                found |= set(self.profiles_of(other) or ("",))
        return () if "" in found else tuple(sorted(found))

    def __getitem__(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    def serving(self, model: str) -> Service:
        """The service that a caller of a model should ask: the model's own one, else the server of all."""
        own = [service for service in self.services if service.name == model and service.models]
        return own[0] if own else self[MODELS]


def in_container(plan: Plan, service: Service, reference: Reference, variable: str) -> str:
    """What a reference is for a service in a container, on a network where every service is reached by its name.

    Args:
        variable: what stands for an `env` reference, in words of the target.
    """
    match reference.kind:
        case "own":
            return str(service.port) if reference.part == "port" else "0.0.0.0"
        case "services":
            return _address(plan[reference.name], reference.part)
        case "models":
            return f"{_address(plan.serving(reference.name), 'url')}/models/{reference.name}"
        case "secrets":
            return f"/run/secrets/{reference.name}"
        case "volumes":
            return service.volumes[reference.name]
        case "files":
            return service.files[reference.name].target
        case _:
            return variable


def _address(service: Service, part: str) -> str:
    scheme = "http" if isinstance(service.health, Http) else "tcp"
    return {"host": service.name, "port": str(service.port), "url": f"{scheme}://{service.name}:{service.port}"}[part]
