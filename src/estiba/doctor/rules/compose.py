"""What is wrong with a compose file: references to nothing, order, limits, threads, and what is out of date."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import ceil

from estiba.core.suggest import nearest
from estiba.doctor.catalogue import Finding, Location, finding, listed
from estiba.doctor.read.compose_file import Compose, Service
from estiba.doctor.read.containers import Container
from estiba.doctor.rules import secrets
from estiba.doctor.rules.base_images import base, unpinned

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLIS_NUM_THREADS")
_NO_CHECK = (
    "postgres",
    "redis",
    "rabbitmq",
    "mysql",
    "mariadb",
    "mongo",
    "nginx",
    "prom/prometheus",
    "grafana/grafana",
)
"""Images whose makers gave them no HEALTHCHECK."""


def check(compose: Compose, containers: list[Container]) -> Iterator[Finding]:
    """Every fault of the file itself.

    Args:
        containers: its services, with their images where those are built here.
    """
    at = compose.node.get("version")
    if at:
        message = "`version:` has had no meaning since Compose v2, which warns about it."
        yield finding("compose-version", at.at, message, "Take the line out.")
    services = compose.services
    if not services and not compose.node.get("include"):
        message = "The file has no services, so Compose has nothing to start."
        yield finding("compose-invalid", Location(compose.file, 0), message, "Add a section `services:`.")
    for service in services.values():
        yield from _references(service, compose)
        yield from secrets.check_service(service)
        if service.build is None and service.image and "$" not in service.image:
            yield from unpinned(service.image, service.node.get("image").at)
    for container in containers:
        yield from _order(container, containers)
        yield from threads(container)
    whole = [service for service in services.values() if service.build or service.image]
    yield from _restart(whole, services)
    yield from _limits(whole)


def _references(service: Service, compose: Compose) -> Iterator[Finding]:
    """Services and volumes that the file does not define."""
    partial = compose.node.get("include") or not (
        service.image or service.node.get("build") or service.node.get("extends")
    )
    if partial:
        return
    names = compose.services
    for name, _, at in service.dependencies:
        if name not in names:
            yield _unknown(f"{service.name} depends on `{name}`, which is no service of this file", name, names, at)
    for mount in service.mounts:
        if mount.kind == "volume" and mount.source and "$" not in mount.source and mount.source not in compose.volumes:
            what = f"{service.name} mounts the volume `{mount.source}`, which the file does not define"
            yield _unknown(what, mount.source, compose.volumes, mount.at)


def _unknown(what: str, name: str, known: Iterable[str], at: Location) -> Finding:
    near = nearest(name, known)
    fix = f"Did you mean `{near}`?" if near else f"Define `{name}`, or take it out here."
    return finding("compose-invalid", at, f"{what}, so Compose refuses it.", fix)


def _order(container: Container, containers: list[Container]) -> Iterator[Finding]:
    service = container.service
    if service is None:
        return
    unconditional = [name for name, condition, _ in service.dependencies if condition in ("", "service_started")]
    places = [at for _, condition, at in service.dependencies if condition in ("", "service_started")]
    if unconditional:
        have = "have" if len(unconditional) > 1 else "has"
        message = f"{service.name} is started as soon as {listed(unconditional)} {have} been started, ready or not."
        fix = f"Write depends_on: {{{unconditional[0]}: {{condition: service_healthy}}}}, and give it a healthcheck."
        yield finding("depends-on-order", places[0], message, fix)
    for name, condition, at in service.dependencies:
        other = next((one for one in containers if one.name == name), None)
        if condition == "service_healthy" and other is not None and _unchecked(other):
            message = (
                f"{service.name} waits until {name} is healthy, but {name} has no health check, so it never starts."
            )
            yield finding("depends-on-no-health", at, message, f"Give {name} a healthcheck.")


def _unchecked(other: Container) -> bool:
    """Whether it certainly has no health check: nothing says one, and the image is known to bring none."""
    if other.health is not None or other.service is None:
        return False
    if other.service.node.get("healthcheck"):
        return other.service.node.get("healthcheck", "disable").text.lower() == "true"
    if other.image is not None:
        return other.final is not None and base(other.final.base).known_root
    return base(other.service.image).name in _NO_CHECK


def threads(container: Container) -> Iterator[Finding]:
    """Threads and workers beyond the limit of processors."""
    service = container.service
    if service is None or not service.cpus:
        return
    limit = ceil(service.cpus)
    workers = container.server.workers if container.server else 0
    for name in _THREADS:
        value = container.environment.get(name, "")
        number = int(value) if re.fullmatch(r"\d{1,4}", value) else 0
        if number > 1 and number * max(workers, 1) > limit:
            times = f" in each of {workers} workers" if workers > 1 else ""
            message = (
                f"{name} asks for {number} threads{times}, and {service.name} may use {service.cpus:g} processors."
            )
            fix = f"Set {name} to {max(limit // max(workers, 1), 1)}."
            yield finding("threads-over-cpus", container.variable_location(name), message, fix)
            return
    if workers > 2 * limit + 1:
        message = f"{workers} workers share the {service.cpus:g} processors that {service.name} may use."
        yield finding("threads-over-cpus", container.command_line[1], message, f"Start {limit} workers.")


def _restart(whole: list[Service], services: dict[str, Service]) -> Iterator[Finding]:
    ends = {
        name
        for one in services.values()
        for name, how, _ in one.dependencies
        if how == "service_completed_successfully"
    }
    without = [
        one
        for one in whole
        if not one.node.get("restart") and not one.node.get("deploy", "restart_policy") and one.name not in ends
    ]
    if without:
        message = f"Nothing starts {listed(one.name for one in without)} again after a crash or a reboot."
        yield finding("no-restart", without[0].node.at, message, "Add restart: unless-stopped.")


def _limits(whole: list[Service]) -> Iterator[Finding]:
    without = [one for one in whole if not one.memory and "$" not in one.text("mem_limit")]
    without = [one for one in without if "$" not in one.text("deploy", "resources", "limits", "memory")]
    if without:
        names = listed(one.name for one in without)
        message = f"{names} may take all memory of the machine, and others are killed for it."
        yield finding("no-limits", without[0].node.at, message, "Add mem_limit: 512m, or what it needs.")
