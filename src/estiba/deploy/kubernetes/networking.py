"""Network: how pods are reached, from where they may be, and the ways in from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from estiba.deploy.kubernetes import model_init_container
from estiba.deploy.kubernetes.config_maps import pods_name
from estiba.deploy.kubernetes.options import KubernetesOptions, canary_name
from estiba.deploy.kubernetes.workloads import labels, port_name, selector
from estiba.deploy.plan.plan import Plan, Service
from estiba.deploy.plan.references import references
from estiba.deploy.plan.service_options import MODELS


def service(plan: Plan, one: Service) -> dict[str, Any]:
    """The name and port under which others reach a service."""
    name = port_name(one)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": one.name, "labels": labels(plan, one)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector(plan, one),
            "ports": [{"name": name, "port": one.port, "targetPort": name, "protocol": "TCP"}],
        },
    }


def each_pod(plan: Plan, one: Service) -> Iterator[dict[str, Any]]:
    """The name of all pods of a service, ready or not, where the project's own Prometheus asks each of them."""
    if not one.metrics or not any(_reads(other, "prometheus") for other in plan.services):
        return
    # Without the labels of the service: a ServiceMonitor would find the same pods twice.
    own = {"app.kubernetes.io/part-of": plan.project, "app.kubernetes.io/managed-by": "estiba"}
    found = service(plan, one)
    found["metadata"] = {"name": pods_name(one), "labels": own}
    found["spec"] |= {"clusterIP": "None", "publishNotReadyAddresses": True}
    yield found


def callers(plan: Plan, one: Service) -> list[Service]:
    """The services that may open connections to one: they need it, refer to it, or scrape it."""
    return [other for other in plan.services if other.name != one.name and one.name in _called(plan, other)]


def _called(plan: Plan, one: Service) -> set[str]:
    found = set(one.needs)
    for text in (*one.command, *one.environment.values()):
        for reference in references(text, one.name):
            if reference.kind == "services":
                found.add(reference.name)
            elif reference.kind == "models":
                found.add(plan.serving(reference.name).name)
    generated = {file.generated for file in one.files.values()}
    if "prometheus" in generated:
        found |= {other.name for other in plan.services if other.metrics}
        found |= {other.name for other in plan.services if _reads(other, "alertmanager")}
    if "grafana" in generated:
        found |= {other.name for other in plan.services if _reads(other, "prometheus")}
    if "fluent-bit" in generated:
        found |= {other.name for other in plan.services if "elasticsearch" in other.image}
    return found


def _reads(one: Service, name: str) -> bool:
    return any(file.generated == name for file in one.files.values())


def default_policies() -> list[dict[str, Any]]:
    """Nobody talks to anybody, but everybody may ask for names."""
    deny = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    names = {
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [{"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}],
    }
    return [_policy("deny-all", deny), _policy("allow-dns", names)]


def policy(plan: Plan, one: Service, options: KubernetesOptions) -> dict[str, Any]:
    """Who may reach a service, and whom it may reach."""
    allowed: dict[str, Any] = {
        "podSelector": {"matchLabels": selector(plan, one)},
        "policyTypes": ["Ingress", "Egress"],
    }
    inward = [{"podSelector": {"matchLabels": selector(plan, other)}} for other in callers(plan, one)]
    if one.public and (options.host or options.gateway):
        inward.append(
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": options.ingress_namespace}}}
        )
    if one.metrics and options.monitoring:
        inward.append(
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": options.monitoring_namespace}}}
        )
    if inward and one.port is not None:
        allowed["ingress"] = [{"from": inward, "ports": [{"protocol": "TCP", "port": one.port}]}]
    outward: list[dict[str, Any]] = [
        {
            "to": [{"podSelector": {"matchLabels": selector(plan, plan[name])}}],
            "ports": [{"protocol": "TCP", "port": plan[name].port}],
        }
        for name in sorted(_called(plan, one))
        if plan[name].port is not None and name != one.name
    ]
    if plan.registry and one.models:
        outward += model_init_container.egress(plan, one, options.registry)
    if outward:
        allowed["egress"] = outward
    return _policy(one.name, allowed)


def _policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


def ways_in(plan: Plan, one: Service, options: KubernetesOptions) -> Iterator[dict[str, Any]]:
    """The Ingress or the route by which a public service is reached from outside."""
    if not one.public or one.port is None or not options.host:
        return
    host = options.host if one.name == MODELS else f"{one.name}.{options.host}"
    meta = {"name": one.name, "labels": labels(plan, one)}
    if options.gateway:
        yield _route(one, host, meta, options)
        return
    backend = {"service": {"name": one.name, "port": {"number": one.port}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec: dict[str, Any] = {"ingressClassName": options.ingress_class, "rules": [rule]}
    if options.tls_secret:
        spec["tls"] = [{"hosts": [host], "secretName": options.tls_secret}]
    yield {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


def _route(one: Service, host: str, meta: dict[str, Any], options: KubernetesOptions) -> dict[str, Any]:
    namespace, _, name = options.gateway.partition("/")
    canary = options.canary.get(one.name)
    backends = [{"name": one.name, "port": one.port, "weight": 100 - canary.weight if canary else 100}]
    if canary:
        backends.append({"name": canary_name(one.name), "port": one.port, "weight": canary.weight})
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
