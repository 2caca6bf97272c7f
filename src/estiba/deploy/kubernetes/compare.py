"""Compare manifests with the objects of a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json import JSONDecoder
from pathlib import Path
from typing import Any

import msgspec

from estiba.core.errors import EstibaError, NotFound
from estiba.deploy.kubernetes.cluster import Cluster, Object, ObjectKey, has_condition, items, key
from estiba.deploy.target import Action

ROLLOUT_KINDS = ("Deployment", "StatefulSet", "DaemonSet")
"""Kinds that `kubectl rollout` knows."""

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class ObjectChange:
    """The effect of a deployment on one object. `details` shows the change line by line."""

    kind: str
    name: str
    namespace: str
    action: Action
    details: str = ""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def resource(self) -> str:
        """The object as an argument of kubectl."""
        return f"{self.kind.lower()}/{self.name}"


@dataclass(frozen=True)
class ClusterProposal:
    """The effect of a deployment on a cluster.

    Args:
        changes: one for each object of the manifests. before: the objects in the cluster, as they were last applied.
        missing_secrets: that pods need and the cluster does not have, as namespace/name.
        warnings, notes: for a person to read.
    """

    changes: Sequence[ObjectChange]
    before: Sequence[Object] = ()
    missing_secrets: Sequence[str] = ()
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()


def compare(cluster: Cluster, kustomization: Path) -> ClusterProposal:
    """Compare the manifests of a kustomization with the cluster. Nothing is changed.

    Raises:
        NotFound: a namespace is missing. EstibaError: kubectl's complaint.
    """
    objects = _manifests(cluster, kustomization)
    _check_namespaces(cluster, objects)
    live = items(cluster.query("get", "--kustomize", str(kustomization), "--ignore-not-found"))
    live_by_key = {key(item): item for item in live}
    differences = _differences(cluster, kustomization, objects, live)
    missing = sorted(_missing_secrets(cluster, objects))
    abandoned = sorted(_abandoned_workloads(cluster, objects))
    return ClusterProposal(
        [_change(item, live_by_key, differences) for item in objects],
        [applied for applied in map(_last_applied, live) if applied is not None],
        missing,
        [
            *(f"the secret {name} is not in the cluster yet" for name in missing),
            *(f"{name} is in the cluster, but not in the manifests; it is not removed" for name in abandoned),
        ],
    )


def _manifests(cluster: Cluster, kustomization: Path) -> list[Object]:
    # A dry run of `apply` would print what is in the cluster; `create` prints what is in the files.
    done = cluster.kubectl("create", "--kustomize", str(kustomization), "--dry-run=client", "-o", "json")
    if done.code:
        raise EstibaError(
            f"{kustomization}: {done.said}", hint="Check that these manifests were rendered for this cluster."
        )
    decoder, text = JSONDecoder(), done.output.strip()
    objects: list[Object] = []
    while text:
        document, end = decoder.raw_decode(text)
        objects += items(document)
        text = text[end:].lstrip()
    return objects


def _check_namespaces(cluster: Cluster, objects: Sequence[Object]) -> None:
    namespaces = {item["metadata"]["namespace"] for item in objects if "namespace" in item["metadata"]}
    namespaces -= {item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"}
    for name in sorted(namespaces):
        if not cluster.query("get", "namespace", name, "--ignore-not-found"):
            hint = f"Create it with: kubectl create namespace {name}"
            raise NotFound(f"The cluster has no namespace {name}.", hint=hint)


def _change(item: Object, live: Mapping[ObjectKey, Object], differences: Mapping[str, str]) -> ObjectChange:
    kind, namespace, name = key(item)
    if key(item) not in live:
        return ObjectChange(kind, name, namespace, "new")
    if kind == "Job" and has_condition(live[key(item)], "Failed"):
        return ObjectChange(kind, name, namespace, "again")
    difference = differences.get(".".join((kind, namespace, name)), "")
    return ObjectChange(kind, name, namespace, "changed" if difference else "same", difference)


def _differences(
    cluster: Cluster, kustomization: Path, objects: Sequence[Object], live: Sequence[Object]
) -> dict[str, str]:
    """Return the output of `kubectl diff` for each object that changes, by kind.namespace.name."""
    namespaces = {item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"}
    if namespaces - {item["metadata"]["name"] for item in live if item["kind"] == "Namespace"}:
        return {}  # the cluster cannot compare objects in a namespace that it does not have; all of them are new
    default_program = {"KUBECTL_EXTERNAL_DIFF": ""}
    done = cluster.kubectl("diff", "--kustomize", str(kustomization), environment=default_program)
    if done.code > 1:
        raise EstibaError(f"kubectl diff: {done.said}")
    differences = {}
    for block in re.split(r"^diff (?=-)", done.output, flags=re.MULTILINE)[1:]:
        head, _, body = block.partition("\n")
        # Files are named VERSION.KIND.NAMESPACE.NAME below a folder for each side; versions hold dots.
        file = head.rsplit("/", 1)[-1].strip()
        parts = re.fullmatch(r"(?:.*?\.)?v\d\w*\.(?P<kind>\w+)\.(?P<rest>.*)", file)
        if parts is not None:
            differences[f"{parts['kind']}.{parts['rest']}"] = "\n".join(body.splitlines()[2:])
    return differences


def _last_applied(item: Object) -> Object | None:
    text = item["metadata"].get("annotations", {}).get(_LAST_APPLIED)
    return msgspec.json.decode(text) if text else None


def _missing_secrets(cluster: Cluster, objects: Sequence[Object]) -> set[str]:
    """Return the secrets that pods mount, except those that the manifests or the cluster have."""
    mounted = set()
    for item in objects:
        for volume in _pod_spec(item).get("volumes", []):
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            names = [s["secret"].get("name") or s["secret"].get("secretName") for s in sources if "secret" in s]
            mounted |= {f"{item['metadata'].get('namespace', 'default')}/{name}" for name in names}
    known = {"/".join(key(item)[1:]) for item in objects if item["kind"] in ("Secret", "ExternalSecret")}
    for namespace in {name.partition("/")[0] for name in mounted}:
        secrets = items(cluster.query("get", "secrets", "--namespace", namespace))
        known |= {"/".join(key(secret)[1:]) for secret in secrets}
    return mounted - known


def _pod_spec(item: Object) -> dict[str, Any]:
    spec: dict[str, Any] = item.get("spec", {}).get("template", {}).get("spec", {})
    return spec


def _abandoned_workloads(cluster: Cluster, objects: Sequence[Object]) -> set[str]:
    """Return the workloads of the project in the cluster that the manifests no longer have."""
    workloads = [item for item in objects if item["kind"] in ROLLOUT_KINDS]
    if not workloads:
        return set()
    meta = workloads[0]["metadata"]
    names = {f"app.kubernetes.io/{label}" for label in ("part-of", "managed-by")}
    labels = [f"{name}={value}" for name, value in sorted(meta.get("labels", {}).items()) if name in names]
    if len(labels) != len(names):
        return set()
    where = ("--namespace", meta.get("namespace", "default"), "--selector", ",".join(labels))
    live = {key(item) for item in items(cluster.query("get", "deployments,statefulsets", *where))}
    return {f"{kind.lower()}/{name}" for kind, _, name in live - {key(item) for item in workloads}}
