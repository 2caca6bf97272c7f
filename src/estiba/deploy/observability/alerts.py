"""Render alerting rules for Prometheus over the metrics of model servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from estiba.deploy.output import yaml
from estiba.deploy.plan.plan import Plan


@dataclass(frozen=True)
class Alert:
    """One alerting rule.

    Args:
        left, limit: the alert fires where `left` is more than `limit`.
        lasting: the duration of that, in Prometheus notation, before the alert fires.
        severity: `critical` needs a person at once, `warning` during working hours.
        summary: the problem, with labels in `{{ }}`. action: advice for the operator.
    """

    name: str
    left: str
    limit: str
    lasting: str
    severity: str
    summary: str
    action: str

    @property
    def expression(self) -> str:
        return f"{self.left} > {self.limit}"


def alerts(plan: Plan) -> tuple[Alert, ...]:
    """Return the rules for a plan."""
    return (*_SERVING, *_memory(plan))


def render(plan: Plan) -> str:
    """Render the rules in the file format of Prometheus."""
    return yaml.render({"groups": groups(plan)})


def groups(plan: Plan) -> list[dict[str, Any]]:
    """Return the rules as values."""
    return [{"name": "estiba", "rules": [_rule(alert) for alert in alerts(plan)]}]


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "description": alert.action},
    }


def _memory(plan: Plan) -> list[Alert]:
    return [
        Alert(
            "MemoryNearLimit",
            f'process_resident_memory_bytes{{job="{service.name}"}}',
            f"{round(0.9 * service.memory)}",
            "5m",
            "warning",
            f"{service.name} uses more than 90 % of its memory limit of {service.memory // 10**6} MB.",
            "Raise its memory limit, or lower its workers, before the kernel kills it.",
        )
        for service in plan.services
        if service.models
    ]


_REQUESTS = "sum by (job, model) (rate(estiba_requests_total[5m]))"

_SERVING = (
    Alert(
        "ServiceDown",
        # A service whose DNS name is gone is no target any more: one that was a target within the hour counts as 0.
        "1 - (up or on (job) 0 * max by (job) (max_over_time(up[1h])))",
        "0",
        "1m",
        "critical",
        "{{ $labels.job }} has not answered for a minute.",
        "Check its log and its state: estiba doctor --running, docker compose ps, kubectl get pods.",
    ),
    Alert(
        "HighErrorRate",
        f'sum by (job, model) (rate(estiba_requests_total{{code=~"5.."}}[5m])) / {_REQUESTS}',
        "0.05",
        "5m",
        "critical",
        "More than 5 % of the requests to {{ $labels.model }} fail with a server error.",
        "The log has the reason with each request's id.",
    ),
    Alert(
        "HighLatency",
        "histogram_quantile(0.99, sum by (job, model, le) (rate(estiba_request_duration_seconds_bucket[5m])))",
        "1",
        "5m",
        "warning",
        "One request in a hundred to {{ $labels.model }} takes more than a second.",
        "Compare the time in the model with the whole, and check the queue: add processors, or send fewer rows.",
    ),
    Alert(
        "RequestsRefused",
        'sum by (job, model) (rate(estiba_rejected_total{reason=~"full|deadline"}[5m]))',
        "0",
        "2m",
        "warning",
        "{{ $labels.job }} rejects requests to {{ $labels.model }}: the queue is full, or they wait too long.",
        "It is at its capacity: add replicas or processors.",
    ),
    Alert(
        "WorkersRestart",
        "sum by (job) (increase(estiba_worker_restarts_total[10m]))",
        "2",
        "0m",
        "critical",
        "Workers of {{ $labels.job }} crash or hang repeatedly.",
        "The log has the exit code of each; -9 is most often the memory limit.",
    ),
    Alert(
        "WorkersMissing",
        'sum by (job) (estiba_workers{state="starting"})',
        "0",
        "2m",
        "warning",
        "{{ $labels.job }} has had fewer workers than configured for two minutes.",
        "The log has the reason why they do not start.",
    ),
    Alert(
        "VersionRefused",
        "sum by (job, model) (increase(estiba_swap_failures_total[15m]))",
        "0",
        "0m",
        "warning",
        "A new version of {{ $labels.model }} was refused; the previous version is still served.",
        "/models has the reason.",
    ),
    Alert(
        "ParityLost",
        "max by (job, model, version) (estiba_parity_max_abs_error)",
        "0.001",
        "0m",
        "critical",
        "{{ $labels.model }}@{{ $labels.version }} answers differently than in training.",
        "Compare the library versions: estiba verify {{ $labels.model }}.",
    ),
    Alert(
        "ProcessorThrottled",
        "rate(estiba_cpu_throttled_periods_total[5m]) / rate(estiba_cpu_periods_total[5m])",
        "0.25",
        "10m",
        "warning",
        "{{ $labels.job }} is throttled in a quarter of its time slices because its CPU limit is used up.",
        "Raise cpus, or lower workers times threads to its limit.",
    ),
    Alert(
        "UnseenCategories",
        "sum by (job, model, feature) (rate(estiba_unseen_category_total[15m]))"
        " / on (job, model) group_left () sum by (job, model) (rate(estiba_rows_total[15m]))",
        "0.05",
        "15m",
        "warning",
        "More than 5 % of the rows for {{ $labels.model }} have a {{ $labels.feature }} that training never saw.",
        "A client changed how it writes that field, or the model is out of date.",
    ),
    Alert(
        "Drift",
        "max by (job, model, field) (estiba_drift_detected)",
        "0",
        "0m",
        "warning",
        "{{ $labels.field }} of {{ $labels.model }} is no longer distributed as in training.",
        "How and since when: estiba drift {{ $labels.model }}, or GET /models/{{ $labels.model }}/drift.",
    ),
    Alert(
        "ModelSilent",
        "max by (job, model) (estiba_drift_silent)",
        "0",
        "5m",
        "warning",
        "{{ $labels.model }} got no rows in the last hour, which had 100 or more a week ago.",
        "Ask those who call it, and look for refused requests: silence is not health.",
    ),
)
