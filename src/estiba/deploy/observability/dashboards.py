"""Render the Grafana dashboard of model servers, over the metrics that they emit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "estiba-prometheus"}
"""The data source of every panel; its address is provisioned beside the dashboards."""

_PICKED = 'job=~"$job", model=~"$model"'
_RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        queries: PromQL and the legend of its series.
        kind: `stat`, `timeseries` or `table`. unit: in Grafana's names of units.
        width: in columns, of 24. limit: the threshold from which the value is shown in red, or None.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    limit: float | None = None
    description: str = ""


def panels() -> tuple[Panel, ...]:
    """Return the panels of the dashboard, in reading order."""
    return _PANELS


def render() -> str:
    """Render the dashboard in the JSON of Grafana."""
    document = {
        "uid": "estiba-models",
        "title": "Models in production",
        "tags": ["estiba"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_variable("job", "estiba_build_info"), _variable("model", "estiba_model_info")]},
        "panels": list(_placed()),
    }
    return json.dumps(document, indent=1) + "\n"


def _placed() -> Iterator[dict[str, Any]]:
    x = y = tallest = 0
    for number, panel in enumerate(_PANELS, 1):
        height = 4 if panel.kind == "stat" else 8
        if x + panel.width > 24:
            x, y, tallest = 0, y + tallest, 0
        yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": height})
        x, tallest = x + panel.width, max(tallest, height)


def _panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": expression,
            "legendFormat": legend,
            **({"format": "table", "instant": True} if panel.kind == "table" else {}),
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": position,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}} if panel.kind == "timeseries" else {},
        "targets": targets,
    }


def _variable(name: str, metric: str) -> dict[str, Any]:
    query = f"label_values({metric}, {name})"
    return {
        "name": name,
        "label": {"job": "Service", "model": "Model"}[name],
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _quantile(share: float, metric: str) -> str:
    return f"histogram_quantile({share}, sum by (model, le) (rate({metric}_bucket{{{_PICKED}}}{_RATE})))"


def _per_second(metric: str, *labels: str) -> str:
    return f"sum by ({', '.join(labels)}) (rate({metric}{{{_PICKED}}}{_RATE}))"


_PANELS = (
    Panel(
        "Requests a second", ((f"sum(rate(estiba_requests_total{{{_PICKED}}}{_RATE}))", ""),), "reqps", "stat", width=6
    ),
    Panel(
        "Failing with a server error",
        (
            (
                f'(sum(rate(estiba_requests_total{{{_PICKED}, code=~"5.."}}{_RATE})) or vector(0))'
                f" / sum(rate(estiba_requests_total{{{_PICKED}}}{_RATE}))",
                "",
            ),
        ),
        "percentunit",
        "stat",
        width=6,
        limit=0.01,
    ),
    Panel(
        "99th percentile of duration",
        (
            (
                "histogram_quantile(0.99, sum by (le)"
                f" (rate(estiba_request_duration_seconds_bucket{{{_PICKED}}}{_RATE})))",
                "",
            ),
        ),
        "s",
        "stat",
        width=6,
        limit=1,
    ),
    Panel("Workers ready", (('sum(estiba_workers{job=~"$job", state="ready"})', ""),), "short", "stat", width=6),
    Panel(
        "Requests by model and answer",
        ((_per_second("estiba_requests_total", "model", "code"), "{{model}} {{code}}"),),
        "reqps",
    ),
    Panel(
        "Duration of requests",
        tuple(
            (_quantile(q, "estiba_request_duration_seconds"), f"{{{{model}}}} p{q * 100:g}") for q in (0.5, 0.95, 0.99)
        ),
        "s",
    ),
    Panel(
        "Time in the model, for one batch",
        tuple((_quantile(q, "estiba_predict_duration_seconds"), f"{{{{model}}}} p{q * 100:g}") for q in (0.5, 0.99)),
        "s",
    ),
    Panel("Rows a second", ((_per_second("estiba_rows_total", "model", "version"), "{{model}}@{{version}}"),), "short"),
    Panel(
        "Rows in a batch, on average",
        (
            (
                f"{_per_second('estiba_batch_rows_sum', 'model')} / {_per_second('estiba_batch_rows_count', 'model')}",
                "{{model}}",
            ),
        ),
    ),
    Panel(
        "Waiting and in flight",
        (
            (f"sum by (model) (estiba_queue_rows{{{_PICKED}}})", "{{model}} rows waiting"),
            (f"sum by (model) (estiba_requests_in_flight{{{_PICKED}}})", "{{model}} requests in flight"),
        ),
    ),
    Panel("Rejected", ((_per_second("estiba_rejected_total", "model", "reason"), "{{model}} {{reason}}"),), "reqps"),
    Panel(
        "Categories that training never saw",
        ((_per_second("estiba_unseen_category_total", "model", "feature"), "{{model}} {{feature}}"),),
        description="Rows a second whose category was not in the training data.",
    ),
    Panel("Connections", (('sum by (job) (estiba_connections{job=~"$job"})', "{{job}}"),)),
    Panel("Memory", (('process_resident_memory_bytes{job=~"$job"}', "{{job}}"),), "bytes"),
    Panel("Processors used", ((f'rate(process_cpu_seconds_total{{job=~"$job"}}{_RATE})', "{{job}}"),)),
    Panel(
        "Restarted workers, refused versions",
        (
            (
                f'sum by (job, reason) (increase(estiba_worker_restarts_total{{job=~"$job"}}{_RATE}))',
                "{{job}} {{reason}}",
            ),
            (f"sum by (model) (increase(estiba_swap_failures_total{{{_PICKED}}}{_RATE}))", "{{model}} refused"),
        ),
    ),
    Panel(
        "Served models",
        ((f"estiba_model_info{{{_PICKED}}} == 1", ""),),
        kind="table",
        width=16,
        description="Version, digest and framework of each model, by service.",
    ),
    Panel(
        "Largest difference from training",
        ((f"max by (model, version) (estiba_parity_max_abs_error{{{_PICKED}}})", "{{model}}@{{version}}"),),
        "none",
        description="Over the golden rows, when the model was loaded.",
    ),
)
