"""Observability: the files that Prometheus, Alertmanager, Grafana and Fluent Bit read, made from a plan.

A service mounts one of them as `estiba:NAME`:

| name | is |
|---|---|
| `prometheus` | prometheus.yml, which scrapes every service that has `metrics` |
| `alerts` | the rules that Prometheus checks, to be mounted beside its configuration as `alerts.yml` |
| `alertmanager` | alertmanager.yml, which groups alerts and keeps them until a receiver is named |
| `grafana` | a folder: the data source, and the dashboards |
| `fluent-bit` | fluent-bit.yaml: logs that Docker sends (`logging` in `[compose]`), to Elasticsearch |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from estiba.core.errors import BadProject
from estiba.deploy.observability import alerts, dashboards
from estiba.deploy.output import yaml
from estiba.deploy.plan.plan import File, Plan, Service


@dataclass(frozen=True)
class Surroundings:
    """Where a plan runs.

    Args:
        address: `host:port` at which one service reaches another.
        place: the path at which a service finds a file of its own.
        replicas: a name that leads to each replica of a service; None where `address` is the only one.
    """

    address: Callable[[Service], str]
    place: Callable[[Service, File], str]
    replicas: Callable[[Service], str] | None = None


def in_containers(plan: Plan) -> Surroundings:
    """Every service by its name, which leads to each of its containers, and every file at its target."""
    return Surroundings(
        lambda service: f"{service.name}:{service.port}",
        lambda service, file: file.target,
        lambda service: service.name,
    )


def generate(plan: Plan, service: Service, file: File, around: Surroundings) -> Mapping[str, str]:
    """What `estiba:NAME` is: texts by path below it, or one at "" where it is a single file.

    Raises:
        BadProject: there is no such name.
    """
    match file.generated:
        case "prometheus":
            return {"": yaml.render(_prometheus(plan, service, around))}
        case "alerts":
            return {"": alerts.render(plan)}
        case "alertmanager":
            return {"": yaml.render(_ALERTMANAGER)}
        case "grafana":
            return _grafana(plan, around, around.place(service, file))
        case "fluent-bit":
            return {"": yaml.render(_fluent_bit(plan, around))}
    known = "prometheus, alerts, alertmanager, grafana, fluent-bit"
    raise BadProject(f"services.{service.name}.files: there is no estiba:{file.generated}.", hint=f"Known: {known}.")


def _mounting(plan: Plan, name: str) -> Service | None:
    """The service that reads `estiba:NAME`."""
    return next((s for s in plan.services if any(file.generated == name for file in s.files.values())), None)


def _prometheus(plan: Plan, service: Service, around: Surroundings) -> dict[str, Any]:
    scraped = [other for other in plan.services if other.metrics]
    found: dict[str, Any] = {
        "global": {"scrape_interval": "10s", "evaluation_interval": "10s"},
        "scrape_configs": [
            {
                "job_name": other.name,
                "metrics_path": other.metrics,
                **_targets(other, around, plan.project),
            }
            for other in scraped
        ],
    }
    if any(file.generated == "alerts" for file in service.files.values()):
        found["rule_files"] = ["alerts.yml"]
    manager = _mounting(plan, "alertmanager")
    if manager is not None:
        found["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [around.address(manager)]}]}]}
    return found


def _targets(service: Service, around: Surroundings, project: str) -> dict[str, Any]:
    """Where a service is scraped: each of its replicas, as behind one address each scrape would ask another."""
    if around.replicas is None:
        return {"static_configs": [{"targets": [around.address(service)], "labels": {"project": project}}]}
    return {
        "dns_sd_configs": [
            {"names": [around.replicas(service)], "type": "A", "port": service.port, "refresh_interval": "10s"}
        ],
        "relabel_configs": [{"target_label": "project", "replacement": project}],
    }


_ALERTMANAGER: dict[str, Any] = {
    "route": {
        "receiver": "nobody",
        "group_by": ["alertname", "job"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "4h",
        "routes": [{"matchers": ['severity="critical"'], "receiver": "nobody", "repeat_interval": "1h"}],
    },
    "inhibit_rules": [
        {"source_matchers": ['alertname="ServiceDown"'], "target_matchers": ['severity="warning"'], "equal": ["job"]}
    ],
    "receivers": [{"name": "nobody"}],
}


def _grafana(plan: Plan, around: Surroundings, place: str) -> dict[str, str]:
    prometheus = _mounting(plan, "prometheus")
    if prometheus is None:
        hint = 'Add a service with files.config = "estiba:prometheus:/etc/prometheus/prometheus.yml".'
        raise BadProject("estiba:grafana: no service of the project is a Prometheus.", hint=hint)
    source = {
        "name": "Prometheus",
        **dashboards.SOURCE,
        "url": f"http://{around.address(prometheus)}",
        "isDefault": True,
        "jsonData": {"timeInterval": "10s"},
    }
    provider = {"name": "estiba", "type": "file", "options": {"path": f"{place}/dashboards"}}
    return {
        "datasources/estiba.yaml": yaml.render({"apiVersion": 1, "datasources": [source]}),
        "dashboards/estiba.yaml": yaml.render({"apiVersion": 1, "providers": [provider]}),
        "dashboards/models.json": dashboards.render(),
    }


def _fluent_bit(plan: Plan, around: Surroundings) -> dict[str, Any]:
    store = next((service for service in plan.services if "elasticsearch" in service.image), None)
    if store is None:
        raise BadProject("estiba:fluent-bit: no service of the project is an Elasticsearch.")
    host, _, port = around.address(store).rpartition(":")
    return {
        "service": {"flush": 1, "log_level": "info", "http_server": True, "http_port": 2020, "health_check": True},
        "pipeline": {
            "inputs": [{"name": "forward", "listen": "0.0.0.0", "port": 24224, "mem_buf_limit": "16MB"}],
            "filters": [
                {"name": "modify", "match": "*", "add": f"project {plan.project}"},
            ],
            "outputs": [
                {
                    "name": "es",
                    "match": "*",
                    "host": host,
                    "port": int(port),
                    "logstash_format": True,
                    "logstash_prefix": plan.project,
                    "suppress_type_name": True,
                    "retry_limit": 10,
                }
            ],
        },
    }
