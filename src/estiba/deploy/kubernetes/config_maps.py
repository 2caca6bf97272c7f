"""Render the files that pods mount as ConfigMaps."""

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

MAX_CONFIG_MAP_BYTES = 1_000_000
"""A little less than the cluster's limit."""


def headless_name(service: Service) -> str:
    """Return the DNS name of all pods of a service, for Prometheus: the name of the service leads to one of them."""
    return f"{service.name}-pods"


def contents(plan: Plan, service: Service, name: str) -> Mapping[str, str]:
    """Return the texts of a file or folder by their relative path; a single file is at "".

    Raises:
        BadProject: a file is not text, or the folder is too large.
    """
    file, setting = service.files[name], f"services.{service.name}.files.{name}"
    if file.generated:
        surroundings = replace(in_containers(plan), replicas=headless_name)
        texts = generate(plan, service, file, surroundings)
    else:
        texts = _read(setting, plan.folder / file.source)
    if sum(map(len, texts.values())) > MAX_CONFIG_MAP_BYTES:
        raise BadProject(f"{setting}: too large for a ConfigMap.", hint="Put it into the image with include.")
    return texts


def files_digest(plan: Plan, service: Service) -> str | None:
    """Return a digest of the files of a service; None if it has none."""
    if not service.files:
        return None
    texts = [f"{name} {path} {text}" for name in service.files for path, text in _sorted(plan, service, name)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _sorted(plan: Plan, service: Service, name: str) -> list[tuple[str, str]]:
    return sorted(contents(plan, service, name).items())


def config_map(plan: Plan, service: Service, name: str) -> dict[str, Any]:
    """Return the ConfigMap of a file or folder, without labels."""
    data = {_key(service, name, path): text for path, text in contents(plan, service, name).items()}
    meta = {"name": f"{service.name}-{name}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def volume(plan: Plan, service: Service, name: str) -> dict[str, Any]:
    """Return the volume of a file or folder, in a pod."""
    items = [{"key": _key(service, name, path), "path": path} for path in contents(plan, service, name) if path]
    source: dict[str, Any] = {"name": f"{service.name}-{name}"}
    return {"name": f"file-{name}", "configMap": {**source, "items": items} if items else source}


def mount(plan: Plan, service: Service, name: str) -> dict[str, Any]:
    """Return the mount of a file or folder. A single file is mounted alone, beside the files of the image."""
    target = service.files[name].target
    volume_mount = {"name": f"file-{name}", "mountPath": target, "readOnly": True}
    single = "" in contents(plan, service, name)
    return {**volume_mount, "subPath": PurePosixPath(target).name} if single else volume_mount


def _key(service: Service, name: str, path: str) -> str:
    """Return the key of a file in its ConfigMap. Keys may hold no slash."""
    return path.replace("/", ".") or PurePosixPath(service.files[name].target).name


def _read(setting: str, source: Path) -> dict[str, str]:
    paths = [path for path in sorted(source.rglob("*")) if path.is_file()] if source.is_dir() else [source]
    texts = {}
    for path in paths:
        with explained("read", path):
            content = path.read_bytes()
        try:
            texts[str(path.relative_to(source)) if source.is_dir() else ""] = content.decode()
        except UnicodeDecodeError:
            raise BadProject(f"{setting}: {path} is not text.", hint="Put it into the image with include.") from None
    return texts
