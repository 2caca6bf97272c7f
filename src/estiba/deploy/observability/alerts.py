"""Alerts: rules for Prometheus over metrics that servers of models emit, and what each asks of an operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from estiba.deploy.output import yaml
from estiba.deploy.plan.plan import Plan


@dataclass(frozen=True)
class Alert:
    """One rule.

    Args:
        left, limit: it fires where `left` is more than `limit`.
        lasting: for how long that must be so, as Prometheus writes times.
        severity: `critical` wakes somebody, `warning` waits for the morning.
        summary: what happens, with labels in `{{ }}`. action: what to do about it.
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
    """The rules for a plan."""
    return (*_SERVING, *_memory(plan))


def render(plan: Plan) -> str:
    """The rules as Prometheus reads them."""
    return yaml.render({"groups": groups(plan)})


def groups(plan: Plan) -> list[dict[str, Any]]:
    """The rules as values."""
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
            f"{service.name} uses more than 90 % of the {service.memory // 10**6} MB that it may use.",
            "Raise its memory, or lower its workers, before the system kills it.",
        )
        for service in plan.services
        if service.models
    ]


_REQUESTS = "sum by (job, model) (rate(estiba_requests_total[5m]))"

_SERVING = (
    Alert(
        "ServiceDown",
        # A name that leads nowhere any more is no target any more: what was there within the hour counts as 0.
        "1 - (up or on (job) 0 * max by (job) (max_over_time(up[1h])))",
        "0",
        "1m",
        "critical",
        "{{ $labels.job }} has not answered for a minute.",
        "Look at its log and at whether it runs: estiba doctor --running, docker compose ps, kubectl get pods.",
    ),
    Alert(
        "HighErrorRate",
        f'sum by (job, model) (rate(estiba_requests_total{{code=~"5.."}}[5m])) / {_REQUESTS}',
        "0.05",
        "5m",
        "critical",
        "More than 5 % of the requests to {{ $labels.model }} fail through no fault of their own.",
        "The log has the reason under each request's id.",
    ),
    Alert(
        "HighLatency",
        "histogram_quantile(0.99, sum by (job, model, le) (rate(estiba_request_duration_seconds_bucket[5m])))",
        "1",
        "5m",
        "warning",
        "One request in a hundred to {{ $labels.model }} takes more than a second.",
        "Compare the time in the model with the whole, and look at the queue: more processors, or fewer rows at once.",
    ),
    Alert(
        "RequestsRefused",
        'sum by (job, model) (rate(estiba_rejected_total{reason=~"full|deadline"}[5m]))',
        "0",
        "2m",
        "warning",
        "{{ $labels.job }} turns away requests to {{ $labels.model }}: too many wait, or they wait too long.",
        "It is at its capacity: add replicas or processors.",
    ),
    Alert(
        "WorkersRestart",
        "sum by (job) (increase(estiba_worker_restarts_total[10m]))",
        "2",
        "0m",
        "critical",
        "Workers of {{ $labels.job }} die or hang again and again.",
        "The log says how each ended; exit code -9 is most often the memory limit.",
    ),
    Alert(
        "WorkersMissing",
        'sum by (job) (estiba_workers{state="starting"})',
        "0",
        "2m",
        "warning",
        "{{ $labels.job }} has had fewer workers than it wants for two minutes.",
        "The log says why they do not start.",
    ),
    Alert(
        "VersionRefused",
        "sum by (job, model) (increase(estiba_swap_failures_total[15m]))",
        "0",
        "0m",
        "warning",
        "A new version of {{ $labels.model }} was refused; the one before it goes on serving.",
        "/models has the reason.",
    ),
    Alert(
        "ParityLost",
        "max by (job, model, version) (estiba_parity_max_abs_error)",
        "0.001",
        "0m",
        "critical",
        "{{ $labels.model }}@{{ $labels.version }} answers otherwise than in training.",
        "Compare the library versions: estiba verify {{ $labels.model }}.",
    ),
    Alert(
        "ProcessorThrottled",
        "rate(estiba_cpu_throttled_periods_total[5m]) / rate(estiba_cpu_periods_total[5m])",
        "0.25",
        "10m",
        "warning",
        "{{ $labels.job }} is stopped in a quarter of its time slices because its processors are used up.",
        "Raise cpus, or lower workers times threads to what it has.",
    ),
    Alert(
        "UnseenCategories",
        "sum by (job, model, feature) (rate(estiba_unseen_category_total[15m]))"
        " / on (job, model) group_left () sum by (job, model) (rate(estiba_rows_total[15m]))",
        "0.05",
        "15m",
        "warning",
        "More than 5 % of the rows for {{ $labels.model }} have a {{ $labels.feature }} that training never saw.",
        "Something upstream changed how it writes that field, or the model is out of date.",
    ),
)
