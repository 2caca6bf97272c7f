"""The specification of an image, for the Dockerfile and for the builder without Docker alike."""

from __future__ import annotations

import math
import shlex
from functools import partial

import msgspec

import estiba
from estiba.core.errors import BadProject, EstibaError
from estiba.deploy.plan import health
from estiba.deploy.plan.model_source import CACHE, MOUNT_PATH, is_folder
from estiba.deploy.plan.plan import SERVER_PORT, STATE_FOLDER, Build, Http, Plan, Service, in_container
from estiba.deploy.plan.references import Reference, resolve

USER = 10001
"""The user of an image; its group is 0, so that any other user of that group may run it as well."""

REGISTRY = "/models"
"""The folder of an image with its models: a registry."""

SETTINGS = f"{REGISTRY}/server.json"

SAGEMAKER_PORT = 8080
"""The port that SageMaker asks; it starts a container with the single argument `serve`."""

_PYTHON = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "HOME": "/tmp"}

_NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""Else ONNX Runtime would write a device id below HOME, and keep events to send."""

_NOTEBOOK = {"PYTHONUSERBASE": "/tmp/python", "UV_PROJECT_ENVIRONMENT": "/tmp/venv", "PIP_USER": "1"}
"""Lets the user of a notebook install packages in /tmp: the rest of the file system is read-only."""

_COMPILERS = ("build-essential", "clang", "gcc", "g++")
"""Debian packages with which an application compiles at run time; it keeps headers and the like then."""

_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """The file system of an image.

    Args:
        python: the minor version. base: the base image; of the build stage only, if the style is `scratch`.
        trim_level: a key of `trim_packages.LEVELS`: what is left out of packages.
        packages: of Debian. include: paths of the project, below /app in the image.
        models: by name, version and digest of the models that it serves.
        routed: by name, for models with a route of the project file, the digest of each version that it names.
        settings: of the model server.
        registry: the registry that a container gets its models from; empty where the image holds them.
        store: the state store that a container can use, `sqlite` or `postgres`; empty for none.
    """

    python: str
    base: str
    trim_level: str
    packages: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    models: dict[str, tuple[str, str]] = {}
    settings: dict[str, object] = {}
    registry: str = ""
    store: str = ""
    routed: dict[str, dict[str, str]] = {}

    def versions(self, name: str) -> dict[str, str]:
        """The digest of each version of a model, by its number."""
        return self.routed.get(name) or dict([self.models[name]])


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of an image: how a container of it starts, is checked and stops.

    Args:
        command: without the entry point. workdir: where it starts.
        environment: variables that the image sets.
        health: the argv of the health check; empty where there is none. health_path: the path that it asks, if any.
    """

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str
    user: int = USER
    port: int | None = None
    environment: dict[str, str] = {}
    health: tuple[str, ...] = ()
    health_path: str = ""
    stop_signal: str = "SIGTERM"


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """The limits and mounts that a deployment gives a container of an image; verification gives it the same.

    Args:
        memory: in bytes. cpus: processors.
        tmp: bytes of /tmp and of each writable folder. writable: folders that it may write to.
        volumes: paths of volumes in the container. secrets: names of the secrets that it reads.
        environment: variables that a deployment sets.
        start_timeout, stop_grace: in seconds.
        standalone: whether it works without other services. needs: the names of those that it needs.
    """

    memory: int = 512_000_000
    tmp: int = 256_000_000
    cpus: float = 1.0
    writable: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    start_timeout: float = 60.0
    stop_grace: float = 10.0
    standalone: bool = True
    needs: tuple[str, ...] = ()


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An image of one service.

    Args:
        image: its reference with a tag.
        kind: `models`, `app`, `notebook` or `training`. style: `slim` or `scratch`.
        budget: the most bytes that it may have, or None.
    """

    image: str
    project: str
    service: str
    kind: str
    style: str
    budget: int | None = None
    labels: dict[str, str] = {}
    contents: Contents
    process: Process
    runtime: Runtime

    @property
    def has_estiba(self) -> bool:
        """True if Estiba itself is installed in it."""
        return self.kind != "app"

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment that the image sets; an image from scratch inherits no PATH."""
        return ({"PATH": _PATH, "LANG": "C.UTF-8"} if self.style == "scratch" else {}) | self.process.environment


def image_spec(plan: Plan, service: Service, style: str | None = None) -> ImageSpec:
    """The specification of a service's image.

    Args:
        style: instead of the plan's.

    Raises:
        BadProject: the service's image is not built by Estiba. EstibaError: the style cannot run the models.
    """
    build = service.build
    if build is None:
        hint = "Estiba builds images of services without `image`."
        raise BadProject(f"services.{service.name}: {service.image} is not built here.", hint=hint)
    if style == "scratch" and build.trust:
        hint = "Use --style slim, or run `estiba models show` to see why the model could not be converted."
        raise EstibaError(
            f"{service.name}: models on the python engine need their own library and cannot use the style scratch.",
            hint=hint,
        )
    models = _model_labels(service) if service.models and not plan.registry else {}
    return ImageSpec(
        # An image of another style than the project's gets another name.
        image=f"{service.image}-{style}" if style not in (None, build.style) else service.image,
        project=plan.project,
        service=service.name,
        kind=build.kind,
        style=style or build.style,
        budget=build.budget,
        labels=_labels(plan, service, build) | models,
        contents=_contents(plan, service, build),
        process=_server(plan, service, build) if service.models else _application(plan, service, build),
        runtime=_runtime(plan, service),
    )


def _contents(plan: Plan, service: Service, build: Build) -> Contents:
    common = Contents(
        python=build.python,
        base=f"python:{build.python}-slim",
        trim_level="compiler" if any(name.startswith(_COMPILERS) for name in build.packages) else "app",
        packages=build.packages,
    )
    if not service.models:
        return msgspec.structs.replace(common, include=build.include)
    remote = "registry" if _has_remote_registry(plan) else plan.policies.store or "onnx"
    return msgspec.structs.replace(
        common,
        trim_level="models" if build.trust else remote,
        models={name: (model.version, model.digest) for name, model in service.served.items()},
        routed=_routed(service),
        settings=_settings(plan, service),
        registry=plan.registry,
        store=plan.policies.store,
    )


def _routed(service: Service) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for model in service.models:
        if model.routed:
            found.setdefault(model.name, {})[model.version] = model.digest
    return found


def _settings(plan: Plan, service: Service) -> dict[str, object]:
    """The settings of the model server in a container."""
    default = plan.server.default
    options = msgspec.structs.replace(
        plan.server,
        host="0.0.0.0",
        port=SERVER_PORT,
        insecure=True,
        default=default if default in service.served else "",
        log="json",
        workers=plan.server.workers or max(1, math.floor(service.cpus)),
    )
    settings: dict[str, object] = msgspec.to_builtins(options)
    policies = plan.policies.options
    own = {name: route for name, route in policies.routes.items() if name in service.served}
    gateway = msgspec.to_builtins(msgspec.structs.replace(policies, routes=own))
    drift = msgspec.to_builtins(plan.policies.drift)
    settings |= {"gateway": gateway} if gateway else {}
    return settings | ({"monitoring": {"drift": drift}} if drift else {})


def _server(plan: Plan, service: Service, build: Build) -> Process:
    location = () if plan.registry else ("--registry", REGISTRY)
    arguments = (*service.served, *location, "--settings", SETTINGS)
    # Of a registry, only what was there when the files were rendered is trusted: see core/variables.py.
    arguments += ("--trust",) * (build.trust and not plan.registry)
    return Process(
        entrypoint=("estiba",),
        command=("serve", *arguments),
        workdir="/",
        user=_user(service),
        port=SERVER_PORT,
        environment={**_PYTHON, **_NO_TELEMETRY, **_without_arguments(arguments), **_registry_variables(plan)},
        health=_health(plan, service),
        health_path=_health_path(service),
    )


def _without_arguments(arguments: tuple[str, ...]) -> dict[str, str]:
    """The variable that lets a bare `estiba serve`, as SageMaker runs it, do the same at SageMaker's port."""
    return {"ESTIBA_SERVE": shlex.join((*arguments, "--port", str(SAGEMAKER_PORT)))}


def _registry_variables(plan: Plan) -> dict[str, str]:
    """Variables of an image without models: the folder of a mounted registry, unless a deployment names another."""
    cache = {"XDG_CACHE_HOME": CACHE} if _has_remote_registry(plan) else {}
    return {"ESTIBA_REGISTRY": MOUNT_PATH, **cache} if plan.registry else {}


def _has_remote_registry(plan: Plan) -> bool:
    return bool(plan.registry) and not is_folder(plan.registry)


def _application(plan: Plan, service: Service, build: Build) -> Process:
    notebook = _NOTEBOOK if build.kind == "notebook" else {}
    return Process(
        command=tuple(_resolved(plan, service, argument) for argument in service.command),
        workdir="/app" if service.folder in ("", ".") else f"/app/{service.folder.strip('/')}",
        user=_user(service),
        port=service.port,
        environment={**_PYTHON, **_NO_TELEMETRY, **notebook},
        health=_health(plan, service),
        health_path=_health_path(service),
        stop_signal=service.stop_signal or "SIGTERM",
    )


def _user(service: Service) -> int:
    return USER if service.user is None else service.user


def _health(plan: Plan, service: Service) -> tuple[str, ...]:
    return health.command(service, partial(_resolved, plan, service))


def _health_path(service: Service) -> str:
    return service.health.path if isinstance(service.health, Http) else ""


def _runtime(plan: Plan, service: Service) -> Runtime:
    folders = {CACHE} if service.models and _has_remote_registry(plan) else set()
    folders |= {STATE_FOLDER} if service.models and plan.policies.store == "sqlite" else set()
    return Runtime(
        memory=service.memory,
        tmp=service.tmp,
        cpus=service.cpus,
        writable=service.writable,
        volumes=tuple(dict.fromkeys((*service.volumes.values(), *sorted(folders)))),
        secrets=service.secrets,
        environment={name: _resolved(plan, service, value) for name, value in service.environment.items()},
        start_timeout=service.start_timeout,
        stop_grace=service.stop_grace,
        standalone=not service.needs,
        needs=tuple(service.needs),
    )


def _resolved(plan: Plan, service: Service, text: str) -> str:
    """A text with its references as they are in a container; a variable of the environment has its default value."""

    def lookup(reference: Reference) -> str:
        return in_container(plan, service, reference, reference.default or "")

    return resolve(text, lookup)


def _labels(plan: Plan, service: Service, build: Build) -> dict[str, str]:
    """Labels of the OCI image specification, and Estiba's own, which begin with org.estiba."""
    return {
        "org.opencontainers.image.title": f"{plan.project}/{service.name}",
        "org.opencontainers.image.version": service.image.rpartition(":")[2],
        "org.opencontainers.image.base.name": f"python:{build.python}-slim",
        "org.estiba.version": estiba.__version__,
        "org.estiba.kind": build.kind,
    }


def _model_labels(service: Service) -> dict[str, str]:
    labels = {}
    for name, model in service.served.items():
        labels[f"org.estiba.model.{name}.version"] = model.version
        labels[f"org.estiba.model.{name}.digest"] = f"sha256:{model.digest}"
        labels[f"org.estiba.model.{name}.engine"] = model.engine
    for name, versions in _routed(service).items():
        for version, digest in versions.items():
            labels[f"org.estiba.model.{name}.{version}.digest"] = f"sha256:{digest}"
    return labels
