"""Render the pods of a service as a Deployment, a StatefulSet or a Job."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

from estiba.deploy.image.spec import USER, image_spec
from estiba.deploy.kubernetes import config_maps, model_init_container
from estiba.deploy.kubernetes.options import KubernetesOptions
from estiba.deploy.plan import known_images
from estiba.deploy.plan.image_options import version
from estiba.deploy.plan.plan import Command, Http, Plan, Service, Tcp, in_container
from estiba.deploy.plan.references import Reference, references, resolve
from estiba.deploy.plan.timing import STARTED_SECONDS

SETTINGS = "settings"
"""The ConfigMap of variables that the project file refers to."""

FILES_ANNOTATION = "estiba.org/files"
"""The annotation of pods with the digest of the files that they mount, so that pods are replaced when files change."""

GRACE_MARGIN_SECONDS = 5
"""Added to the shutdown delay and the drain of a pod."""


def labels(plan: Plan, service: Service) -> dict[str, str]:
    """Return the recommended labels. Only name and instance select pods, as selectors cannot be changed."""
    component = "model-server" if service.models else "application" if service.build else "infrastructure"
    return {
        **selector(plan, service),
        "app.kubernetes.io/version": version(service.image)[:63].strip("-_."),
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": plan.project,
        "app.kubernetes.io/managed-by": "estiba",
    }


def selector(plan: Plan, service: Service) -> dict[str, str]:
    """Return the labels that select the pods of a service."""
    return {"app.kubernetes.io/name": service.name, "app.kubernetes.io/instance": plan.project}


def workload(plan: Plan, service: Service, options: KubernetesOptions) -> dict[str, Any]:
    """Return the object that runs the pods of a service."""
    meta = {"name": service.name, "labels": labels(plan, service)}
    pod_meta: dict[str, Any] = {"labels": labels(plan, service)}
    if (digest := config_maps.files_digest(plan, service)) is not None:
        pod_meta["annotations"] = {FILES_ANNOTATION: digest}
    template = {"metadata": pod_meta, "spec": _pod(plan, service, options)}
    if not service.restart:
        return _job(plan, service, template)
    spec: dict[str, Any] = {"selector": {"matchLabels": selector(plan, service)}, "template": template}
    if service.volumes:
        spec = {"serviceName": service.name, "replicas": 1, **spec}
        spec["volumeClaimTemplates"] = [_claim(plan, service, name, options) for name in service.volumes]
        return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
    if not service.models:
        spec = {"replicas": service.replicas, **spec}
    # Never fewer pods than before: a new pod is ready before an old one stops.
    spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec["minReadySeconds"] = 2 if service.health else STARTED_SECONDS
    fetching = options.registry.timeout if plan.registry and service.models else 0
    spec["progressDeadlineSeconds"] = max(120, math.ceil(service.start_timeout + fetching) * 2)
    spec["revisionHistoryLimit"] = 5
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def _job(plan: Plan, service: Service, template: dict[str, Any]) -> dict[str, Any]:
    """Return a Job. A Job cannot be changed, so a changed one has another name. The cluster deletes it after a day.

    Every attempt has its own pod: the cluster would remove a restarted pod, with its log, when it gives up.
    """
    template["spec"]["restartPolicy"] = "Never"
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{service.name}-{digest}", "labels": labels(plan, service)},
        "spec": {"backoffLimit": 3, "ttlSecondsAfterFinished": 86400, "template": template},
    }


def claims(plan: Plan, service: Service, options: KubernetesOptions) -> Iterator[dict[str, Any]]:
    """Yield the volume claims of a Job; a StatefulSet creates its own."""
    if service.restart:
        return
    for name in service.volumes:
        claim = _claim(plan, service, name, options)
        claim["metadata"]["name"] = _claim_name(service, name)
        yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim}


def settings(plan: Plan) -> dict[str, str | None]:
    """Return the variables that the project file refers to, with their defaults; None where they have none."""
    defaults: dict[str, str | None] = {}
    for service in plan.services:
        for text in (*service.command, *service.environment.values()):
            for reference in references(text, service.name):
                if reference.kind == "env":
                    defaults[reference.name] = reference.default
    return dict(sorted(defaults.items()))


def _pod(plan: Plan, service: Service, options: KubernetesOptions) -> dict[str, Any]:
    user = service.user if service.user is not None else USER
    group = 0 if service.build is not None else user
    delay = options.shutdown_delay if service.port is not None else 0
    containers: dict[str, Any] = {"containers": [_container(plan, service, options)]}
    volumes = list(_volumes(plan, service))
    if plan.registry and service.models:
        server = containers["containers"][0]
        init_container = model_init_container.init_container(plan, service, options.registry, server)
        containers = {"initContainers": [init_container], "containers": [model_init_container.server(plan, server)]}
        volumes += model_init_container.volumes(service, options.registry)
    return {
        "serviceAccountName": service.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(delay + service.stop_grace + GRACE_MARGIN_SECONDS),
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
        "volumes": volumes,
    }


def _container(plan: Plan, service: Service, options: KubernetesOptions) -> dict[str, Any]:
    limits = {"cpu": _processors(service.cpus), "memory": str(service.memory)}
    container: dict[str, Any] = {"name": service.name, "image": service.image, "imagePullPolicy": "IfNotPresent"}
    if service.models:
        delay = f"{options.shutdown_delay:g}"
        container["args"] = [*image_spec(plan, service).process.command, "--shutdown-delay", delay]
    elif service.command:
        container["args"] = [_text(plan, service, argument) for argument in service.command]
    environment = list(_environment(plan, service))
    if environment:
        container["env"] = environment
    if service.port is not None:
        container["ports"] = [{"name": port_name(service), "containerPort": service.port, "protocol": "TCP"}]
    container |= _probes(plan, service)
    if service.port is not None and not service.models and options.shutdown_delay:
        # A model server delays its shutdown itself; others would still get requests for a moment after SIGTERM.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": math.ceil(options.shutdown_delay)}}}
    container["resources"] = {
        "requests": {"cpu": _processors(service.cpus / 2), "memory": limits["memory"]},
        "limits": limits,
    }
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": service.read_only,
        "capabilities": {"drop": ["ALL"]},
    }
    container["volumeMounts"] = list(_mounts(plan, service))
    return container


def _probes(plan: Plan, service: Service) -> dict[str, Any]:
    """Return the probes: a long startup, a quick readiness, and a slow liveness that checks only the process itself."""
    checks: list[dict[str, Any]]
    paths = ("/health/startup", "/health/ready", "/health/live") if service.models else None
    match service.health:
        case Http(path):
            checks = [{"httpGet": {"path": each, "port": port_name(service)}} for each in paths or (path, path)]
        case Tcp():
            checks = [{"tcpSocket": {"port": port_name(service)}}] * 2
        case Command(argv):
            checks = [{"exec": {"command": [_text(plan, service, argument) for argument in argv]}}] * 2
        case _:
            return {}
    startup, ready, live = [*checks, _liveness(service, checks[0])][:3]
    # A command is a process to start, which takes processor time from the service.
    interval, timeout = (5, 10) if isinstance(service.health, Command) else (2, 2)
    attempts = max(1, math.ceil(service.start_timeout / interval))
    return {
        "startupProbe": {**startup, "periodSeconds": interval, "timeoutSeconds": 10, "failureThreshold": attempts},
        "readinessProbe": {**ready, "periodSeconds": interval, "timeoutSeconds": timeout, "failureThreshold": 2},
        "livenessProbe": {**live, "periodSeconds": 5 * interval, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _liveness(service: Service, startup: dict[str, Any]) -> dict[str, Any]:
    """Return the check whose failure restarts a pod: not the health check, as that may fail for what others lack."""
    if service.live:
        return {"httpGet": {"path": service.live, "port": port_name(service)}}
    return startup if service.port is None else {"tcpSocket": {"port": port_name(service)}}


def _environment(plan: Plan, service: Service) -> Iterator[dict[str, Any]]:
    """Yield the environment, settings first: a value may refer only to variables before it, as $(NAME)."""
    texts = (*service.command, *service.environment.values())
    names = {ref.name for text in texts for ref in references(text, service.name) if ref.kind == "env"}
    for name in sorted(names):
        yield {"name": name, "valueFrom": {"configMapKeyRef": {"name": SETTINGS, "key": name}}}
    for name, value in (known_images.environment_in_cluster(service) | dict(service.environment)).items():
        text = _text(plan, service, value)
        if text != f"$({name})":  # it is a setting already
            yield {"name": name, "value": text}


def _text(plan: Plan, service: Service, text: str) -> str:
    """Return a value for a pod: $( is escaped as $$(, except that of variables that the cluster substitutes."""

    def lookup(reference: Reference) -> str:
        if reference.kind == "env":
            return f"\0{reference.name}\0"
        return in_container(plan, service, reference, "")

    pieces = resolve(text, lookup).split("\0")
    pieces[::2] = [piece.replace("$(", "$$(") for piece in pieces[::2]]
    pieces[1::2] = [f"$({piece})" for piece in pieces[1::2]]
    return "".join(pieces)


def _volumes(plan: Plan, service: Service) -> Iterator[dict[str, Any]]:
    limit = {"sizeLimit": str(service.tmp)}
    yield {"name": "tmp", "emptyDir": limit}
    for number, _ in enumerate(service.writable):
        yield {"name": f"writable-{number}", "emptyDir": limit}
    if service.secrets:
        sources = [
            {"secret": {"name": secret_name(name), "items": [{"key": "value", "path": name}]}}
            for name in service.secrets
        ]
        yield {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}}
    if not service.restart:
        for name in service.volumes:
            yield {"name": name, "persistentVolumeClaim": {"claimName": _claim_name(service, name)}}
    for name in service.files:
        yield config_maps.volume(plan, service, name)


def _mounts(plan: Plan, service: Service) -> Iterator[dict[str, Any]]:
    yield {"name": "tmp", "mountPath": "/tmp"}
    for number, path in enumerate(service.writable):
        yield {"name": f"writable-{number}", "mountPath": path}
    for name, target in service.volumes.items():
        # A folder below the root of the volume: some file systems have lost+found there, which databases refuse.
        yield {"name": name, "mountPath": target, "subPath": "data"}
    if service.secrets:
        yield {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}
    for name in service.files:
        yield config_maps.mount(plan, service, name)


def _claim_name(service: Service, name: str) -> str:
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
    """Return the name of a secret in the cluster, where names may hold no underscore and no capital."""
    return name.replace("_", "-").lower()


def port_name(service: Service) -> str:
    """Return the name of the port of a service, in its pods and in its Service."""
    return "http" if isinstance(service.health, Http) or service.metrics else "tcp"


def _processors(number: float) -> str:
    return f"{round(number * 1000)}m"
