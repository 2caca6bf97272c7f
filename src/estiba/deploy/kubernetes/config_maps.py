"""Files: what pods read, as ConfigMaps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from estiba.core.errors import BadProject
from estiba.core.stores.disk import explained
from estiba.deploy.observability.config_files import generate, in_containers
from estiba.deploy.plan.plan import Plan, Service

MOST = 1_000_000
"""Bytes that a ConfigMap can hold, a little less than the cluster's limit."""


def pods_name(service: Service) -> str:
    """The name that leads to each pod of a service, for what scrapes them: the service's own leads to any of them."""
    return f"{service.name}-pods"


def contents(plan: Plan, service: Service, name: str) -> Mapping[str, str]:
    """Texts of a file or folder by their path below it; a single file is at "".

    Raises:
        BadProject: it is no text, or too large.
    """
    file, path = service.files[name], f"services.{service.name}.files.{name}"
    if file.generated:
        around = replace(in_containers(plan), replicas=pods_name)
        found = generate(plan, service, file, around)
    else:
        found = _read(path, plan.folder / file.source)
    if sum(map(len, found.values())) > MOST:
        raise BadProject(f"{path}: too large for a ConfigMap.", hint="Put it into the image with include.")
    return found


def stamp(plan: Plan, service: Service) -> str | None:
    """A word that changes with the files of a service; None if it has none."""
    if not service.files:
        return None
    texts = [f"{name} {inside} {text}" for name in service.files for inside, text in _sorted(plan, service, name)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _sorted(plan: Plan, service: Service, name: str) -> list[tuple[str, str]]:
    return sorted(contents(plan, service, name).items())


def config_map(plan: Plan, service: Service, name: str) -> dict[str, Any]:
    """The ConfigMap of a file or folder, not labelled yet."""
    data = {_key(service, name, inside): text for inside, text in contents(plan, service, name).items()}
    meta = {"name": f"{service.name}-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def volume(plan: Plan, service: Service, name: str) -> dict[str, Any]:
    """The volume of it, in a pod."""
    items = [{"key": _key(service, name, inside), "path": inside} for inside in contents(plan, service, name) if inside]
    found: dict[str, Any] = {"name": f"{service.name}-{name}"}
    return {"name": f"file-{name}", "configMap": {**found, "items": items} if items else found}


def mount(plan: Plan, service: Service, name: str) -> dict[str, Any]:
    """Where a container finds it. A single file is mounted alone, beside what the image has there."""
    target = service.files[name].target
    found = {"name": f"file-{name}", "mountPath": target, "readOnly": True}
    single = "" in contents(plan, service, name)
    return {**found, "subPath": PurePosixPath(target).name} if single else found


def _key(service: Service, name: str, inside: str) -> str:
    """Keys may hold no slash."""
    return inside.replace("/", ".") or PurePosixPath(service.files[name].target).name


def _read(path: str, source: Path) -> dict[str, str]:
    paths = [each for each in sorted(source.rglob("*")) if each.is_file()] if source.is_dir() else [source]
    found = {}
    for each in paths:
        with explained("read", each):
            content = each.read_bytes()
        try:
            found[str(each.relative_to(source)) if source.is_dir() else ""] = content.decode()
        except UnicodeDecodeError:
            raise BadProject(f"{path}: {each} is not text.", hint="Put it into the image with include.") from None
    return found
