"""Read estiba.toml into one tree of the features' options, and check it."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from estiba.core import options
from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.core.stores.disk import explained
from estiba.core.suggest import did_you_mean
from estiba.deploy.compose import render as compose
from estiba.deploy.compose.render import ComposeOptions
from estiba.deploy.kubernetes.options import KubernetesOptions
from estiba.deploy.output import ci_pipelines as ci
from estiba.deploy.output.ci_pipelines import CiOptions
from estiba.deploy.plan import known_images, secrets
from estiba.deploy.plan import model_source as registry
from estiba.deploy.plan import service_options as services
from estiba.deploy.plan.image_options import ImageOptions
from estiba.deploy.plan.references import Reference, resolve
from estiba.deploy.plan.service_options import ServiceOptions
from estiba.gateway import routes
from estiba.gateway.jwks import check_jwt
from estiba.gateway.options import GatewayOptions, check_cache, check_limits, check_origins
from estiba.model.registry.records import DEFAULT_REGISTRY, check_name
from estiba.model.training import runner
from estiba.model.training.mlflow import MlflowOptions
from estiba.model.training.runner import ModelOptions, Workshop
from estiba.monitoring.options import MonitoringOptions, check_drift
from estiba.serving.http.proxies import check_proxies
from estiba.serving.options import ServerOptions
from estiba.state import options as state
from estiba.state.options import StateOptions

FILE = "estiba.toml"


class ProjectOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[project]` of the project file.

    Args:
        name: the name of the project; by default that of its folder.
        registry: a folder, relative to the project file, or the URL of object storage. $ESTIBA_REGISTRY overrides it.
    """

    name: str = ""
    registry: str = DEFAULT_REGISTRY


class Tree(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The sections of estiba.toml."""

    project: ProjectOptions = ProjectOptions()
    server: ServerOptions = ServerOptions()
    gateway: GatewayOptions = GatewayOptions()
    state: StateOptions = StateOptions()
    monitoring: MonitoringOptions = MonitoringOptions()
    models: dict[str, ModelOptions] = {}
    services: dict[str, ServiceOptions] = {}
    images: ImageOptions = ImageOptions()
    compose: ComposeOptions = ComposeOptions()
    kubernetes: KubernetesOptions = KubernetesOptions()
    mlflow: MlflowOptions = MlflowOptions()
    ci: CiOptions = CiOptions()


@dataclass(frozen=True)
class Project:
    """A project file that was read and checked, with settings from environment variables.

    Args:
        file: the absolute path of the project file.
        registry: an absolute folder or a URL.
        state: the URL of the state store on this machine, with absolute paths.
        state_options: as in the project file, for containers.
    """

    file: Path
    name: str
    registry: str
    server: ServerOptions
    gateway: GatewayOptions
    state: str
    state_options: StateOptions
    monitoring: MonitoringOptions
    models: dict[str, ModelOptions]
    services: dict[str, ServiceOptions]
    images: ImageOptions
    compose: ComposeOptions
    kubernetes: KubernetesOptions
    mlflow: MlflowOptions
    ci: CiOptions

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def workshop(self) -> Workshop:
        return Workshop(self.folder, self.registry, self.models, self.mlflow)


def load(path: Path | None = None) -> Project:
    """Read the project file.

    Args:
        path: the file or its folder; by default the working directory and its parents are searched.

    Raises:
        NotFound: there is none. BadProject: a mistake in the file, with its key or line.
    """
    file = find(path)
    with explained("read", file):
        content = file.read_bytes()
    try:
        return _project(file, options.read(_parsed(content), Tree))
    except BadProject as error:
        raise BadProject(f"{file}: {error.message}", hint=error.hint) from None


def find(path: Path | None = None) -> Path:
    """The absolute path of the project file; raises NotFound. See `load`."""
    start = (path or Path()).absolute()
    folders = [start] if path else [start, *start.parents]
    candidates = [start] if start.is_file() else [folder / FILE for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    where = "in" if path else "in or above"
    hint = "Create a project with: estiba init, or pass its folder with -C DIR."
    raise NotFound(f"There is no {FILE} {where} {start}.", hint=hint)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadProject(f"line {line} is not UTF-8.", hint="Save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise BadProject(f"not TOML: {error}.", hint="See https://toml.io for the syntax.") from None


def _project(file: Path, tree: Tree) -> Project:
    for name, model in tree.models.items():
        runner.check(name, model)
    _check_default(tree)
    _check_limits(tree)
    check_origins(tree.gateway.browsers)
    check_jwt(tree.gateway.jwt)
    check_drift(tree.monitoring.drift, tuple(tree.models))
    check_proxies(tree.server.trusted_proxies, tree.server.prefix)
    _check_socket(tree.server)
    routes.check_pinned(tree.gateway.routes, tree.models)
    registry.check(tree.images)
    compose.check(tree.compose)
    ci.check(tree.ci)
    completed = {name: known_images.complete(name, service) for name, service in tree.services.items()}
    services.check(completed, {name: model.port for name, model in tree.models.items()}, tree.server.port)
    name = tree.project.name or file.parent.name
    return Project(
        file=file,
        name=_name(tree.project.name) or name,
        registry=_registry(file.parent, tree.project.registry),
        server=tree.server,
        gateway=tree.gateway,
        state=_state(file.parent, tree.state.url),
        state_options=tree.state,
        monitoring=tree.monitoring,
        models=tree.models,
        services=completed,
        images=tree.images,
        compose=tree.compose,
        kubernetes=tree.kubernetes,
        mlflow=_mlflow(tree.mlflow, name),
        ci=tree.ci,
    )


def _check_default(tree: Tree) -> None:
    default = tree.server.default
    if default and default not in tree.models:
        meant = did_you_mean(default, tree.models)
        known = ", ".join(tree.models) or "none"
        raise BadProject(f"server.default: there is no model {default!r}{meant}", hint=f"Models: {known}.")


def _check_socket(server: ServerOptions) -> None:
    """Raise BadProject for a certificate or a Unix socket, which health checks and other services cannot use."""
    for name in ("unix", "certificate", "certificate_key"):
        if getattr(server, name):
            raise BadProject(
                f"server.{name}: services of a project, and health checks in containers, ask the server by HTTP.",
                hint="Let a proxy or the Ingress end TLS; or start the server alone: estiba serve --certificate FILE "
                "--certificate-key FILE, or --unix PATH.",
            )


def _check_limits(tree: Tree) -> None:
    check_limits(tree.gateway.limits)
    check_cache(tree.gateway.cache)
    named = {f"gateway.limits.models.{name}": name for name in tree.gateway.limits.models}
    named |= {f"gateway.cache.models.{number}": name for number, name in enumerate(tree.gateway.cache.models)}
    for path, name in named.items():
        if name not in tree.models:
            meant, known = did_you_mean(name, tree.models), ", ".join(tree.models) or "none"
            raise BadProject(f"{path}: there is no model {name!r}{meant}", hint=f"Models: {known}.")


def _name(name: str) -> str:
    if name:
        try:
            check_name(name)
        except EstibaError as error:
            raise BadProject(f"project.name: {name!r} cannot be a name.", hint=error.hint) from None
    return name


def _registry(folder: Path, named: str) -> str:
    if override := os.environ.get("ESTIBA_REGISTRY"):
        return override if "://" in override else str(Path(override).absolute())
    return named if "://" in named else str(folder / named)


def _state(folder: Path, url: str) -> str:
    """The URL of the state store on this machine, where a secret is a file of the project."""

    def path(reference: Reference) -> str:
        if reference.kind != "secrets":
            raise BadProject("state.url: only ${secrets.NAME} can be referred to here.")
        return str(secrets.path_of(folder, reference.name))

    return state.location(resolve(url, path) if "${" in url else url, folder)


def _mlflow(named: MlflowOptions, project: str) -> MlflowOptions:
    uri = named.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    return MlflowOptions(tracking_uri=uri, experiment=named.experiment or project)
