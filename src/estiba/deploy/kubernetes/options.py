"""`[kubernetes]` of the project file."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Label = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class AutoscaleOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes.autoscale]`: how many pods serve models.

    Args:
        minimum: pods, at least; the number is kept while one is moved or replaced.
        maximum: pods, at most.
        cpu: percent of the processors that pods ask for, which they should use on average.
        requests_per_second: for each pod, from the metric estiba_requests_per_second of a metrics adapter; None leaves
            it to the processors.
    """

    minimum: Annotated[int, Meta(ge=1)] = 2
    maximum: Annotated[int, Meta(ge=1)] = 6
    cpu: Annotated[int, Meta(ge=1, le=100)] = 70
    requests_per_second: Annotated[float, Meta(gt=0)] | None = None


class CanaryOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes.canary.MODEL]`: a second version of a model with a port of its own, beside the first.

    Args:
        alias: of the version in the registry.
        weight: percent of the requests that it answers.
        replicas: pods.
    """

    alias: str = "candidate"
    weight: Annotated[int, Meta(ge=0, le=100)] = 10
    replicas: Annotated[int, Meta(ge=1)] = 1


class RegistryOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes.registry]`: how pods get models that `models = "registry"` in `[images]` keeps out of their image.

    Args:
        networks: addresses that the registry may have, such as 10.1.2.0/24, where variables name it by a name or not
            at all; pods may reach no others. Without them they may reach every address at its port.
        claim: of a volume that holds a copy of the registry, at its top, instead of object storage.
        timeout: seconds for a pod to fetch its models.
        annotations: of the service accounts of model servers, by which a cloud lets them into the registry.
    """

    networks: tuple[str, ...] = ()
    claim: Annotated[str, Meta(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")] = ""
    timeout: Annotated[float, Meta(gt=0)] = 60.0
    annotations: dict[str, str] = {}


class KubernetesOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes]` of the project file.

    Args:
        namespace: by default the project's name; overlays add their own to it.
        host: the domain under which public services are reached: `models` at it, others one below. Without one there
            is no way in from outside but `kubectl port-forward`.
        ingress_class: of the Ingress.
        ingress_namespace: of the pods that bring requests in.
        gateway: of the Gateway API, as namespace/name; routes then replace the Ingress.
        tls_secret: of the Ingress's certificate.
        storage_class: of volumes; by default the cluster's.
        storage: of each volume, such as 10Gi.
        shutdown_delay: seconds that a pod still answers while the cluster learns that it ends.
        external_secrets: name of a ClusterSecretStore, from which secrets are taken.
        monitoring: write a ServiceMonitor and a PrometheusRule for the Prometheus operator.
        monitoring_namespace: of the pods that scrape, if `monitoring` is on.
        canary: by model, another version beside it; needs `gateway`.
        registry: how pods get models that their image does not hold.
    """

    namespace: Label | None = None
    host: str = ""
    ingress_class: str = "nginx"
    ingress_namespace: Label = "ingress-nginx"
    gateway: Annotated[str, Meta(pattern=r"^([a-z0-9-]+/[a-z0-9-]+)?$")] = ""
    tls_secret: str = ""
    storage_class: str = ""
    storage: Annotated[str, Meta(pattern=r"^[0-9]+(Mi|Gi|Ti)$")] = "5Gi"
    shutdown_delay: Annotated[float, Meta(ge=0)] = 10.0
    external_secrets: str = ""
    monitoring: bool = False
    monitoring_namespace: Label = "monitoring"
    autoscale: AutoscaleOptions = AutoscaleOptions()
    canary: dict[str, CanaryOptions] = {}
    registry: RegistryOptions = RegistryOptions()


def canary_name(model: str) -> str:
    """The service of a model's other version."""
    return f"{model}-canary"
