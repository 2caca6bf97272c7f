"""The plan of a deployment: its services, independent of the target that runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from estiba.deploy.plan.references import Reference
from estiba.deploy.plan.service_options import MODELS, Condition
from estiba.gateway.options import GatewayOptions
from estiba.monitoring.options import DriftOptions
from estiba.serving.options import ServerOptions

SERVER_PORT = 8000
"""The port that a model server listens on inside a container."""

API_KEY = "estiba-key"
"""Name of the secret with the key of a deployment, for its services and its user."""

STATE_FOLDER = "/state"
"""The folder in a container, on a volume, of a state store in SQLite."""


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
        code: Python code of its author, in a few words; empty where there is none.
        split: some of its steps were converted, and run behind those of the python engine.
        routed: its model has a route in the project file. aliases: by which the route names this version.
    """

    name: str
    version: str
    digest: str
    path: Path
    engine: str
    libraries: Mapping[str, str]
    size: int = 0
    code: str = ""
    split: bool = False
    routed: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A read-only file or folder in a container.

    Args:
        source: relative to the project's folder; or `estiba:NAME`, a file that the target writes.
        target: its absolute path in the container.
    """

    source: str
    target: str

    @property
    def generated(self) -> str:
        """The name of a file that Estiba writes, such as `prometheus`; empty for a file of the project."""
        return self.source.removeprefix("estiba:") if self.source.startswith("estiba:") else ""


@dataclass(frozen=True)
class Build:
    """The options of a service's image for `estiba build`.

    Args:
        kind: `models` (an inference image), `app` or `notebook`.
        style: `slim` or `scratch`. python: the minor version, such as `3.11`.
        requirements: a file of pinned packages, absolute, or None.
        include: files and folders, relative to the project's folder.
        packages: Debian packages. budget: the most bytes that the image may have, or None.
        trust: True if a model may be served whose file can run code when it is read.
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
        image: a reference with a tag; of an image that `estiba build` makes, or of another one if `build` is None.
        command: an argv with references; empty if the image's own command is started.
        program: the program of the image that gets the command as its arguments; empty if unknown.
        folder: the working directory, relative to the project's folder; in an image, below /app.
        port: the port that it listens on in a container. published: the port outside, or None.
        live: the path that answers while the program works; empty for a connection to the port.
        needs: by name of a service, the condition to wait for. A model is replaced by the service that serves it.
        stop_signal: empty for the stop signal of the image.
        environment: values with references.
        volumes: by name, the absolute path in the container.
        memory: in bytes. tmp: bytes of /tmp and of each writable folder. cpus: processors.
        start_timeout, stop_grace: in seconds.
        models: the models that it serves; empty for an application. Of a model with a route all versions follow each
            other; the first is the one that its name means.
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
    live: str = ""
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
    tmp: int = 256_000_000
    start_timeout: float = 60.0
    stop_grace: float = 10.0
    stop_signal: str = ""
    restart: bool = True
    watch: tuple[str, ...] = ()
    read_only: bool = True
    writable: tuple[str, ...] = ()
    user: int | None = None
    models: tuple[PlannedModel, ...] = ()

    @property
    def served(self) -> dict[str, PlannedModel]:
        """By name, the version that it means."""
        first: dict[str, PlannedModel] = {}
        for model in self.models:
            first.setdefault(model.name, model)
        return first


@dataclass(frozen=True)
class Policies:
    """The policies of model servers in containers, and their state store.

    Args:
        options: `[gateway]` of the project file.
        store: the state store that images are made for; empty where no target needs one.
        url: of the state store, with references. service: of the project that it is the database of, or empty.
        needs_keys: requests need a key on the target that the plan is for.
        drift: `[monitoring.drift]` of the project file.
    """

    options: GatewayOptions = field(default_factory=GatewayOptions)
    store: Literal["", "sqlite", "postgres"] = ""
    url: str = ""
    service: str = ""
    needs_keys: bool = False
    drift: DriftOptions = field(default_factory=DriftOptions)


@dataclass(frozen=True)
class Plan:
    """A deployment.

    Args:
        project: its name, a valid host name. folder: the folder of the project file, absolute.
        services: in start order; the first is the server of all models, if the project has models.
        drain: seconds that a model server drains at most.
        server: settings of the model servers; the target sets host and port.
        registry: the folder or URL that containers get models from; empty if the images hold them.
        policies: of the model servers.
    """

    project: str
    folder: Path
    services: tuple[Service, ...]
    drain: float = 10.0
    server: ServerOptions = field(default_factory=ServerOptions)
    registry: str = ""
    policies: Policies = field(default_factory=Policies)

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names of profiles, sorted."""
        return tuple(sorted({service.profile for service in self.services} - {""}))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets of all services, sorted."""
        return tuple(sorted({name for service in self.services for name in service.secrets}))

    @property
    def external_secrets(self) -> tuple[str, ...]:
        """Names of the secrets that cannot be generated: credentials of model servers for what is elsewhere."""
        names = {name for service in self.services if service.models for name in service.secrets}
        own = {name for service in self.services if service.name == self.policies.service for name in service.secrets}
        return tuple(sorted(names - own - {API_KEY}))

    def profiles_of(self, service: Service) -> tuple[str, ...]:
        """Profiles that start a service: its own, and those of services that need it. Empty if it always starts."""
        profiles = {service.profile}
        for other in self.services:
            if service.name in other.needs:
                profiles |= set(self.profiles_of(other) or ("",))
        return () if "" in profiles else tuple(sorted(profiles))

    def __getitem__(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)

    def serving(self, model: str) -> Service:
        """The service that answers for a model: the model's own one, else the server of all models."""
        own = [service for service in self.services if service.name == model and service.models]
        return own[0] if own else self[MODELS]


def in_container(plan: Plan, service: Service, reference: Reference, variable: str) -> str:
    """Resolve a reference for a service in a container, on a network where each service is reached by its name.

    Args:
        variable: the replacement of an `env` reference, in the syntax of the target.
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
