"""Registry: where containers get their models from when images do not hold them, and how they reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from estiba.core.errors import BadProject
from estiba.deploy.plan.image_options import ImageOptions
from estiba.deploy.plan.plan import Plan, Service
from estiba.deploy.plan.references import references

PLACE = "/registry"
"""What a server in a container takes for its registry, unless its environment names another."""

CACHE = "/cache"
"""Where a server that asks a registry far away keeps artifacts."""

FOLDER = "ESTIBA_REGISTRY_FOLDER"
"""The variable of compose.yaml with the folder that the registry is."""

KEY = "images.registry_environment"

_PORTS = {"http": 80, "https": 443}


class Endpoint(NamedTuple):
    """What has to be reached: a host by its name or address."""

    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """Whether the host is an address and not a name."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_own(self) -> bool:
        """Whether it means whoever asks."""
        return self.host == "localhost" or (self.is_address and ip_address(self.host).is_loopback)


def is_folder(address: str) -> bool:
    """Whether a registry is a folder of this machine."""
    return "://" not in address or address.startswith("file://")


def endpoints(environment: Mapping[str, str]) -> list[Endpoint]:
    """Servers that variables name: of the registry, or on the way to it, such as AWS_ENDPOINT_URL and HTTPS_PROXY."""
    found = []
    for value in environment.values():
        parts = urlsplit(value)
        if parts.scheme in _PORTS and parts.hostname:
            found.append(Endpoint(parts.hostname, parts.port or _PORTS[parts.scheme]))
    return found


def secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the secrets that variables refer to, sorted."""
    found = {ref.name for text in environment.values() for ref in references(text, KEY) if ref.kind == "secrets"}
    return tuple(sorted(found))


def check(options: ImageOptions) -> None:
    """Looks at the variables as they are written in the project file.

    Raises:
        BadProject: there is no registry to ask, a reference to what the server of models does not have, or no port
            where one should be.
    """
    if options.registry_environment and options.models != "registry":
        hint = 'Say models = "registry" in [images], or take this out.'
        raise BadProject(f"{KEY}: the images hold the models, so nothing asks a registry.", hint=hint)
    for name, text in options.registry_environment.items():
        where = f"{KEY}.{name}"
        for reference in references(text, where):
            if reference.kind not in ("secrets", "env"):
                raise BadProject(f"{where}: only ${{secrets.NAME}} and ${{env.NAME}} can be referred to here.")
        try:
            endpoints({name: text})
        except ValueError as error:
            raise BadProject(f"{where}: {text!r} is no address: {error}.") from None


def check_reachable(environment: Mapping[str, str]) -> None:
    """Raises BadProject where a variable names this machine as itself: in a container that is the container."""
    for name, text in environment.items():
        if any(endpoint.is_own for endpoint in endpoints({name: text})):
            hint = "Name the server as containers reach it. Commands here ask $AWS_ENDPOINT_URL of this shell."
            raise BadProject(f"{KEY}.{name}: {text} means the container itself.", hint=hint)


def in_compose(plan: Plan) -> Plan:
    """The plan in which model servers ask a registry far away themselves, and follow it; a volume keeps what they got.

    Raises:
        BadProject: a variable names this machine as itself.
    """
    if not plan.registry or is_folder(plan.registry):
        return plan
    servers = (_asking(plan.registry, service) if service.models else service for service in plan.services)
    return replace(plan, services=tuple(servers))


def _asking(address: str, service: Service) -> Service:
    check_reachable(service.environment)
    environment = {"ESTIBA_REGISTRY": address.replace("$", "$$"), **service.environment}
    return replace(service, environment=environment, volumes={**service.volumes, "cache": CACHE})


def mounts(plan: Plan, service: Service) -> list[dict[str, Any]]:
    """A registry that is a folder, where a model server in Compose reads and follows it."""
    if not (plan.registry and service.models and is_folder(plan.registry)):
        return []
    source = f"${{{FOLDER}:?the folder of the registry: set it in .env}}"
    # Without it Docker would make an empty folder, and the server would say that it has no model.
    there = {"create_host_path": False}
    return [{"type": "bind", "source": source, "target": PLACE, "read_only": True, "bind": there}]


def settings(plan: Plan, *, with_folder: bool) -> list[str]:
    """Lines of .env about it; the folder is this machine's, and so no part of an example."""
    if not (plan.registry and is_folder(plan.registry)):
        return []
    place = plan.registry.removeprefix("file://") if with_folder else ""
    about = "# The registry's folder: model servers read it, and follow what is released there."
    return ["", about, f"{FOLDER}={_quoted(place)}"]


def _quoted(text: str) -> str:
    """A value of .env in which nothing is looked up."""
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'" if text else ""
