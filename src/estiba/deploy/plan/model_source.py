"""The registry that containers get their models from if the images do not hold them."""

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

MOUNT_PATH = "/registry"
"""The folder in a container that a model server uses as its registry, unless its environment names another."""

CACHE = "/cache"
"""The folder in a container for artifacts that were fetched from a remote registry."""

FOLDER = "ESTIBA_REGISTRY_FOLDER"
"""The variable of compose.yaml with the folder of the registry on the host."""

KEY = "images.registry_environment"

_PORTS = {"http": 80, "https": 443}


class RegistryServer(NamedTuple):
    """A server that containers have to reach, by host name or address."""

    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """True if the host is an IP address and not a name."""
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def is_loopback(self) -> bool:
        """True if the host is the machine or container that connects to it."""
        return self.host == "localhost" or (self.is_address and ip_address(self.host).is_loopback)


def is_folder(address: str) -> bool:
    """True if a registry is a folder of this machine."""
    return "://" not in address or address.startswith("file://")


def registry_servers(environment: Mapping[str, str]) -> list[RegistryServer]:
    """Servers in URLs of variables: of the registry, or proxies to it, such as AWS_ENDPOINT_URL and HTTPS_PROXY."""
    servers = []
    for value in environment.values():
        parts = urlsplit(value)
        if parts.scheme in _PORTS and parts.hostname:
            servers.append(RegistryServer(parts.hostname, parts.port or _PORTS[parts.scheme]))
    return servers


def secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the secrets that variables refer to, sorted."""
    names = {ref.name for text in environment.values() for ref in references(text, KEY) if ref.kind == "secrets"}
    return tuple(sorted(names))


def check(options: ImageOptions) -> None:
    """Check the variables as they are written in the project file.

    Raises:
        BadProject: the images hold the models, a reference that is neither a secret nor a variable, or a bad port.
    """
    if options.registry_environment and options.models != "registry":
        hint = 'Set models = "registry" in [images], or remove this section.'
        raise BadProject(f"{KEY}: the images hold the models, so no registry is used.", hint=hint)
    for name, text in options.registry_environment.items():
        where = f"{KEY}.{name}"
        for reference in references(text, where):
            if reference.kind not in ("secrets", "env"):
                raise BadProject(f"{where}: only ${{secrets.NAME}} and ${{env.NAME}} can be referred to here.")
        try:
            registry_servers({name: text})
        except ValueError as error:
            raise BadProject(f"{where}: {text!r} is not a valid URL: {error}.") from None


def check_reachable(environment: Mapping[str, str]) -> None:
    """Raise BadProject if a variable names a loopback address: in a container that is the container itself."""
    for name, text in environment.items():
        if any(server.is_loopback for server in registry_servers({name: text})):
            hint = "Use the name that containers reach it by. Commands here use $AWS_ENDPOINT_URL of the shell."
            raise BadProject(f"{KEY}.{name}: {text} means the container itself.", hint=hint)


def in_compose(plan: Plan) -> Plan:
    """Let model servers follow a remote registry; a volume keeps the artifacts that they fetched.

    Raises:
        BadProject: a variable names a loopback address.
    """
    if not plan.registry or is_folder(plan.registry):
        return plan
    servers = (_following(plan.registry, service) if service.models else service for service in plan.services)
    return replace(plan, services=tuple(servers))


def _following(address: str, service: Service) -> Service:
    check_reachable(service.environment)
    environment = {"ESTIBA_REGISTRY": address.replace("$", "$$"), **service.environment}
    return replace(service, environment=environment, volumes={**service.volumes, "cache": CACHE})


def mounts(plan: Plan, service: Service) -> list[dict[str, Any]]:
    """The mount of a registry folder, which a model server in Compose follows."""
    if not (plan.registry and service.models and is_folder(plan.registry)):
        return []
    source = f"${{{FOLDER}:?the folder of the registry: set it in .env}}"
    # Else Docker would create an empty folder, and the server would report that there is no model.
    options = {"create_host_path": False}
    return [{"type": "bind", "source": source, "target": MOUNT_PATH, "read_only": True, "bind": options}]


def settings(plan: Plan, *, with_folder: bool) -> list[str]:
    """Lines of .env for a registry folder; an example has no path, as that is of this machine."""
    if not (plan.registry and is_folder(plan.registry)):
        return []
    path = plan.registry.removeprefix("file://") if with_folder else ""
    comment = "# The folder of the registry: model servers read it and follow new versions."
    return ["", comment, f"{FOLDER}={_quoted(path)}"]


def _quoted(text: str) -> str:
    """A value of .env in single quotes, in which nothing is expanded."""
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'" if text else ""
