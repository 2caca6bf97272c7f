"""Recipe: what an image is made of and how it starts, for the Dockerfile and for the builder without Docker alike."""

from __future__ import annotations

import math
import shlex

import msgspec

import estiba
from estiba.core.errors import BadProject, EstibaError
from estiba.deploy.plan import health
from estiba.deploy.plan.model_source import CACHE, PLACE, is_folder
from estiba.deploy.plan.plan import SERVER_PORT, Build, Http, Plan, Service, in_container
from estiba.deploy.plan.references import Reference, resolve

USER = 10001
"""Runs in an image; its group is 0, so that any other user of that group may take its place."""

REGISTRY = "/models"
"""Where an image keeps its models: a registry of its own."""

SETTINGS = f"{REGISTRY}/server.json"

SAGEMAKER_PORT = 8080
"""Where SageMaker asks a container, which it starts with the one word `serve`."""

_PYTHON = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "HOME": "/tmp"}

_NO_TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
"""ONNX Runtime would write a device id below HOME, and keep events to send."""

_NOTEBOOK = {"PYTHONUSERBASE": "/tmp/python", "UV_PROJECT_ENVIRONMENT": "/tmp/venv", "PIP_USER": "1"}
"""Where the user of a notebook installs packages: the file system around it is read-only."""

_COMPILERS = ("build-essential", "clang", "gcc", "g++")
"""Debian packages with which an application compiles at run time; headers and the like stay for it then."""

_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """An image.

    Args:
        image: its reference with a tag. project, service: what it is for.
        kind: `models`, `app`, `notebook` or `training`. style: `slim` or `scratch`.
        level: what is left out of packages, a key of `trim.LEVELS`.
        python: minor version. base: the image that it starts from; its build stage only, if the style is `scratch`.
        packages: of Debian. include: of the project, paths below /app.
        folder: where the program starts. command: without the entry point.
        health: the argv of the health check; empty where there is none. health_path: the path that it asks, if any.
        budget: bytes that it may weigh, or None.
        memory: bytes that a container of it may use. cpus: processors. writable: folders that it may write to.
        start_timeout, stop_grace: seconds. alone: whether it works without other services.
        models: by name, version and digest of what it serves. trust: whether one of them may run code when it is read.
        settings: of the model server.
        given: variables that a deployment sets, for running the image alone. volumes: where it mounts volumes.
        secrets: names of those that it reads.
        registry: where containers of it get their models from; empty where it holds them.
    """

    image: str
    project: str
    service: str
    kind: str
    style: str
    level: str
    python: str
    base: str
    folder: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    labels: dict[str, str] = {}
    port: int | None = None
    health: tuple[str, ...] = ()
    health_path: str = ""
    stop_signal: str = "SIGTERM"
    user: int = USER
    budget: int | None = None
    memory: int = 512_000_000
    cpus: float = 1.0
    writable: tuple[str, ...] = ()
    start_timeout: float = 60.0
    stop_grace: float = 10.0
    alone: bool = True
    models: dict[str, tuple[str, str]] = {}
    trust: bool = False
    settings: dict[str, object] = {}
    given: dict[str, str] = {}
    volumes: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    registry: str = ""

    @property
    def has_estiba(self) -> bool:
        """Whether Estiba itself goes into it."""
        return self.kind != "app"


def recipe(plan: Plan, service: Service, style: str | None = None) -> Recipe:
    """How the image of a service is made.

    Args:
        style: instead of the one that the plan says.

    Raises:
        BadProject: the service's image is somebody else's. EstibaError: a style that cannot run its models.
    """
    build = service.build
    if build is None:
        hint = "Estiba builds images of services without `image`."
        raise BadProject(f"services.{service.name}: {service.image} is not built here.", hint=hint)
    if style == "scratch" and build.trust:
        hint = "Use --style slim, or find out with `estiba models show` why the model could not be converted."
        raise EstibaError(f"{service.name}: models that need their own library do not run on scratch.", hint=hint)
    return _of_models(plan, service, build, style) if service.models else _of_app(plan, service, build, style)


def _of_models(plan: Plan, service: Service, build: Build, style: str | None) -> Recipe:
    names = [model.name for model in service.models]
    default = plan.server.default if plan.server.default in names else ""
    settings = msgspec.structs.replace(
        plan.server,
        host="0.0.0.0",
        port=SERVER_PORT,
        insecure=True,
        default=default,
        log="json",
        workers=plan.server.workers or max(1, math.floor(service.cpus)),
    )
    place = () if plan.registry else ("--registry", REGISTRY)
    served = (*names, *place, "--settings", SETTINGS, *("--trust",) * build.trust)
    far = bool(plan.registry) and not is_folder(plan.registry)
    return msgspec.structs.replace(
        _common(plan, service, build, style),
        level="models" if build.trust else "registry" if far else "onnx",
        folder="/",
        entrypoint=("estiba",),
        command=("serve", *served),
        environment={**_PYTHON, **_NO_TELEMETRY, **_alone(served), **_from_registry(plan, far=far)},
        labels=_labels(plan, service, build) | ({} if plan.registry else _model_labels(service)),
        port=SERVER_PORT,
        models={model.name: (model.version, model.digest) for model in service.models},
        trust=build.trust,
        settings=msgspec.to_builtins(settings),
        registry=plan.registry,
        volumes=(CACHE,) if far else (),
    )


def _alone(served: tuple[str, ...]) -> dict[str, str]:
    """What `estiba serve` without any argument does in an image: the same, where SageMaker looks for it."""
    return {"ESTIBA_SERVE": shlex.join((*served, "--port", str(SAGEMAKER_PORT)))}


def _from_registry(plan: Plan, *, far: bool) -> dict[str, str]:
    """Variables of an image that holds no models: a folder that is mounted, until a deployment names another place."""
    cache = {"XDG_CACHE_HOME": CACHE} if far else {}
    return {"ESTIBA_REGISTRY": PLACE, **cache} if plan.registry else {}


def _of_app(plan: Plan, service: Service, build: Build, style: str | None) -> Recipe:
    return msgspec.structs.replace(
        _common(plan, service, build, style),
        folder="/app" if service.folder in ("", ".") else f"/app/{service.folder.strip('/')}",
        command=tuple(_word(plan, service, word) for word in service.command),
        include=build.include,
        environment={**_PYTHON, **_NO_TELEMETRY, **(_NOTEBOOK if build.kind == "notebook" else {})},
        labels=_labels(plan, service, build),
        port=service.port,
        stop_signal=service.stop_signal or "SIGTERM",
    )


def _common(plan: Plan, service: Service, build: Build, style: str | None) -> Recipe:
    return Recipe(
        # Another style than the project's is another image: its name says so.
        image=f"{service.image}-{style}" if style not in (None, build.style) else service.image,
        project=plan.project,
        service=service.name,
        kind=build.kind,
        style=style or build.style,
        level="compiler" if any(name.startswith(_COMPILERS) for name in build.packages) else "app",
        python=build.python,
        base=f"python:{build.python}-slim",
        folder="/",
        packages=build.packages,
        user=USER if service.user is None else service.user,
        budget=build.budget,
        memory=service.memory,
        cpus=service.cpus,
        writable=service.writable,
        start_timeout=service.start_timeout,
        stop_grace=service.stop_grace,
        alone=not service.needs,
        given={name: _word(plan, service, value) for name, value in service.environment.items()},
        volumes=tuple(service.volumes.values()),
        secrets=service.secrets,
        health=health.command(service, lambda argument: _word(plan, service, argument)),
        health_path=service.health.path if isinstance(service.health, Http) else "",
    )


def _word(plan: Plan, service: Service, word: str) -> str:
    """A word of a command as it is in a container; a variable of the environment is what it is by default."""

    def lookup(reference: Reference) -> str:
        return in_container(plan, service, reference, reference.default or "")

    return resolve(word, lookup)


def _labels(plan: Plan, service: Service, build: Build) -> dict[str, str]:
    """Labels of the OCI image specification, and Estiba's own below another name."""
    return {
        "org.opencontainers.image.title": f"{plan.project}/{service.name}",
        "org.opencontainers.image.version": service.image.rpartition(":")[2],
        "org.opencontainers.image.base.name": f"python:{build.python}-slim",
        "org.estiba.version": estiba.__version__,
        "org.estiba.kind": build.kind,
    }


def _model_labels(service: Service) -> dict[str, str]:
    labels = {}
    for model in service.models:
        labels[f"org.estiba.model.{model.name}.version"] = model.version
        labels[f"org.estiba.model.{model.name}.digest"] = f"sha256:{model.digest}"
        labels[f"org.estiba.model.{model.name}.engine"] = model.engine
    return labels


def variables(recipe: Recipe) -> dict[str, str]:
    """The whole environment that an image sets; an image from nothing has no PATH of its own."""
    return ({"PATH": _PATH, "LANG": "C.UTF-8"} if recipe.style == "scratch" else {}) | recipe.environment
