"""Render the autoscaler and the disruption budget of a model server."""

from __future__ import annotations

from typing import Any

from estiba.deploy.kubernetes.options import AutoscaleOptions
from estiba.deploy.kubernetes.workloads import labels, selector
from estiba.deploy.plan.plan import Plan, Service


def autoscaler(plan: Plan, service: Service, options: AutoscaleOptions) -> dict[str, Any]:
    """Return a HorizontalPodAutoscaler. It scales up at once and down slowly, because a model takes a while to load."""
    metrics: list[dict[str, Any]] = [
        {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": options.cpu}},
        }
    ]
    if options.requests_per_second is not None:
        target = {"type": "AverageValue", "averageValue": f"{round(options.requests_per_second * 1000)}m"}
        metrics.append({"type": "Pods", "pods": {"metric": {"name": "estiba_requests_per_second"}, "target": target}})
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": service.name, "labels": labels(plan, service)},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name},
            "minReplicas": options.minimum,
            "maxReplicas": options.maximum,
            "metrics": metrics,
            "behavior": {
                "scaleUp": {
                    "stabilizationWindowSeconds": 0,
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
                },
                "scaleDown": {
                    "stabilizationWindowSeconds": 300,
                    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
                },
            },
        },
    }


def disruption_budget(plan: Plan, service: Service) -> dict[str, Any]:
    """Return a PodDisruptionBudget: maintenance evicts one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": service.name, "labels": labels(plan, service)},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(plan, service)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
