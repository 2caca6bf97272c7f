"""Render a plan as plain manifests: a kustomize base, a component for each profile, and overlays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from estiba.core.errors import BadProject
from estiba.deploy.kubernetes import autoscaling, config_maps, model_init_container, networking, workloads
from estiba.deploy.kubernetes.options import KubernetesOptions, canary_name
from estiba.deploy.observability import alerts
from estiba.deploy.output import yaml
from estiba.deploy.output.files import Rendered
from estiba.deploy.plan.plan import API_KEY, Plan, Service
from estiba.deploy.plan.service_options import MODELS

OVERLAYS = ("dev", "staging", "production")


def render(plan: Plan, options: KubernetesOptions) -> Rendered:
    """Render the files of a kustomize project.

    Args:
        plan: with the services of canaries, if the options name any.

    Raises:
        BadProject: a setting that Kubernetes, or these options, cannot honour.
    """
    _check(plan, options)
    texts = {}
    for service in plan.services:
        folder = f"components/{service.profile}" if plan.profiles_of(service) else "base"
        texts[f"{folder}/{service.name}.yaml"] = yaml.render_all(list(_objects(plan, service, options)))
    texts["base/common.yaml"] = yaml.render_all(list(_common(plan, options)))
    if options.monitoring:
        texts["components/operator/monitoring.yaml"] = yaml.render_all(list(_operator(plan)))
    for folder in sorted({path.rpartition("/")[0] for path in texts}):
        names = sorted(path.rpartition("/")[2] for path in texts if path.rpartition("/")[0] == folder)
        texts[f"{folder}/kustomization.yaml"] = yaml.render(_kustomization(folder, names))
    overlays = {f"overlays/{name}/{file}": text for name in OVERLAYS for file, text in _overlay(plan, options, name)}
    return Rendered(texts, overlays)


def _objects(plan: Plan, service: Service, options: KubernetesOptions) -> Iterator[dict[str, Any]]:
    meta: dict[str, Any] = {"name": service.name, "labels": workloads.labels(plan, service)}
    if service.models and options.registry.annotations:
        meta["annotations"] = options.registry.annotations
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta, "automountServiceAccountToken": False}
    for name in service.files:
        config_map = config_maps.config_map(plan, service, name)
        config_map["metadata"]["labels"] = workloads.labels(plan, service)
        yield config_map
    yield from workloads.claims(plan, service, options)
    yield workloads.workload(plan, service, options)
    if service.port is not None:
        yield networking.service_object(plan, service)
        yield from networking.headless_service(plan, service)
    yield networking.policy(plan, service, options)
    yield from networking.external_routes(plan, service, options)
    if service.models:
        canary = {canary_name(name): canary for name, canary in options.canary.items()}.get(service.name)
        scale = options.autoscale
        if canary is not None:
            maximum = max(canary.replicas, scale.maximum)
            scale = msgspec.structs.replace(scale, minimum=canary.replicas, maximum=maximum)
        if not service.volumes:  # a StatefulSet with a state store in SQLite has one pod
            yield autoscaling.autoscaler(plan, service, scale)
        yield autoscaling.disruption_budget(plan, service)


def _common(plan: Plan, options: KubernetesOptions) -> Iterator[dict[str, Any]]:
    yield from networking.default_policies()
    settings = workloads.settings(plan)
    if settings:
        # A variable without a default has no key: pods that need it do not start, and their events name the key.
        defaults = {name: value for name, value in settings.items() if value is not None}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": workloads.SETTINGS}, "data": defaults}
    if options.external_secrets:
        yield from (_external(plan, name, options) for name in plan.secrets)


def _external(plan: Plan, name: str, options: KubernetesOptions) -> dict[str, Any]:
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": workloads.secret_name(name)},
        "spec": {
            "refreshInterval": "1h",
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": options.external_secrets},
            "target": {"name": workloads.secret_name(name)},
            "data": [{"secretKey": "value", "remoteRef": {"key": f"{plan.project}/{name}"}}],
        },
    }


def _kustomization(folder: str, resources: list[str]) -> dict[str, Any]:
    if folder == "base":
        return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}
    return {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "resources": resources}


def _overlay(plan: Plan, options: KubernetesOptions, name: str) -> Iterator[tuple[str, str]]:
    """Yield the files of an overlay, which are written once: the namespace, the components, and patches."""
    overlay_namespace = namespace(plan, options, name)
    profiles = sorted({service.profile for service in plan.services if plan.profiles_of(service)})
    components = [f"../../components/{profile}" for profile in profiles]
    components += ["../../components/operator"] * options.monitoring
    content: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": overlay_namespace,
        "resources": ["namespace.yaml", "../../base"],
    }
    if name == "dev":
        content["patches"] = [
            {"target": {"kind": kind}, "patch": yaml.render(patch)} for kind, patch in _DEV_PATCHES.items()
        ]
    text = f"# {name}: written once by `estiba kubernetes`, and yours to edit. Apply it with:\n"
    text += f"#   estiba deploy kubernetes {name}\n"
    text += yaml.render(content)
    if components:
        text += "# Components that can be included. What production names, staging should have had before:\n"
        text += "# components:\n" + "".join(f"#   - {path}\n" for path in components)
    yield "kustomization.yaml", text
    yield "namespace.yaml", yaml.render(_namespace_object(overlay_namespace))


_DEV_PATCHES: dict[str, dict[str, Any]] = {
    "HorizontalPodAutoscaler": {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "any"},
        "spec": {"minReplicas": 1, "maxReplicas": 1},
    },
}


def namespace(plan: Plan, options: KubernetesOptions, overlay: str) -> str:
    """Return the namespace of an overlay as it is first written."""
    name = options.namespace or plan.project
    return name if overlay == "production" else f"{name}-{overlay}"


def _namespace_object(name: str) -> dict[str, Any]:
    """Return a namespace that admits only pods of the restricted standard."""
    standard = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": standard}}


def _operator(plan: Plan) -> Iterator[dict[str, Any]]:
    for service in plan.services:
        if service.metrics:
            endpoint: dict[str, Any] = {"port": workloads.port_name(service), "path": service.metrics}
            endpoint["interval"] = "15s"
            if service.models and plan.policies.needs_keys:
                key = {"name": workloads.secret_name(API_KEY), "key": "value"}
                endpoint["authorization"] = {"type": "Bearer", "credentials": key}
            yield {
                "apiVersion": "monitoring.coreos.com/v1",
                "kind": "ServiceMonitor",
                "metadata": {"name": service.name, "labels": workloads.labels(plan, service)},
                "spec": {
                    "selector": {"matchLabels": workloads.selector(plan, service)},
                    "jobLabel": "app.kubernetes.io/name",
                    "endpoints": [endpoint],
                },
            }
    yield {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": plan.project},
        "spec": {"groups": alerts.groups(plan)},
    }


def _check(plan: Plan, options: KubernetesOptions) -> None:
    model_init_container.check(plan, options.registry)
    if options.autoscale.maximum < options.autoscale.minimum:
        raise BadProject("kubernetes.autoscale.maximum: must be at least the minimum.")
    if options.canary and not (options.gateway and options.host):
        hint = "Only routes of the Gateway API can split requests: set gateway and host."
        raise BadProject("kubernetes.canary: needs kubernetes.gateway and kubernetes.host.", hint=hint)
    names = {service.name for service in plan.services if service.models and service.name != MODELS}
    for name in options.canary:
        if name not in names:
            raise BadProject(f"kubernetes.canary.{name}: there is no model {name!r} with its own port.")
    for service in plan.services:
        if service.user == 0:
            raise BadProject(
                f"services.{service.name}.user: the namespace admits no pods that run as root.",
                hint="Set another user.",
            )
        if service.build is None and service.user is None:
            hint = "Set the number of a user that its image can run as."
            raise BadProject(
                f"services.{service.name}.user: required, because the image may run as root.",
                hint=hint,
            )
        if service.volumes and service.replicas > 1:
            raise BadProject(f"services.{service.name}.replicas: a service with volumes cannot have several replicas.")
