"""Registry: how pods get models that their image does not hold: an init container copies them from the registry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

from estiba.core.errors import BadProject
from estiba.deploy.kubernetes.options import RegistryOptions
from estiba.deploy.plan.model_source import MOUNT_PATH, RegistryServer, check_reachable, is_folder, registry_servers
from estiba.deploy.plan.plan import Plan, Service
from estiba.model.registry.mirror import pinned

NAME = "fetch-models"
"""Of the init container; `models` is a server's."""

ROOM = "models"
"""The volume that it fills."""

CLAIM = "registry"
"""The volume of a claim that holds the registry itself."""

CLAIMED = "/mnt/registry"

_SHARED: tuple[str, ...] = ("image", "imagePullPolicy", "env", "resources", "securityContext")
"""What the init container has of the server's."""

_HTTPS = 443
_EVERYWHERE = ("0.0.0.0/0", "::/0")


def check(plan: Plan, options: RegistryOptions) -> None:
    """Raises BadProject where pods could not reach the registry."""
    if not plan.registry:
        if options != RegistryOptions():
            hint = 'Say models = "registry" in [images], or take this out.'
            raise BadProject("kubernetes.registry: the images hold the models, so nothing asks a registry.", hint=hint)
        return
    if is_folder(plan.registry) and not options.claim:
        raise BadProject(
            f"images.models: pods cannot reach the registry {plan.registry}, a folder of this machine.",
            hint="Set registry in [project] to object storage, such as s3://bucket/models; or copy it to a volume and "
            'name its claim: claim in [kubernetes.registry]. models = "image" needs neither.',
        )
    for text in options.networks:
        try:
            ip_network(text)
        except ValueError:
            hint = "Write such as 10.1.2.0/24, or 10.1.2.3/32."
            raise BadProject(f"kubernetes.registry.networks: {text!r} is no network.", hint=hint) from None
    if options.claim and options.networks:
        hint = "Take `networks` or `claim` out of [kubernetes.registry]."
        raise BadProject("kubernetes.registry.networks: pods that read a volume ask no address.", hint=hint)
    for service in _servers(plan):
        check_reachable(service.environment)


def _servers(plan: Plan) -> Iterator[Service]:
    return (service for service in plan.services if service.models)


def init_container(plan: Plan, service: Service, options: RegistryOptions, like: dict[str, Any]) -> dict[str, Any]:
    """The container that copies a server's models to where it looks for them.

    It asks for versions by number and digest: what an alias meant when this was written. So the same manifests always
    run the same models, going back brings the old ones, and a version that moved changes the pods.

    Args:
        like: the server's container, whose image, limits and rights it gets.
    """
    wanted = [pinned(model.name, model.version, model.digest) for model in service.models]
    address = CLAIMED if options.claim else plan.registry
    words = ["models", "pull", *wanted, "--registry", address, "--to", MOUNT_PATH, "--timeout", f"{options.timeout:g}"]
    found = {key: like[key] for key in _SHARED if key in like}
    kept = [mount for mount in like["volumeMounts"] if mount["name"] in ("tmp", "secrets")]
    mounts = [*kept, {"name": ROOM, "mountPath": MOUNT_PATH}]
    if options.claim:
        mounts.append({"name": CLAIM, "mountPath": CLAIMED, "readOnly": True})
    said = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    return {"name": NAME, **found, "args": words, **said, "volumeMounts": mounts}


def server(container: dict[str, Any]) -> dict[str, Any]:
    """The server's container beside it: it reads what was copied, and has no way into the registry."""
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] != "secrets"]
    mounts.append({"name": ROOM, "mountPath": MOUNT_PATH, "readOnly": True})
    return {key: value for key, value in container.items() if key != "env"} | {"volumeMounts": mounts}


def volumes(service: Service, options: RegistryOptions) -> Iterator[dict[str, Any]]:
    """Where the copies are, with room for all of them twice, as one that is damaged is fetched again."""
    room = 16 + math.ceil(2 * sum(model.size for model in service.models) / 2**20)
    yield {"name": ROOM, "emptyDir": {"sizeLimit": f"{room}Mi"}}
    if options.claim:
        yield {"name": CLAIM, "persistentVolumeClaim": {"claimName": options.claim, "readOnly": True}}


def egress(plan: Plan, service: Service, options: RegistryOptions) -> Iterator[dict[str, Any]]:
    """The way to the registry: to the servers that variables name, or to whatever answers HTTPS.

    What a name means cannot be known here, so the way to it is as wide as all addresses at its port, unless networks
    are named. A name of the cluster's own leads to its namespace at any port: policies see the port of the pod, which
    need not be that of its Service.
    """
    if options.claim:
        return
    found = registry_servers(service.environment) or [RegistryServer("", _HTTPS)]
    for endpoint in dict.fromkeys(found):
        peers = list(_peers(endpoint, options))
        at = {} if "podSelector" in peers[0] else {"ports": [{"protocol": "TCP", "port": endpoint.port}]}
        yield {"to": peers, **at}


def _peers(endpoint: RegistryServer, options: RegistryOptions) -> Iterator[dict[str, Any]]:
    if endpoint.is_address:
        wide = ip_address(endpoint.host).max_prefixlen
        yield {"ipBlock": {"cidr": f"{endpoint.host}/{wide}"}}
    elif options.networks:
        yield from ({"ipBlock": {"cidr": str(ip_network(network))}} for network in options.networks)
    elif endpoint.host and (space := _namespace(endpoint.host)) is not None:
        inside = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}}} if space else {}
        yield {**inside, "podSelector": {}}
    else:
        yield from ({"ipBlock": {"cidr": network}} for network in _EVERYWHERE)


def _namespace(host: str) -> str | None:
    """The namespace of a Service that a name means: `minio`, `minio.storage.svc`, `minio.storage.svc.cluster.local`;
    empty for the pod's own, None for names that are not the cluster's."""
    parts = host.split(".")
    if len(parts) == 1:
        return ""
    return parts[1] if parts[2:3] == ["svc"] else None
