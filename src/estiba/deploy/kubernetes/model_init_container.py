"""Render the init container that copies models from the registry into a pod whose image holds none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from estiba.core.errors import BadProject
from estiba.core.variables import CACHE_STORE, KEYS, LIMITS_STORE, SERVER_KEY_FILE, STATE
from estiba.deploy.kubernetes.options import RegistryOptions
from estiba.deploy.plan.model_source import MOUNT_PATH, RegistryServer, check_reachable, is_folder, registry_servers
from estiba.deploy.plan.plan import API_KEY, Plan, Service
from estiba.deploy.plan.references import references, resolve
from estiba.model.registry.mirror import pinned

NAME = "fetch-models"
"""Name of the init container; `models` is the name of a server's container."""

MODELS_VOLUME = "models"
"""Name of the volume that it fills."""

REGISTRY_VOLUME = "registry"
"""Name of the volume of a claim that holds the registry itself."""

REGISTRY_PATH = "/mnt/registry"

_SHARED: tuple[str, ...] = ("image", "imagePullPolicy", "env", "resources", "securityContext")
"""Settings that the init container shares with the server's container."""

_HTTPS_PORT = 443
_POSTGRES_PORT = 5432
_REDIS_PORT = 6379
_ALL_ADDRESSES = ("0.0.0.0/0", "::/0")


def check(plan: Plan, options: RegistryOptions) -> None:
    """Raise BadProject where pods could not reach the registry."""
    if not plan.registry:
        if options != RegistryOptions():
            hint = 'Set models = "registry" in [images], or remove the section.'
            raise BadProject("kubernetes.registry: the images hold the models, so pods use no registry.", hint=hint)
        return
    if is_folder(plan.registry) and not options.claim:
        raise BadProject(
            f"images.models: pods cannot reach the registry {plan.registry}, a folder of this machine.",
            hint="Set registry in [project] to object storage, such as s3://bucket/models; or copy it to a volume and "
            'set claim in [kubernetes.registry] to its claim. models = "image" needs neither.',
        )
    for text in options.networks:
        try:
            ip_network(text)
        except ValueError:
            hint = "Write a network such as 10.1.2.0/24, or 10.1.2.3/32."
            raise BadProject(f"kubernetes.registry.networks: {text!r} is not a network.", hint=hint) from None
    if options.claim and options.networks:
        hint = "Remove `networks` or `claim` from [kubernetes.registry]."
        raise BadProject(
            "kubernetes.registry.networks: pods read the registry from a volume, not from a network.", hint=hint
        )
    for service in _servers(plan):
        check_reachable(service.environment)


def _servers(plan: Plan) -> Iterator[Service]:
    return (service for service in plan.services if service.models)


def init_container(plan: Plan, service: Service, options: RegistryOptions, like: dict[str, Any]) -> dict[str, Any]:
    """Return the container that copies a server's models to the path that the server loads them from.

    It names versions by number and digest: those that the aliases had when the manifests were rendered. So the same
    manifests always run the same models, older manifests bring older ones back, and a moved alias changes the pods.

    Args:
        like: the server's container, whose image, limits and privileges it gets.
    """
    versions = [pinned(model.name, model.version, model.digest) for model in service.models]
    address = REGISTRY_PATH if options.claim else plan.registry
    for model in service.models:
        for alias in model.aliases:
            versions += ["--alias", f"{model.name}@{model.version}", alias]
    source = ["--registry", address, "--to", MOUNT_PATH, "--timeout", f"{options.timeout:g}"]
    shared = {key: like[key] for key in _SHARED if key in like}
    kept = [mount for mount in like["volumeMounts"] if mount["name"] in ("tmp", "secrets")]
    mounts = [*kept, {"name": MODELS_VOLUME, "mountPath": MOUNT_PATH}]
    if options.claim:
        mounts.append({"name": REGISTRY_VOLUME, "mountPath": REGISTRY_PATH, "readOnly": True})
    termination = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    arguments = {"args": ["models", "pull", *versions, *source]}
    return {"name": NAME, **shared, **arguments, **termination, "volumeMounts": mounts}


def server(plan: Plan, container: dict[str, Any]) -> dict[str, Any]:
    """Return the server's container beside it: it reads the copies, and has no credentials of the registry.

    Of its variables and secrets it has those of its state store, of limits, of the cache and of keys.
    """
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] != "secrets"]
    mounts.append({"name": MODELS_VOLUME, "mountPath": MOUNT_PATH, "readOnly": True})
    kept = (STATE, LIMITS_STORE, CACHE_STORE, KEYS, SERVER_KEY_FILE)
    variables = [each for each in container.get("env", ()) if each["name"] in kept]
    if variables:
        paths = {f"/run/secrets/{name}": name for name in (API_KEY, *_passwords(plan)) if name in plan.secrets}
        mounts += [
            {"name": "secrets", "mountPath": path, "subPath": name, "readOnly": True} for path, name in paths.items()
        ]
    rest = {key: value for key, value in container.items() if key != "env"}
    return rest | ({"env": variables} if variables else {}) | {"volumeMounts": mounts}


def _passwords(plan: Plan) -> Iterator[str]:
    return (ref.name for ref in references(plan.policies.url, "state.url") if ref.kind == "secrets")


def state_egress(plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the rule of a NetworkPolicy that allows a state store that is no service of the project."""
    parts = urlsplit(resolve(plan.policies.url, lambda _: ""))
    if plan.policies.service or plan.policies.store != "postgres" or not parts.hostname:
        return
    endpoint = RegistryServer(parts.hostname, parts.port or _POSTGRES_PORT)
    yield {"to": list(_peers(endpoint, RegistryOptions())), "ports": [{"protocol": "TCP", "port": endpoint.port}]}


def redis_egress(plan: Plan) -> Iterator[dict[str, Any]]:
    """Yield the rules of a NetworkPolicy that allow stores of limits and of the cache that the project does not run."""
    options = plan.policies.options
    urls = [options.limits.store, options.cache.store if options.cache.enabled else ""]
    addresses = {(parts.hostname, parts.port or _REDIS_PORT): None for parts in map(urlsplit, urls) if parts.hostname}
    for host, port in addresses:
        endpoint = RegistryServer(host, port)
        yield {"to": list(_peers(endpoint, RegistryOptions())), "ports": [{"protocol": "TCP", "port": port}]}


def volumes(service: Service, options: RegistryOptions) -> Iterator[dict[str, Any]]:
    """Yield the volume of the copies, large enough for all of them twice, as a damaged copy is fetched again."""
    mebibytes = 16 + math.ceil(2 * sum(model.size for model in service.models) / 2**20)
    yield {"name": MODELS_VOLUME, "emptyDir": {"sizeLimit": f"{mebibytes}Mi"}}
    if options.claim:
        yield {"name": REGISTRY_VOLUME, "persistentVolumeClaim": {"claimName": options.claim, "readOnly": True}}


def egress(plan: Plan, service: Service, options: RegistryOptions) -> Iterator[dict[str, Any]]:
    """Yield the rules of a NetworkPolicy that allow the registry: the servers that variables name, or all HTTPS.

    The addresses of a host name are not known here, so all addresses at its port are allowed, unless `networks` narrows
    them. For a Service of the cluster, its namespace is allowed at any port: policies see the port of the pod, which
    need not be that of the Service.
    """
    if options.claim:
        return
    servers = registry_servers(service.environment) or [RegistryServer("", _HTTPS_PORT)]
    for endpoint in dict.fromkeys(servers):
        peers = list(_peers(endpoint, options))
        ports = {} if "podSelector" in peers[0] else {"ports": [{"protocol": "TCP", "port": endpoint.port}]}
        yield {"to": peers, **ports}


def _peers(endpoint: RegistryServer, options: RegistryOptions) -> Iterator[dict[str, Any]]:
    if endpoint.is_address:
        bits = ip_address(endpoint.host).max_prefixlen
        yield {"ipBlock": {"cidr": f"{endpoint.host}/{bits}"}}
    elif options.networks:
        yield from ({"ipBlock": {"cidr": str(ip_network(network))}} for network in options.networks)
    elif endpoint.host and (namespace := _namespace(endpoint.host)) is not None:
        selector = (
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}} if namespace else {}
        )
        yield {**selector, "podSelector": {}}
    else:
        yield from ({"ipBlock": {"cidr": network}} for network in _ALL_ADDRESSES)


def _namespace(host: str) -> str | None:
    """Return the namespace of a Service from its name: `minio`, `minio.storage.svc`, `minio.storage.svc.cluster.local`.

    It is empty for the pod's own namespace, and None for names outside the cluster.
    """
    parts = host.split(".")
    if len(parts) == 1:
        return ""
    return parts[1] if parts[2:3] == ["svc"] else None
