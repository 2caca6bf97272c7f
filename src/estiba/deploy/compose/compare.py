"""Compare the containers of a Compose project with its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estiba.core.errors import Conflict, NotFound
from estiba.deploy.compose.container_state import is_task, is_well
from estiba.deploy.compose.port_check import check_ports
from estiba.deploy.compose.project import ComposeProject, Container
from estiba.deploy.target import Action

CONFIG_HASH = "com.docker.compose.config-hash"
"""The label with Compose's digest of the configuration that a container was made from."""

WORKING_FOLDER = "com.docker.compose.project.working_dir"


@dataclass(frozen=True)
class ServiceChange:
    """The effect of a deployment on one service. `before` and `after` are its images; empty where there is none."""

    service: str
    action: Action
    before: str = ""
    after: str = ""
    details: str = ""

    @property
    def title(self) -> str:
        images = dict.fromkeys(image for image in (self.before, self.after) if image)
        return f"{self.service}  {' -> '.join(images)}"


def compare(project: ComposeProject) -> list[ServiceChange]:
    """List the effect of deploying the project on each of its services. Nothing is changed.

    Raises:
        NotFound: an image was not built. Conflict: a port is taken, or a project of the same name runs from another
            folder. EstibaError: Compose's complaint.
    """
    hashes = project.config_hashes()
    containers: dict[str, list[Container]] = {}
    for row in project.containers():
        _check_folder(project, row["Labels"].get(WORKING_FOLDER, ""))
        containers.setdefault(row["Service"], []).append(row)
    changes = [_change(project, name, hashes[name], containers.get(name, [])) for name in project.services]
    known = _services_of_all_profiles(project)
    removed = [
        ServiceChange(name, "removed", rows[0]["Image"]) for name, rows in containers.items() if name not in known
    ]
    for change in changes:
        _check_image(project, change)
    check_ports(project)
    return changes + removed


def replicas(service: Mapping[str, Any]) -> int:
    """Return the number of containers that a service should have."""
    return int(service.get("deploy", {}).get("replicas", 1))


def is_up_to_date(project: ComposeProject) -> bool:
    """Return whether every enabled service has containers, all made from the present compose.yaml."""
    hashes = project.config_hashes()
    running = [(row["Service"], row["Labels"].get(CONFIG_HASH)) for row in project.containers()]
    return set(project.services) <= {name for name, _ in running} and all(
        config_hash == hashes[name] for name, config_hash in running if name in project.services
    )


def _check_folder(project: ComposeProject, folder: str) -> None:
    if folder and Path(folder).resolve() != project.folder.resolve():
        hint = f"To change that project, pass -o {folder}. To run another beside it, give this project another name."
        raise Conflict(f"A project of the same name runs from {folder}; nothing was changed.", hint=hint)


def _services_of_all_profiles(project: ComposeProject) -> set[str]:
    """Return the names of all services: one whose profile is not enabled now is not removed."""
    return set(project.output("--profile", "*", "config", "--services").split())


def _change(project: ComposeProject, name: str, wanted_hash: str, containers: Sequence[Container]) -> ServiceChange:
    service = project.services[name]
    after = str(service["image"])
    if not containers:
        return ServiceChange(name, "new", "", after)
    before = containers[0]["Image"]
    networks = {project.config["networks"][network]["name"] for network in service.get("networks", {})}
    if any(
        row["Labels"].get(CONFIG_HASH) != wanted_hash
        # A deployment that was killed may have left a container that the reverse proxy does not know yet.
        or not networks <= set(row["Networks"].split(","))
        for row in containers
    ):
        return ServiceChange(name, "changed", before, after)
    if is_task(service) and all(is_well(row, service) for row in containers):
        return ServiceChange(name, "task", before, after)
    if any(row["State"] != "running" for row in containers):
        return ServiceChange(name, "stopped", before, after)
    if len(containers) != replicas(service):
        return ServiceChange(name, "scaled", before, after)
    return ServiceChange(name, "same", before, after)


def _check_image(project: ComposeProject, change: ServiceChange) -> None:
    if project.services[change.service].get("pull_policy") != "never":
        return
    if project.docker("image", "inspect", change.after).code:
        hint = f"Build it with: estiba build {change.service}"
        raise NotFound(f"There is no image {change.after} for {change.service}; nothing was changed.", hint=hint)
