"""Render a plan as a Docker Compose project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from estiba.core.errors import BadProject
from estiba.deploy.compose import reverse_proxy
from estiba.deploy.observability.config_files import generate, in_containers
from estiba.deploy.output import yaml
from estiba.deploy.output.files import Rendered
from estiba.deploy.plan import health, image_options, model_source
from estiba.deploy.plan.plan import Command, File, Plan, Service, in_container
from estiba.deploy.plan.references import Reference, references, resolve
from estiba.deploy.plan.service_options import Condition
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_INTERVAL_SECONDS, MAX_HEALTH_FAILURES

_CONDITIONS: dict[Condition, str] = {
    "started": "service_started",
    "healthy": "service_healthy",
    "completed": "service_completed_successfully",
}

GENERATED = "config"
"""The folder, beside compose.yaml, of the files that containers mount."""

HEALTH_TIMING = {
    "interval": f"{HEALTH_INTERVAL_SECONDS}s",
    "timeout": f"{HEALTH_COMMAND_TIMEOUT_SECONDS}s",
    "retries": MAX_HEALTH_FAILURES,
    "start_interval": "1s",
}

BIND = "ESTIBA_BIND"
"""The environment variable with the address that ports are published at; `ESTIBA_PORT_WEB` has the port of `web`."""


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[compose]` of the project file.

    Args:
        bind: the address that ports are published at, IPv4 or IPv6; 127.0.0.1 is reachable from this machine only.
        pids: the maximum number of processes and threads of a container.
        logging: destination of containers' logs: `json-file` keeps them with Docker, `fluentd` also sends them to the
            project's Fluent Bit.
        front: an image of nginx, such as nginx:1.29, as the reverse proxy of the model servers; `estiba deploy
            compose` then replaces them without losing a request, and they may have several replicas.
        log_size: megabytes after which a container's log is rotated; three files are kept.
    """

    bind: str = "127.0.0.1"
    pids: Annotated[int, Meta(ge=16)] = 512
    logging: Literal["json-file", "fluentd"] = "json-file"
    front: str = ""
    log_size: Annotated[int, Meta(ge=1)] = 10


def check(options: ComposeOptions) -> None:
    """Raise BadProject where `bind` is not an IP address."""
    try:
        address = ip_address(options.bind)
    except ValueError:
        address = None
    if address is None or "%" in options.bind:
        hint = "Use 127.0.0.1 or ::1 for this machine only; 0.0.0.0 or :: lets other machines connect."
        raise BadProject(f"compose.bind: {options.bind!r} is not an IP address.", hint=hint)


def render(plan: Plan, options: ComposeOptions) -> Rendered:
    """Render the files of a Compose project.

    Raises:
        BadProject: a setting that Compose cannot honour.
    """
    plan = model_source.in_compose(plan)
    if options.front:
        plan = reverse_proxy.use_published_ports(plan)
    for service in plan.services:
        _check(plan, service, options)
    texts: dict[str, str] = {}
    copies = {}
    if options.front and reverse_proxy.behind(plan):
        texts[f"{GENERATED}/{reverse_proxy.NAME}/{reverse_proxy.FILE}"] = reverse_proxy.configuration(plan)
    for service in plan.services:
        for file in service.files.values():
            path = _file_path(service, file)
            if file.generated:
                contents = generate(plan, service, file, in_containers(plan))
                texts |= {str(PurePosixPath(path) / name) if name else path: text for name, text in contents.items()}
            else:
                copies[path] = plan.folder / file.source
    example, settings = (_settings(plan, options, with_folder=folder) for folder in (False, True))
    texts["compose.yaml"] = _HEAD.format(project=plan.project) + yaml.render(_project(plan, options, texts))
    texts |= {".env.example": example, ".gitignore": "secrets/\n.env\n.env.*\n!.env.example\n"}
    return Rendered(texts, {".env": settings}, copies)


_HEAD = """\
# {project}: rendered by `estiba compose` from estiba.toml. Change that file and render again; settings are in .env.
#
#   estiba build                                      build the images
#   docker compose up --detach --wait                 start the services without a profile
#   docker compose --profile monitoring up --wait     and those of this profile

"""


def _project(plan: Plan, options: ComposeOptions, texts: Mapping[str, str]) -> dict[str, Any]:
    services = {service.name: _service(plan, service, options) for service in plan.services}
    networks: dict[str, Any] = {"frontend": {}, "backend": {"internal": True}}
    if options.front and reverse_proxy.behind(plan):
        services[reverse_proxy.NAME] = _reverse_proxy(plan, options)
        networks[reverse_proxy.NETWORK] = {"internal": True}
    for name, service in services.items():
        service |= _files_label(name, texts)
    project: dict[str, Any] = {
        "name": plan.project,
        "services": services,
        "networks": networks,
    }
    volumes: dict[str, Any] = {_volume(service, name): {} for service in plan.services for name in service.volumes}
    if volumes:
        project["volumes"] = volumes
    if plan.secrets:
        project["secrets"] = {name: {"file": f"./secrets/{name}"} for name in plan.secrets}
    return project


def _service(plan: Plan, service: Service, options: ComposeOptions) -> dict[str, Any]:
    config: dict[str, Any] = {"image": service.image}
    if service.build is not None and not image_options.host(service.image):
        config["pull_policy"] = "never"  # it is built here; a pull would only hide that it is missing
    if profiles := plan.profiles_of(service):
        config["profiles"] = list(profiles)
    if service.command:
        config["command"] = [_text(plan, service, argument) for argument in service.command]
    if service.environment:
        config["environment"] = {key: _text(plan, service, value) for key, value in service.environment.items()}
    behind_proxy = options.front and service in reverse_proxy.behind(plan)
    if service.published is not None and service.public and not behind_proxy:
        config["ports"] = [_port(service, service.port, options)]
    config |= _lifecycle(plan, service)
    if behind_proxy:
        config |= reverse_proxy.service_behind(plan, service)
    config |= _mounts(plan, service)
    config |= _hardening(service, options)
    return config


def _reverse_proxy(plan: Plan, options: ComposeOptions) -> dict[str, Any]:
    published = [_port(service, service.published, options) for service in reverse_proxy.behind(plan)]
    path = f"./{GENERATED}/{reverse_proxy.NAME}/{reverse_proxy.FILE}"
    mount = {"type": "bind", "source": path, "target": f"/etc/nginx/{reverse_proxy.FILE}", "read_only": True}
    # On SIGQUIT nginx completes the requests that it has begun.
    lifecycle = {"init": True, "restart": "unless-stopped", "stop_signal": "SIGQUIT", "stop_grace_period": "30s"}
    config = reverse_proxy.definition(plan, options.front, published) | lifecycle | {"volumes": [mount]}
    config["healthcheck"] = HEALTH_TIMING | config["healthcheck"]
    return config | _hardening(Service(reverse_proxy.NAME, options.front, memory=128_000_000), options)


def _port(service: Service, target: int | None, options: ComposeOptions) -> dict[str, Any]:
    """Return a published port: of .env, or by default of the project file."""
    address, port = f"${{{BIND}:-{options.bind}}}", f"${{{_variable(service)}:-{service.published}}}"
    return {"host_ip": address, "published": port, "target": target}


def _files_label(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return a label with the digest of a service's files: Compose alone replaces no container because they changed."""
    files = {path: text for path, text in texts.items() if path.startswith(f"{GENERATED}/{name}/")}
    if not files:
        return {}
    return {"labels": {"org.estiba.files": hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:12]}}


def _lifecycle(plan: Plan, service: Service) -> dict[str, Any]:
    config: dict[str, Any] = {}
    test = _health(plan, service)
    if test:
        config["healthcheck"] = {
            "test": ["CMD", *test],
            **HEALTH_TIMING,
            "start_period": _seconds(service.start_timeout),
        }
    if service.needs:
        config["depends_on"] = {
            # A task does not run again because a service that it needs was restarted.
            name: {"condition": _CONDITIONS[condition], "restart": _restarts(service, condition)}
            for name, condition in service.needs.items()
        }
    config["init"] = True
    config["restart"] = "unless-stopped" if service.restart else "no"
    if service.stop_signal:
        config["stop_signal"] = service.stop_signal
    config["stop_grace_period"] = _seconds(service.stop_grace)
    config["networks"] = ["frontend", "backend"] if service.public else ["backend"]
    return config


def _restarts(service: Service, condition: Condition) -> bool:
    """Return True if a service restarts with one that it needs: model servers do without their database for a while."""
    return condition != "completed" and service.restart and not service.models


def _mounts(plan: Plan, service: Service) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [
        {"type": "volume", "source": _volume(service, name), "target": target}
        for name, target in service.volumes.items()
    ]
    mounts += [
        {"type": "bind", "source": f"./{_file_path(service, file)}", "target": file.target, "read_only": True}
        for file in service.files.values()
    ]
    mounts += model_source.mounts(plan, service)
    config: dict[str, Any] = {"volumes": mounts} if mounts else {}
    if service.secrets:
        config["secrets"] = list(service.secrets)
    return config


def _hardening(service: Service, options: ComposeOptions) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if service.user is not None:
        config["user"] = str(service.user)
    if service.read_only:
        config["read_only"] = True
    owner = f",uid={service.user}" if service.user is not None else ""
    config["tmpfs"] = [f"{path}:size={service.tmp},mode=1777{owner}" for path in ("/tmp", *service.writable)]
    config["cap_drop"] = ["ALL"]
    config["security_opt"] = ["no-new-privileges:true"]
    limits = {"cpus": f"{service.cpus:g}", "memory": str(service.memory), "pids": options.pids}
    config["deploy"] = {"resources": {"limits": limits}}
    if service.replicas > 1:
        config["deploy"]["replicas"] = service.replicas
    config["logging"] = _logging(options)
    return config


def _logging(options: ComposeOptions) -> dict[str, Any]:
    if options.logging == "json-file":
        return {"driver": "json-file", "options": {"max-size": f"{options.log_size}m", "max-file": "3"}}
    # The Docker daemon is the client, so the address is this machine's; async, so that no container waits for it.
    address = {"fluentd-address": "127.0.0.1:24224", "fluentd-async": "true", "tag": "{{.Name}}"}
    return {"driver": "fluentd", "options": address}


def _health(plan: Plan, service: Service) -> tuple[str, ...]:
    return health.command(service, lambda argument: _text(plan, service, argument))


def _check(plan: Plan, service: Service, options: ComposeOptions) -> None:
    path = f"services.{service.name}"
    for name, condition in service.needs.items():
        if condition == "healthy" and not _health(plan, plan[name]):
            hint = f'Add health = ["command", "..."] to [services.{name}], or make the condition "started".'
            raise BadProject(f"{path}.needs: {name} has no health check that Compose can run.", hint=hint)
    for reference in _variables(service):
        if reference.name in (BIND, model_source.FOLDER, *(_variable(each) for each in plan.services)):
            hint = "Give the variable another name."
            raise BadProject(f"{path}: ${{env.{reference.name}}} is reserved for a setting of compose.yaml.", hint=hint)
    if options.front and service.name == reverse_proxy.NAME:
        hint = "Give the service another name."
        raise BadProject(
            f"{path}: the name front is reserved for the reverse proxy that `front` in [compose] adds.", hint=hint
        )
    if service.replicas > 1 and service.published is not None and not (options.front and service.models):
        hint = 'Set public = false, or, for model servers, front = "nginx:1.29" in [compose].'
        raise BadProject(f"{path}.replicas: several containers cannot publish the same port.", hint=hint)


def _text(plan: Plan, service: Service, text: str) -> str:
    """Return a value for compose.yaml: dollar signs are doubled, except those of variables that Compose substitutes."""
    pieces = {ref: _substituted(plan, service, ref) for ref in references(text, service.name)}
    marked = resolve(text, lambda reference: f"\0{list(pieces).index(reference)}\0").replace("$", "$$")
    for number, piece in enumerate(pieces.values()):
        marked = marked.replace(f"\0{number}\0", piece)
    return marked


def _substituted(plan: Plan, service: Service, reference: Reference) -> str:
    if reference.kind != "env":
        return in_container(plan, service, reference, "").replace("$", "$$")
    if reference.default is None:
        return f"${{{reference.name}:?set it in .env}}"
    default = reference.default.replace("$", "$$")  # else Compose would substitute another variable
    return f"${{{reference.name}:-{default}}}"


def _settings(plan: Plan, options: ComposeOptions, *, with_folder: bool) -> str:
    lines = [
        "# Settings of compose.yaml. For another environment, copy this to .env.production, change it, and run",
        "# docker compose --env-file .env.production up --detach --wait",
        "",
        "# The address that ports are published at: 127.0.0.1 is reachable from this machine only.",
        f"# {BIND}={options.bind}",
        "",
        "# Published ports of the services.",
    ]
    published = [service for service in plan.services if service.published is not None]
    lines += [f"# {_variable(service)}={service.published}" for service in published]
    variables = {(ref.name, ref.default) for service in plan.services for ref in _variables(service)}
    if variables:
        lines += ["", "# Variables that the project file refers to."]
        lines += [
            f"{name}=" if default is None else f"# {name}={default}" for name, default in sorted(variables, key=str)
        ]
    lines += model_source.settings(plan, with_folder=with_folder)
    return "\n".join(lines) + "\n"


def _variables(service: Service) -> Iterator[Reference]:
    """Return the references of a service to environment variables."""
    probe = service.health.argv if isinstance(service.health, Command) else ()
    for text in (*service.command, *service.environment.values(), *probe):
        yield from (reference for reference in references(text, service.name) if reference.kind == "env")


def _variable(service: Service) -> str:
    return f"ESTIBA_PORT_{service.name.upper().replace('-', '_')}"


def _volume(service: Service, name: str) -> str:
    return f"{service.name}-{name}"


def _file_path(service: Service, file: File) -> str:
    """Return the path of a file relative to compose.yaml: its base name, unless two files of the service share that."""
    target = PurePosixPath(file.target)
    namesakes = [other for other in service.files.values() if PurePosixPath(other.target).name == target.name]
    return f"{GENERATED}/{service.name}/{target.name if len(namesakes) == 1 else file.target.lstrip('/')}"


def _seconds(value: float) -> str:
    return f"{value:g}s"
