"""Compose: a plan as a Docker Compose project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from estiba.core.errors import BadProject
from estiba.deploy.compose import reverse_proxy as front
from estiba.deploy.observability.config_files import generate, in_containers
from estiba.deploy.output import yaml
from estiba.deploy.output.files import Rendered
from estiba.deploy.plan import health, image_options, model_source
from estiba.deploy.plan.plan import Command, File, Plan, Service, in_container
from estiba.deploy.plan.references import Reference, references, resolve
from estiba.deploy.plan.service_options import Condition
from estiba.deploy.plan.timing import HEALTH_COMMAND_TIMEOUT_SECONDS, HEALTH_INTERVAL_SECONDS, MAX_HEALTH_FAILURES

HEALTHY: dict[Condition, str] = {
    "started": "service_started",
    "healthy": "service_healthy",
    "completed": "service_completed_successfully",
}

GENERATED = "config"
"""The folder, beside compose.yaml, of what containers get to read."""

HEALTH_TIMING = {
    "interval": f"{HEALTH_INTERVAL_SECONDS}s",
    "timeout": f"{HEALTH_COMMAND_TIMEOUT_SECONDS}s",
    "retries": MAX_HEALTH_FAILURES,
    "start_interval": "1s",
}

BIND = "ESTIBA_BIND"
"""The variable of the address at which ports are published. Those of the ports are `ESTIBA_PORT_WEB` and the like."""


class ComposeOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[compose]` of the project file.

    Args:
        bind: the address at which ports are published, IPv4 or IPv6; 127.0.0.1 keeps them on the machine.
        pids: processes and threads that a container may have.
        logging: where containers' logs go: `json-file` keeps them with Docker, `fluentd` also sends them to the
            project's Fluent Bit.
        front: an image of nginx, such as nginx:1.29, which then stands before what serves models; `estiba deploy
            compose` replaces containers behind it without losing a request, and there may be several replicas.
        log_size: megabytes after which a container's log is turned over; three files are kept.
    """

    bind: str = "127.0.0.1"
    pids: Annotated[int, Meta(ge=16)] = 512
    logging: Literal["json-file", "fluentd"] = "json-file"
    front: str = ""
    log_size: Annotated[int, Meta(ge=1)] = 10


def check(options: ComposeOptions) -> None:
    """Raises BadProject where `bind` is no address."""
    try:
        address = ip_address(options.bind)
    except ValueError:
        address = None
    if address is None or "%" in options.bind:
        hint = "Such as 127.0.0.1 or ::1 for this machine only; 0.0.0.0 or :: lets other machines in."
        raise BadProject(f"compose.bind: {options.bind!r} is no IP address.", hint=hint)


def render(plan: Plan, options: ComposeOptions) -> Rendered:
    """The files of a Compose project.

    Raises:
        BadProject: something that Compose cannot do.
    """
    plan = model_source.in_compose(plan)
    if options.front:
        plan = front.prepared(plan)
    for service in plan.services:
        _check(plan, service, options)
    texts: dict[str, str] = {}
    copies = {}
    if options.front and front.behind(plan):
        texts[f"{GENERATED}/{front.NAME}/{front.FILE}"] = front.configuration(plan)
    for service in plan.services:
        for file in service.files.values():
            place = _place(service, file)
            if file.generated:
                found = generate(plan, service, file, in_containers(plan))
                texts |= {str(PurePosixPath(place) / path) if path else place: text for path, text in found.items()}
            else:
                copies[place] = plan.folder / file.source
    example, settings = (_settings(plan, options, with_folder=folder) for folder in (False, True))
    texts["compose.yaml"] = _HEAD.format(project=plan.project) + yaml.render(_project(plan, options, texts))
    texts |= {".env.example": example, ".gitignore": "secrets/\n.last-good/\n.env\n.env.*\n!.env.example\n"}
    return Rendered(texts, {".env": settings}, copies)


_HEAD = """\
# {project}: written by `estiba compose` from estiba.toml. Change that and write again; settings are in .env.
#
#   estiba build                                      the images
#   docker compose up --detach --wait                 what has no profile
#   docker compose --profile monitoring up --wait     and what has this one

"""


def _project(plan: Plan, options: ComposeOptions, texts: Mapping[str, str]) -> dict[str, Any]:
    services = {service.name: _service(plan, service, options) for service in plan.services}
    networks: dict[str, Any] = {"frontend": {}, "backend": {"internal": True}}
    if options.front and front.behind(plan):
        services[front.NAME] = _front(plan, options)
        networks[front.NETWORK] = {"internal": True}
    for name, service in services.items():
        service |= _stamp(name, texts)
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
    found: dict[str, Any] = {"image": service.image}
    if service.build is not None and not image_options.host(service.image):
        found["pull_policy"] = "never"  # it is made here; asking a registry would only hide that it is missing
    if profiles := plan.profiles_of(service):
        found["profiles"] = list(profiles)
    if service.command:
        found["command"] = [_text(plan, service, word) for word in service.command]
    if service.environment:
        found["environment"] = {key: _text(plan, service, value) for key, value in service.environment.items()}
    fronted = options.front and service in front.behind(plan)
    if service.published is not None and service.public and not fronted:
        found["ports"] = [_port(service, service.port, options)]
    found |= _life(plan, service)
    if fronted:
        found |= front.behind_it(plan, service)
    found |= _places(plan, service)
    found |= _hardening(service, options)
    return found


def _front(plan: Plan, options: ComposeOptions) -> dict[str, Any]:
    published = [_port(service, service.published, options) for service in front.behind(plan)]
    place = f"./{GENERATED}/{front.NAME}/{front.FILE}"
    mount = {"type": "bind", "source": place, "target": f"/etc/nginx/{front.FILE}", "read_only": True}
    # SIGQUIT lets nginx finish what it is answering.
    life = {"init": True, "restart": "unless-stopped", "stop_signal": "SIGQUIT", "stop_grace_period": "30s"}
    found = front.definition(plan, options.front, published) | life | {"volumes": [mount]}
    found["healthcheck"] = HEALTH_TIMING | found["healthcheck"]
    return found | _hardening(Service(front.NAME, options.front, memory=128_000_000), options)


def _port(service: Service, target: int | None, options: ComposeOptions) -> dict[str, Any]:
    """A published port. What .env does not say is what the project file says."""
    address, port = f"${{{BIND}:-{options.bind}}}", f"${{{_variable(service)}:-{service.published}}}"
    return {"host_ip": address, "published": port, "target": target}


def _stamp(name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """A label with what is in a service's files: Compose itself replaces no container because they changed."""
    own = {path: text for path, text in texts.items() if path.startswith(f"{GENERATED}/{name}/")}
    if not own:
        return {}
    return {"labels": {"org.estiba.files": hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest()[:12]}}


def _life(plan: Plan, service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {}
    test = _health(plan, service)
    if test:
        found["healthcheck"] = {
            "test": ["CMD", *test],
            **HEALTH_TIMING,
            "start_period": _seconds(service.start_timeout),
        }
    if service.needs:
        found["depends_on"] = {
            # A task is not done again because something that it needed begins anew.
            name: {"condition": HEALTHY[condition], "restart": condition != "completed" and service.restart}
            for name, condition in service.needs.items()
        }
    found["init"] = True
    found["restart"] = "unless-stopped" if service.restart else "no"
    if service.stop_signal:
        found["stop_signal"] = service.stop_signal
    found["stop_grace_period"] = _seconds(service.stop_grace)
    found["networks"] = ["frontend", "backend"] if service.public else ["backend"]
    return found


def _places(plan: Plan, service: Service) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [
        {"type": "volume", "source": _volume(service, name), "target": target}
        for name, target in service.volumes.items()
    ]
    mounts += [
        {"type": "bind", "source": f"./{_place(service, file)}", "target": file.target, "read_only": True}
        for file in service.files.values()
    ]
    mounts += model_source.mounts(plan, service)
    found: dict[str, Any] = {"volumes": mounts} if mounts else {}
    if service.secrets:
        found["secrets"] = list(service.secrets)
    return found


def _hardening(service: Service, options: ComposeOptions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if service.user is not None:
        found["user"] = str(service.user)
    if service.read_only:
        found["read_only"] = True
    owner = f",uid={service.user}" if service.user is not None else ""
    found["tmpfs"] = [f"{place}:size=64m,mode=1777{owner}" for place in ("/tmp", *service.writable)]
    found["cap_drop"] = ["ALL"]
    found["security_opt"] = ["no-new-privileges:true"]
    limits = {"cpus": f"{service.cpus:g}", "memory": str(service.memory), "pids": options.pids}
    found["deploy"] = {"resources": {"limits": limits}}
    if service.replicas > 1:
        found["deploy"]["replicas"] = service.replicas
    found["logging"] = _logging(options)
    return found


def _logging(options: ComposeOptions) -> dict[str, Any]:
    if options.logging == "json-file":
        return {"driver": "json-file", "options": {"max-size": f"{options.log_size}m", "max-file": "3"}}
    # Docker itself is the client, so the address is the machine's; no container waits for it.
    address = {"fluentd-address": "127.0.0.1:24224", "fluentd-async": "true", "tag": "{{.Name}}"}
    return {"driver": "fluentd", "options": address}


def _health(plan: Plan, service: Service) -> tuple[str, ...]:
    return health.command(service, lambda argument: _text(plan, service, argument))


def _check(plan: Plan, service: Service, options: ComposeOptions) -> None:
    path = f"services.{service.name}"
    for name, condition in service.needs.items():
        if condition == "healthy" and not _health(plan, plan[name]):
            hint = f'Add health = ["command", "..."] to [services.{name}], or need it only "started".'
            raise BadProject(f"{path}.needs: Compose cannot tell whether {name} is healthy.", hint=hint)
    for reference in _variables(service):
        if reference.name in (BIND, model_source.FOLDER, *(_variable(each) for each in plan.services)):
            hint = "Give the variable another name."
            raise BadProject(f"{path}: ${{env.{reference.name}}} is a setting of compose.yaml itself.", hint=hint)
    if options.front and service.name == front.NAME:
        hint = "Give the service another name."
        raise BadProject(f"{path}: front is the name of what [compose] front adds.", hint=hint)
    if service.replicas > 1 and service.published is not None and not (options.front and service.models):
        hint = 'Set public = false, or, for what serves models, front = "nginx:1.29" in [compose].'
        raise BadProject(f"{path}.replicas: two containers cannot be published at one port.", hint=hint)


def _text(plan: Plan, service: Service, text: str) -> str:
    """A value for compose.yaml, where a dollar sign is written twice but for variables that Compose fills in."""
    pieces = {ref: _filled(plan, service, ref) for ref in references(text, service.name)}
    marked = resolve(text, lambda reference: f"\0{list(pieces).index(reference)}\0").replace("$", "$$")
    for number, piece in enumerate(pieces.values()):
        marked = marked.replace(f"\0{number}\0", piece)
    return marked


def _filled(plan: Plan, service: Service, reference: Reference) -> str:
    if reference.kind != "env":
        return in_container(plan, service, reference, "").replace("$", "$$")
    if reference.default is None:
        return f"${{{reference.name}:?set it in .env}}"
    default = reference.default.replace("$", "$$")  # else Compose would look another variable up
    return f"${{{reference.name}:-{default}}}"


def _settings(plan: Plan, options: ComposeOptions, *, with_folder: bool) -> str:
    lines = [
        "# Settings of compose.yaml. For another environment, copy this to .env.production, say, change it, and run",
        "# docker compose --env-file .env.production up --detach --wait",
        "",
        "# The address at which ports are published: 127.0.0.1 is this machine only.",
        f"# {BIND}={options.bind}",
        "",
        "# Ports at which services are reached.",
    ]
    published = [service for service in plan.services if service.published is not None]
    lines += [f"# {_variable(service)}={service.published}" for service in published]
    named = {(ref.name, ref.default) for service in plan.services for ref in _variables(service)}
    if named:
        lines += ["", "# Variables that the project file refers to."]
        lines += [f"{name}=" if default is None else f"# {name}={default}" for name, default in sorted(named, key=str)]
    lines += model_source.settings(plan, with_folder=with_folder)
    return "\n".join(lines) + "\n"


def _variables(service: Service) -> Iterator[Reference]:
    """What a service refers to of the environment."""
    probe = service.health.argv if isinstance(service.health, Command) else ()
    for text in (*service.command, *service.environment.values(), *probe):
        yield from (reference for reference in references(text, service.name) if reference.kind == "env")


def _variable(service: Service) -> str:
    return f"ESTIBA_PORT_{service.name.upper().replace('-', '_')}"


def _volume(service: Service, name: str) -> str:
    return f"{service.name}-{name}"


def _place(service: Service, file: File) -> str:
    """Where a file lies beside compose.yaml: below its last name, unless two of a service share that."""
    target = PurePosixPath(file.target)
    alike = [other for other in service.files.values() if PurePosixPath(other.target).name == target.name]
    return f"{GENERATED}/{service.name}/{target.name if len(alike) == 1 else file.target.lstrip('/')}"


def _seconds(value: float) -> str:
    return f"{value:g}s"
