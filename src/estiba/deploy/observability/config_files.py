"""Render the configuration files of Prometheus, Alertmanager, Grafana and Fluent Bit from a plan.

A service mounts one of them as `estiba:NAME`:

| name | contents |
|---|---|
| `prometheus` | prometheus.yml, which scrapes every service that has `metrics` |
| `alerts` | alerting rules, to be mounted beside the configuration of Prometheus as `alerts.yml` |
| `alertmanager` | alertmanager.yml, which groups alerts; they are sent nowhere until a receiver is added |
| `grafana` | a folder: the data source, and the dashboards |
| `fluent-bit` | fluent-bit.yaml, which forwards logs from Docker (`logging` in `[compose]`) to Elasticsearch |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from estiba.core.errors import BadProject
from estiba.deploy.observability import alerts, dashboards
from estiba.deploy.output import yaml
from estiba.deploy.plan.plan import API_KEY, File, Plan, Service


@dataclass(frozen=True)
class Surroundings:
    """Addresses and paths of the target that a plan runs on.

    Args:
        address: `host:port` at which one service reaches another.
        path: the path of a file of a service, as the service sees it.
        replicas: a DNS name of all replicas of a service; None where `address` is the only one.
        secret: the path of the file of a secret.
    """

    address: Callable[[Service], str]
    path: Callable[[Service, File], str]
    replicas: Callable[[Service], str] | None = None
    secret: Callable[[str], str] = "/run/secrets/{}".format


def in_containers(plan: Plan) -> Surroundings:
    """Return the surroundings of containers: services by their DNS name, files at their target."""
    return Surroundings(
        lambda service: f"{service.name}:{service.port}",
        lambda service, file: file.target,
        lambda service: service.name,
    )


def generate(plan: Plan, service: Service, file: File, surroundings: Surroundings) -> Mapping[str, str]:
    """Render `estiba:NAME`: texts by relative path, or one at "" where it is a single file.

    Raises:
        BadProject: there is no such name.
    """
    match file.generated:
        case "prometheus":
            return {"": yaml.render(_prometheus(plan, service, surroundings))}
        case "alerts":
            return {"": alerts.render(plan)}
        case "alertmanager":
            return {"": yaml.render(_ALERTMANAGER)}
        case "grafana":
            return _grafana(plan, surroundings, surroundings.path(service, file))
        case "fluent-bit":
            return {"": yaml.render(_fluent_bit(plan, surroundings))}
    known = "prometheus, alerts, alertmanager, grafana, fluent-bit"
    raise BadProject(f"services.{service.name}.files: there is no estiba:{file.generated}.", hint=f"Known: {known}.")


def _mounting(plan: Plan, name: str) -> Service | None:
    """Return the service that mounts `estiba:NAME`."""
    return next((s for s in plan.services if any(file.generated == name for file in s.files.values())), None)


def _prometheus(plan: Plan, service: Service, surroundings: Surroundings) -> dict[str, Any]:
    scraped = [other for other in plan.services if other.metrics]
    config: dict[str, Any] = {
        "global": {"scrape_interval": "10s", "evaluation_interval": "10s"},
        "scrape_configs": [
            {
                "job_name": other.name,
                "metrics_path": other.metrics,
                **_authorization(plan, other, surroundings),
                **_targets(other, surroundings, plan.project),
            }
            for other in scraped
        ],
    }
    if any(file.generated == "alerts" for file in service.files.values()):
        config["rule_files"] = ["alerts.yml"]
    manager = _mounting(plan, "alertmanager")
    if manager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [surroundings.address(manager)]}]}]}
    return config


def _authorization(plan: Plan, service: Service, surroundings: Surroundings) -> dict[str, Any]:
    """Return the key for the metrics of a model server, where it asks for one."""
    if not (service.models and plan.policies.needs_keys):
        return {}
    return {"authorization": {"credentials_file": surroundings.secret(API_KEY)}}


def _targets(service: Service, surroundings: Surroundings, project: str) -> dict[str, Any]:
    """Return the targets of a service: each replica, as scrapes of one address would reach another each time."""
    if surroundings.replicas is None:
        return {"static_configs": [{"targets": [surroundings.address(service)], "labels": {"project": project}}]}
    return {
        "dns_sd_configs": [
            {"names": [surroundings.replicas(service)], "type": "A", "port": service.port, "refresh_interval": "10s"}
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


def _grafana(plan: Plan, surroundings: Surroundings, path: str) -> dict[str, str]:
    prometheus = _mounting(plan, "prometheus")
    if prometheus is None:
        hint = 'Add a service with files.config = "estiba:prometheus:/etc/prometheus/prometheus.yml".'
        raise BadProject("estiba:grafana: the project has no service that runs Prometheus.", hint=hint)
    source = {
        "name": "Prometheus",
        **dashboards.SOURCE,
        "url": f"http://{surroundings.address(prometheus)}",
        "isDefault": True,
        "jsonData": {"timeInterval": "10s"},
    }
    provider = {"name": "estiba", "type": "file", "options": {"path": f"{path}/dashboards"}}
    return {
        "datasources/estiba.yaml": yaml.render({"apiVersion": 1, "datasources": [source]}),
        "dashboards/estiba.yaml": yaml.render({"apiVersion": 1, "providers": [provider]}),
        "dashboards/models.json": dashboards.render(),
    }


def _fluent_bit(plan: Plan, surroundings: Surroundings) -> dict[str, Any]:
    store = next((service for service in plan.services if "elasticsearch" in service.image), None)
    if store is None:
        raise BadProject("estiba:fluent-bit: the project has no service that runs Elasticsearch.")
    host, _, port = surroundings.address(store).rpartition(":")
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
