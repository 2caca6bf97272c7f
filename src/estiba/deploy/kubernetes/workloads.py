"""Workloads: the pods of a service, as a Deployment, a StatefulSet or a Job."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

from estiba.deploy.image.spec import USER, image_spec
from estiba.deploy.kubernetes import config_maps, model_init_container
from estiba.deploy.kubernetes.options import KubernetesOptions
from estiba.deploy.plan.image_options import version
from estiba.deploy.plan.plan import Command, Http, Plan, Service, Tcp, in_container
from estiba.deploy.plan.references import Reference, references, resolve
from estiba.deploy.plan.timing import STARTED_SECONDS

SETTINGS = "settings"
"""The ConfigMap of variables that the project file refers to."""

STAMP = "estiba.org/files"
"""The annotation of pods that changes with the files that they read, so that they are replaced."""

SLACK = 5
"""Seconds beyond what a pod announces and drains."""


def labels(plan: Plan, service: Service) -> dict[str, str]:
    """The recommended labels. Only name and instance select pods, as selectors cannot be changed."""
    component = "model-server" if service.models else "application" if service.build else "infrastructure"
    return {
        **selector(plan, service),
        "app.kubernetes.io/version": version(service.image)[:63].strip("-_."),
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": plan.project,
        "app.kubernetes.io/managed-by": "estiba",
    }


def selector(plan: Plan, service: Service) -> dict[str, str]:
    """The labels by which the pods of a service are found."""
    return {"app.kubernetes.io/name": service.name, "app.kubernetes.io/instance": plan.project}


def workload(plan: Plan, service: Service, options: KubernetesOptions) -> dict[str, Any]:
    """The object that keeps the pods of a service running."""
    meta = {"name": service.name, "labels": labels(plan, service)}
    about: dict[str, Any] = {"labels": labels(plan, service)}
    if (stamp := config_maps.stamp(plan, service)) is not None:
        about["annotations"] = {STAMP: stamp}
    template = {"metadata": about, "spec": _pod(plan, service, options)}
    if not service.restart:
        return _job(plan, service, template)
    spec: dict[str, Any] = {"selector": {"matchLabels": selector(plan, service)}, "template": template}
    if service.volumes:
        spec = {"serviceName": service.name, "replicas": 1, **spec}
        spec["volumeClaimTemplates"] = [_claim(plan, service, name, options) for name in service.volumes]
        return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
    if not service.models:
        spec = {"replicas": service.replicas, **spec}
    # Never fewer than there were: a new pod is ready before an old one ends.
    spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec["minReadySeconds"] = 2 if service.health else STARTED_SECONDS
    fetching = options.registry.timeout if plan.registry and service.models else 0
    spec["progressDeadlineSeconds"] = max(120, math.ceil(service.start_timeout + fetching) * 2)
    spec["revisionHistoryLimit"] = 5
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def _job(plan: Plan, service: Service, template: dict[str, Any]) -> dict[str, Any]:
    """A Job cannot be changed, so a changed one is another one; the cluster removes what is done after a day.

    Every attempt is a pod of its own, as the cluster removes one that it restarted, with its log, when it gives up.
    """
    template["spec"]["restartPolicy"] = "Never"
    changed = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{service.name}-{changed}", "labels": labels(plan, service)},
        "spec": {"backoffLimit": 3, "ttlSecondsAfterFinished": 86400, "template": template},
    }


def claims(plan: Plan, service: Service, options: KubernetesOptions) -> Iterator[dict[str, Any]]:
    """The volumes of a Job; a StatefulSet makes its own."""
    if service.restart:
        return
    for name in service.volumes:
        claim = _claim(plan, service, name, options)
        claim["metadata"]["name"] = _claimed(service, name)
        yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim}


def settings(plan: Plan) -> dict[str, str | None]:
    """Variables that the project file refers to, with their defaults; None where they have none."""
    found: dict[str, str | None] = {}
    for service in plan.services:
        for text in (*service.command, *service.environment.values()):
            for reference in references(text, service.name):
                if reference.kind == "env":
                    found[reference.name] = reference.default
    return dict(sorted(found.items()))


def _pod(plan: Plan, service: Service, options: KubernetesOptions) -> dict[str, Any]:
    user = service.user if service.user is not None else USER
    group = 0 if service.build is not None else user
    delay = options.shutdown_delay if service.port is not None else 0
    containers: dict[str, Any] = {"containers": [_container(plan, service, options)]}
    rooms = list(_volumes(plan, service))
    if plan.registry and service.models:
        own = containers["containers"][0]
        first = model_init_container.init_container(plan, service, options.registry, own)
        containers = {"initContainers": [first], "containers": [model_init_container.server(own)]}
        rooms += model_init_container.volumes(service, options.registry)
    return {
        "serviceAccountName": service.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(delay + service.stop_grace + SLACK),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": group,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(plan, service)},
            }
        ],
        **containers,
        "volumes": rooms,
    }


def _container(plan: Plan, service: Service, options: KubernetesOptions) -> dict[str, Any]:
    limits = {"cpu": _processors(service.cpus), "memory": str(service.memory)}
    found: dict[str, Any] = {"name": service.name, "image": service.image, "imagePullPolicy": "IfNotPresent"}
    if service.models:
        delay = f"{options.shutdown_delay:g}"
        found["args"] = [*image_spec(plan, service).process.command, "--shutdown-delay", delay]
    elif service.command:
        found["args"] = [_text(plan, service, word) for word in service.command]
    environment = list(_environment(plan, service))
    if environment:
        found["env"] = environment
    if service.port is not None:
        found["ports"] = [{"name": port_name(service), "containerPort": service.port, "protocol": "TCP"}]
    found |= _probes(plan, service)
    if service.port is not None and not service.models and options.shutdown_delay:
        # A model server waits by itself; others would be asked for a moment after they were told to end.
        found["lifecycle"] = {"preStop": {"sleep": {"seconds": math.ceil(options.shutdown_delay)}}}
    found["resources"] = {
        "requests": {"cpu": _processors(service.cpus / 2), "memory": limits["memory"]},
        "limits": limits,
    }
    found["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": service.read_only,
        "capabilities": {"drop": ["ALL"]},
    }
    found["volumeMounts"] = list(_mounts(plan, service))
    return found


def _probes(plan: Plan, service: Service) -> dict[str, Any]:
    """Startup waits long, readiness is quick, and liveness is slow and asks nothing but the process itself."""
    asks: list[dict[str, Any]]
    paths = ("/health/startup", "/health/ready", "/health/live") if service.models else None
    match service.health:
        case Http(path):
            asks = [{"httpGet": {"path": each, "port": port_name(service)}} for each in paths or (path, path, path)]
        case Tcp():
            asks = [{"tcpSocket": {"port": port_name(service)}}] * 3
        case Command(argv):
            asks = [{"exec": {"command": [_text(plan, service, argument) for argument in argv]}}] * 3
        case _:
            return {}
    startup, ready, live = asks
    # A command is a program to start, which takes processor time from what it asks.
    pace, patience = (5, 10) if isinstance(service.health, Command) else (2, 2)
    attempts = max(1, math.ceil(service.start_timeout / pace))
    return {
        "startupProbe": {**startup, "periodSeconds": pace, "timeoutSeconds": 10, "failureThreshold": attempts},
        "readinessProbe": {**ready, "periodSeconds": pace, "timeoutSeconds": patience, "failureThreshold": 2},
        "livenessProbe": {**live, "periodSeconds": 5 * pace, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _environment(plan: Plan, service: Service) -> Iterator[dict[str, Any]]:
    """Variables of the settings come first, because only what stands before may be referred to as $(NAME)."""
    texts = (*service.command, *service.environment.values())
    named = {ref.name for text in texts for ref in references(text, service.name) if ref.kind == "env"}
    for name in sorted(named):
        yield {"name": name, "valueFrom": {"configMapKeyRef": {"name": SETTINGS, "key": name}}}
    for name, value in service.environment.items():
        text = _text(plan, service, value)
        if text != f"$({name})":  # it is there already
            yield {"name": name, "value": text}


def _text(plan: Plan, service: Service, text: str) -> str:
    """A value for a pod, where $( is written $$( but for variables that the cluster fills in."""

    def lookup(reference: Reference) -> str:
        if reference.kind == "env":
            return f"\0{reference.name}\0"
        return in_container(plan, service, reference, "")

    pieces = resolve(text, lookup).split("\0")
    pieces[::2] = [piece.replace("$(", "$$(") for piece in pieces[::2]]
    pieces[1::2] = [f"$({piece})" for piece in pieces[1::2]]
    return "".join(pieces)


def _volumes(plan: Plan, service: Service) -> Iterator[dict[str, Any]]:
    yield {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}
    for number, _ in enumerate(service.writable):
        yield {"name": f"writable-{number}", "emptyDir": {"sizeLimit": "256Mi"}}
    if service.secrets:
        sources = [
            {"secret": {"name": secret_name(name), "items": [{"key": "value", "path": name}]}}
            for name in service.secrets
        ]
        yield {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}}
    if not service.restart:
        for name in service.volumes:
            yield {"name": name, "persistentVolumeClaim": {"claimName": _claimed(service, name)}}
    for name in service.files:
        yield config_maps.volume(plan, service, name)


def _mounts(plan: Plan, service: Service) -> Iterator[dict[str, Any]]:
    yield {"name": "tmp", "mountPath": "/tmp"}
    for number, place in enumerate(service.writable):
        yield {"name": f"writable-{number}", "mountPath": place}
    for name, target in service.volumes.items():
        # A folder of the volume: the root of some file systems holds lost+found, which databases refuse.
        yield {"name": name, "mountPath": target, "subPath": "data"}
    if service.secrets:
        yield {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}
    for name in service.files:
        yield config_maps.mount(plan, service, name)


def _claimed(service: Service, name: str) -> str:
    return f"{service.name}-{name}"


def _claim(plan: Plan, service: Service, name: str, options: KubernetesOptions) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": options.storage}},
    }
    if options.storage_class:
        spec["storageClassName"] = options.storage_class
    return {"metadata": {"name": name, "labels": selector(plan, service)}, "spec": spec}


def secret_name(name: str) -> str:
    """What a secret is called in the cluster, whose names may hold no underscore and no capital."""
    return name.replace("_", "-").lower()


def port_name(service: Service) -> str:
    """What the port of a service is called, in its pods and in its Service."""
    return "http" if isinstance(service.health, Http) or service.metrics else "tcp"


def _processors(number: float) -> str:
    return f"{round(number * 1000)}m"
