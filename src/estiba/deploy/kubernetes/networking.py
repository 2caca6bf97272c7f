"""Render how pods are reached: Services, NetworkPolicies, and the Ingress or the route from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from estiba.core.variables import STATE
from estiba.deploy.kubernetes import model_init_container
from estiba.deploy.kubernetes.config_maps import headless_name
from estiba.deploy.kubernetes.options import KubernetesOptions, canary_name
from estiba.deploy.kubernetes.workloads import labels, port_name, selector
from estiba.deploy.plan.plan import Plan, Service
from estiba.deploy.plan.references import references
from estiba.deploy.plan.service_options import MODELS


def service_object(plan: Plan, service: Service) -> dict[str, Any]:
    """Return the Service, by whose name and port other services reach a service."""
    name = port_name(service)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.name, "labels": labels(plan, service)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector(plan, service),
            "ports": [{"name": name, "port": service.port, "targetPort": name, "protocol": "TCP"}],
        },
    }


def headless_service(plan: Plan, service: Service) -> Iterator[dict[str, Any]]:
    """Yield a headless Service of all pods, ready or not, where the project's own Prometheus scrapes each of them."""
    if not service.metrics or not any(_mounts_generated(other, "prometheus") for other in plan.services):
        return
    # Without the labels of the service: a ServiceMonitor would find the same pods twice.
    project_labels = {"app.kubernetes.io/part-of": plan.project, "app.kubernetes.io/managed-by": "estiba"}
    headless = service_object(plan, service)
    headless["metadata"] = {"name": headless_name(service), "labels": project_labels}
    headless["spec"] |= {"clusterIP": "None", "publishNotReadyAddresses": True}
    yield headless


def callers(plan: Plan, service: Service) -> list[Service]:
    """Return the services that may connect to a service: they need it, refer to it, or scrape it."""
    return [other for other in plan.services if other.name != service.name and service.name in _called(plan, other)]


def _called(plan: Plan, service: Service) -> set[str]:
    names = set(service.needs)
    for text in (*service.command, *service.environment.values()):
        for reference in references(text, service.name):
            if reference.kind == "services":
                names.add(reference.name)
            elif reference.kind == "models":
                names.add(plan.serving(reference.name).name)
    generated = {file.generated for file in service.files.values()}
    if "prometheus" in generated:
        names |= {other.name for other in plan.services if other.metrics}
        names |= {other.name for other in plan.services if _mounts_generated(other, "alertmanager")}
    if "grafana" in generated:
        names |= {other.name for other in plan.services if _mounts_generated(other, "prometheus")}
    if "fluent-bit" in generated:
        names |= {other.name for other in plan.services if "elasticsearch" in other.image}
    return names


def _mounts_generated(service: Service, name: str) -> bool:
    return any(file.generated == name for file in service.files.values())


def default_policies() -> list[dict[str, Any]]:
    """Return policies that deny all traffic but DNS."""
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    dns = {
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [{"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}],
    }
    return [_policy("deny-all", deny), _policy("allow-dns", dns)]


def policy(plan: Plan, service: Service, options: KubernetesOptions) -> dict[str, Any]:
    """Return the NetworkPolicy of a service: its allowed callers, and the services that it may call."""
    allowed: dict[str, Any] = {
        "podSelector": {"matchLabels": selector(plan, service)},
        "policyTypes": ["Ingress", "Egress"],
    }
    sources = [{"podSelector": {"matchLabels": selector(plan, other)}} for other in callers(plan, service)]
    if service.public and (options.host or options.gateway):
        sources.append(
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": options.ingress_namespace}}}
        )
    if service.metrics and options.monitoring:
        sources.append(
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": options.monitoring_namespace}}}
        )
    if sources and service.port is not None:
        allowed["ingress"] = [{"from": sources, "ports": [{"protocol": "TCP", "port": service.port}]}]
    egress: list[dict[str, Any]] = [
        {
            "to": [{"podSelector": {"matchLabels": selector(plan, plan[name])}}],
            "ports": [{"protocol": "TCP", "port": plan[name].port}],
        }
        for name in sorted(_called(plan, service))
        if plan[name].port is not None and name != service.name
    ]
    if plan.registry and service.models:
        egress += model_init_container.egress(plan, service, options.registry)
    if service.models and STATE in service.environment:
        egress += model_init_container.state_egress(plan)
    if service.models:
        egress += model_init_container.redis_egress(plan)
    if egress:
        allowed["egress"] = egress
    return _policy(service.name, allowed)


def _policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def external_routes(plan: Plan, service: Service, options: KubernetesOptions) -> Iterator[dict[str, Any]]:
    """Yield the Ingress or the HTTPRoute by which a public service is reached from outside."""
    if not service.public or service.port is None or not options.host:
        return
    host = options.host if service.name == MODELS else f"{service.name}.{options.host}"
    meta = {"name": service.name, "labels": labels(plan, service)}
    if options.gateway:
        yield _route(service, host, meta, options)
        return
    backend = {"service": {"name": service.name, "port": {"number": service.port}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec: dict[str, Any] = {"ingressClassName": options.ingress_class, "rules": [rule]}
    if options.tls_secret:
        spec["tls"] = [{"hosts": [host], "secretName": options.tls_secret}]
    yield {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


def _route(service: Service, host: str, meta: dict[str, Any], options: KubernetesOptions) -> dict[str, Any]:
    namespace, _, name = options.gateway.partition("/")
    canary = options.canary.get(service.name)
    backends = [{"name": service.name, "port": service.port, "weight": 100 - canary.weight if canary else 100}]
    if canary:
        backends.append({"name": canary_name(service.name), "port": service.port, "weight": canary.weight})
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": meta,
        "spec": {
            "parentRefs": [{"namespace": namespace, "name": name}],
            "hostnames": [host],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends}],
        },
    }
