"""Options of `[kubernetes]` in the project file."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Label = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class AutoscaleOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes.autoscale]`: the number of pods of a model server.

    Args:
        minimum: the number of pods, at least; also while a pod is moved or replaced.
        maximum: the number of pods, at most.
        cpu: target for the average use of processors, in percent of the processors that pods request.
        requests_per_second: target for each pod, from the metric estiba_requests_per_second of a metrics adapter; None
            scales by processors only.
    """

    minimum: Annotated[int, Meta(ge=1)] = 2
    maximum: Annotated[int, Meta(ge=1)] = 6
    cpu: Annotated[int, Meta(ge=1, le=100)] = 70
    requests_per_second: Annotated[float, Meta(gt=0)] | None = None


class CanaryOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes.canary.MODEL]`: a second version, beside the first, of a model with its own port.

    Args:
        alias: of the version in the registry.
        weight: percent of the requests that it gets.
        replicas: the number of pods.
    """

    alias: str = "candidate"
    weight: Annotated[int, Meta(ge=0, le=100)] = 10
    replicas: Annotated[int, Meta(ge=1)] = 1


class RegistryOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes.registry]`: access of pods to models that `models = "registry"` in `[images]` leaves out of images.

    Args:
        networks: networks that the registry is in, such as 10.1.2.0/24, where no variable has its IP address; pods may
            connect to no others. Without them they may connect to every address at its port.
        claim: the claim of a volume with a copy of the registry at its root, instead of object storage.
        timeout: seconds for a pod to fetch its models.
        annotations: of the service accounts of model servers, by which a cloud gives them access to the registry.
    """

    networks: tuple[str, ...] = ()
    claim: Annotated[str, Meta(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")] = ""
    timeout: Annotated[float, Meta(gt=0)] = 60.0
    annotations: dict[str, str] = {}


class KubernetesOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """`[kubernetes]` of the project file.

    Args:
        namespace: by default the project's name; overlays add their own to it.
        host: the domain of public services: `models` at it, others at a subdomain. Without one, only
            `kubectl port-forward` gives access from outside.
        ingress_class: of the Ingress.
        ingress_namespace: the namespace of the ingress controller's pods.
        gateway: of the Gateway API, as namespace/name; routes then replace the Ingress.
        tls_secret: the secret with the Ingress's certificate.
        storage_class: of volumes; by default the cluster's.
        storage: of each volume, such as 10Gi.
        shutdown_delay: seconds that a pod still answers after SIGTERM, until the cluster sends it no more requests.
        external_secrets: name of a ClusterSecretStore that secrets are taken from.
        monitoring: write a ServiceMonitor and a PrometheusRule for the Prometheus operator.
        monitoring_namespace: the namespace of Prometheus, if `monitoring` is on.
        canary: by model, a second version beside it; needs `gateway`.
        registry: access of pods to models that their image does not hold.
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
    """Return the name of the service of a model's canary."""
    return f"{model}-canary"
