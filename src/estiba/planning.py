"""Turn a project and the current versions in its registry into a plan."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from estiba import __version__
from estiba.core.addresses import is_loopback
from estiba.core.errors import BadProject, NotTrusted
from estiba.core.stores.disk import explained
from estiba.core.stores.files import libraries
from estiba.core.variables import TRUSTED
from estiba.deploy.kubernetes.options import canary_name
from estiba.deploy.plan import image_options, planned_models, policies
from estiba.deploy.plan.image_options import ImageOptions
from estiba.deploy.plan.model_source import secrets
from estiba.deploy.plan.plan import (
    SERVER_PORT,
    Build,
    Command,
    File,
    Health,
    Http,
    Plan,
    PlannedModel,
    Policies,
    Service,
    Tcp,
)
from estiba.deploy.plan.policies import Reach
from estiba.deploy.plan.service_options import MODELS, Condition, ServiceOptions, start_order
from estiba.model.registry.registry import open_registry
from estiba.model.training import fingerprints
from estiba.project import Project

EXTRA_STOP_SECONDS = 15.0
"""Time that a container gets to end beyond the drain of the server in it."""


def lower(project: Project, *, canaries: bool = False, local: bool = False) -> Plan:
    """The plan of a project.

    Args:
        canaries: add a service for each model version that `[kubernetes.canary]` names.
        local: for this machine, where the server itself refuses models that are not trusted.

    Raises:
        NotFound, BadArtifact: the registry does not have a model. BadProject: a file of a service does not exist, or
            containers cannot use the state store.
        NotTrusted: a model runs code of its author, and this project has not trained it.
        EstibaError: the registry cannot be reached.
    """
    models = tuple(_resolved(project, local))
    serving = {MODELS: _serving(project, MODELS, models)} if models else {}
    for name, options in project.models.items():
        if options.port is not None:
            serving[name] = _serving(project, name, tuple(model for model in models if model.name == name))
    applications = tuple(_applications(project, serving))
    beside = tuple(_canaries(project)) if canaries else ()
    if not (local or project.images.trust):
        _check_trust(project, [*models, *(model for service in beside for model in service.models)])
    services = (*serving.values(), *beside, *applications)
    return Plan(
        project=image_options.slug(project.name),
        folder=project.folder,
        services=services,
        drain=project.server.drain,
        server=project.server,
        registry=project.registry if project.images.models == "registry" else "",
        policies=Policies(project.gateway, drift=project.monitoring.drift) if local else _policies(project),
    )


def lower_for_compose(project: Project) -> Plan:
    """The plan for Docker Compose, with the state store of model servers; raises as `lower`."""
    options = project.compose
    replicas, setting = project.images.replicas, "images.replicas = 1"
    if options.front and replicas == 1:
        replicas, setting = 2, 'compose.front = ""'  # while a container is replaced
    return policies.apply(lower(project), Reach(options.bind, replicas, setting))


def lower_for_kubernetes(project: Project) -> Plan:
    """The plan for Kubernetes, with canaries and the state store of model servers; raises as `lower`.

    Without `host`, only services of the plan reach the servers.
    """
    _check_canaries(project)
    options = project.kubernetes
    address = options.host or "127.0.0.1"
    setting = "minimum = 1 and maximum = 1 in [kubernetes.autoscale]"
    return policies.apply(lower(project, canaries=True), Reach(address, options.autoscale.maximum, setting))


def _policies(project: Project) -> Policies:
    """The policies of model servers in containers, where any target has some."""
    options, server = project.gateway, project.server
    if options.jwt.issuer:
        raise BadProject(
            "gateway.jwt: images do not hold what verifies tokens yet.",
            hint="Take tokens with estiba serve or estiba up; in containers, leave the section out and use keys.",
        )
    reachable = bool(project.kubernetes.host) or not is_loopback(project.compose.bind)
    asked = options.keys == "required" or (options.keys == "auto" and reachable and not server.insecure)
    drift = project.monitoring.drift
    if not project.models or not (asked or options.log.enabled or drift.enabled):
        return Policies(options)
    return replace(policies.describe(options, project.state_options, project.services), drift=drift)


def _check_canaries(project: Project) -> None:
    """Refuse a canary of its own for a model whose versions its servers share already."""
    for name in project.kubernetes.canary:
        if name in project.gateway.routes:
            text = f"kubernetes.canary.{name}: the model has a route too, gateway.routes.{name}."
            raise BadProject(text, hint="A route shares requests in each pod; keep one of the two sections.")


def _check_trust(project: Project, models: Sequence[PlannedModel]) -> None:
    """Refuse models with code of their authors, unless this project trained them."""
    for model in models:
        if model.code and model.digest not in fingerprints.claimed(project.folder, model.name):
            raise NotTrusted(
                f"{model.name}@{model.version} (sha256:{model.digest[:12]}) runs Python code of its author, and "
                f"`estiba train` has not made it in this project: {model.code}.",
                hint=f"Read the code in {model.path}. If you trust it, write trust = true in [images].",
            )


def lower_applications(project: Project) -> Plan:
    """The plan without the services that serve models, which need not be trained yet, for `estiba up`.

    Raises:
        BadProject: a file of a service does not exist.
    """
    services = tuple(_applications(project, {}))
    return Plan(image_options.slug(project.name), project.folder, services, project.server.drain, project.server)


def _applications(project: Project, serving: dict[str, Service]) -> Iterator[Service]:
    ports = {name: options.port for name, options in project.models.items()}
    for name in start_order(project.services, ports):
        if name in project.services:
            yield _application(project, name, project.services[name], serving)


def _resolved(project: Project, local: bool) -> Iterator[PlannedModel]:
    """The versions of all models; those of routes are only needed where servers do not read this registry."""
    if not project.models:
        return
    store = open_registry(project.registry)
    for name in project.models:
        main = planned_models.resolve(store, name, "Train the project's models first: estiba train")
        if name in project.gateway.routes and not local:
            yield from planned_models.routed(store, main, project.gateway.routes[name])
        else:
            yield main


def _canaries(project: Project) -> Iterator[Service]:
    store = open_registry(project.registry)
    for name, options in project.kubernetes.canary.items():
        ref = f"{name}@{options.alias}"
        hint = f"Set the alias of the second version: estiba models alias {ref} VERSION"
        model = planned_models.resolve(store, ref, hint)
        # An image without models is the same for both versions.
        image = name if project.images.models == "registry" else canary_name(name)
        service = _serving(project, image, (model,))
        yield replace(service, name=canary_name(name), published=None, public=False, replicas=options.replicas)


def _serving(project: Project, name: str, models: tuple[PlannedModel, ...]) -> Service:
    options = project.images
    build = Build(
        kind="models",
        style="slim" if any(model.engine == "python" for model in models) else options.style,
        python=options.python or _this_python(),
        budget=image_options.size(options.budget) if options.budget else None,
        trust=any(model.engine == "python" for model in models),
    )
    settings = msgspec.json.encode(project.server).decode()
    contents = _fetched(project, models) if options.models == "registry" else planned_models.contents(models)
    tag = _tag(build.style, build.python, __version__, settings, *contents, *_policy_parts(project))
    published = project.server.port if name == MODELS else project.models[models[0].name].port
    return Service(
        name=name,
        image=image_options.reference(options, project.name, name, tag),
        build=build,
        port=SERVER_PORT,
        published=published,
        health=Http("/health/ready"),
        metrics="/metrics",
        replicas=options.replicas,
        cpus=options.cpus,
        memory=image_options.size(options.memory),
        stop_grace=project.server.shutdown_delay + project.server.drain + EXTRA_STOP_SECONDS,
        environment={**options.registry_environment, **_trusted(options, models)},
        secrets=secrets(options.registry_environment),
        models=models,
    )


def _policy_parts(project: Project) -> list[str]:
    """The inputs of an image that its policies add; empty without any."""
    found = _policies(project)
    parts = [msgspec.json.encode(found.options).decode(), found.store]
    return parts if found != Policies() else []


def _trusted(options: ImageOptions, models: tuple[PlannedModel, ...]) -> dict[str, str]:
    """The variable that lets a server with a registry run code of these versions, and not of later ones."""
    digests = [f"sha256:{model.digest}" for model in models if model.engine == "python"]
    return {TRUSTED: " ".join(digests)} if options.models == "registry" and digests else {}


def _fetched(project: Project, models: tuple[PlannedModel, ...]) -> Iterator[str]:
    """The inputs of an image without models: a new version needs a new image only if it needs other packages."""
    yield "registry"
    yield from libraries(project.registry)
    for model in models:
        yield f"{model.name} {model.engine}"
        if model.engine == "python":
            yield from (f"{name}=={version}" for name, version in sorted(model.libraries.items()))


def _application(project: Project, name: str, options: ServiceOptions, serving: dict[str, Service]) -> Service:
    build = None if options.image else _build(project, name, options)
    image = options.image
    if build is not None:
        image = image_options.reference(
            project.images, project.name, name, _content_tag(project.folder, options, build)
        )
    needs = {
        needed if needed in serving or needed in project.services else MODELS: _condition(project, needed, condition)
        for needed, condition in options.conditions.items()
    }
    return Service(
        name=name,
        image=image,
        build=build,
        command=options.arguments,
        program=options.program,
        folder=options.folder,
        port=options.port,
        published=options.port if options.public else None,
        health=_health(options),
        live=options.live,
        needs=needs,
        environment=options.environment,
        secrets=options.secrets,
        volumes=options.volumes,
        files={key: _file(project, name, key, pair) for key, pair in options.files.items()},
        profile=options.profile,
        metrics=options.metrics,
        public=options.public and options.port is not None,
        replicas=options.replicas,
        cpus=options.cpus,
        memory=image_options.size(options.memory),
        tmp=image_options.size(options.tmp),
        start_timeout=options.start_timeout,
        stop_grace=options.stop_grace,
        stop_signal=options.stop_signal or "",
        restart=options.restart,
        watch=options.watch or options.include or (options.folder,),
        read_only=options.read_only,
        writable=options.writable,
        user=options.user,
    )


def _build(project: Project, name: str, options: ServiceOptions) -> Build:
    folder = project.folder
    include = options.include or ((options.folder,) if Path(options.folder) != Path() else ())
    for key, entries in (("include", include), ("requirements", (options.requirements,) * bool(options.requirements))):
        for entry in entries:
            if not (folder / entry).exists():
                raise BadProject(f"services.{name}.{key}: there is no {entry} in {folder}.")
    _check_folder(name, options, include)
    return Build(
        kind=options.kind,
        style=options.style,
        python=project.images.python or _this_python(),
        requirements=folder / options.requirements if options.requirements else None,
        include=include,
        packages=options.packages,
        budget=image_options.size(options.budget) if options.budget else None,
    )


def _condition(project: Project, needed: str, condition: Condition) -> Condition:
    """Replace `healthy` for a service without a health check: by `started`, or by `completed` for a task."""
    options = project.services.get(needed)
    if condition != "healthy" or options is None or _health(options) is not None:
        return condition
    return "started" if options.restart else "completed"


def _check_folder(name: str, options: ServiceOptions, include: Sequence[str]) -> None:
    """Refuse a working directory that is not in the image."""
    start, included = Path(options.folder), [Path(entry) for entry in include]
    if start != Path() and not any(start.is_relative_to(path) or path.is_relative_to(start) for path in included):
        hint = f'Add "{options.folder}" to include.'
        raise BadProject(f"services.{name}.folder: {options.folder} is not included in the image.", hint=hint)


def _health(options: ServiceOptions) -> Health:
    if not isinstance(options.health, str):
        return Command(options.health)
    if options.health:
        return Http(options.health)
    return Tcp() if options.port is not None else None


def _file(project: Project, name: str, key: str, pair: str) -> File:
    source, _, target = pair.rpartition(":")
    file = File(source, target)
    if not file.generated and not (project.folder / source).exists():
        raise BadProject(f"services.{name}.files.{key}: there is no {source} in {project.folder}.")
    return file


def _content_tag(folder: Path, options: ServiceOptions, build: Build) -> str:
    """The tag of an application's image: the digest of everything that goes into it."""
    parts = [build.kind, build.style, build.python, *build.packages, *options.arguments, options.folder]
    parts += [
        __version__,
        str(options.port),
        str(options.health),
        options.stop_signal or "SIGTERM",
        f"{options.start_timeout:g}",
    ]
    parts += options.volumes.values()
    names = [*build.include, *([options.requirements] if options.requirements else [])]
    for name in names:
        with explained("read", folder / name):
            for path in _files(folder / name):
                parts += [str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()]
    return _tag(*parts)


def _files(path: Path) -> Iterator[Path]:
    """The files below a path that go into an image, in order."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if not image_options.is_excluded(inner) and not (inner.is_symlink() and inner.is_dir()):
                yield from _files(inner)


def _tag(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
