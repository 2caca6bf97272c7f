"""Rules about undefined references, start order, limits, restarts and outdated keys of compose files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from pathlib import Path
from posixpath import dirname, join
from typing import ClassVar

from estiba.core.suggest import nearest
from estiba.doctor.finding import Finding, Location, listed
from estiba.doctor.read.compose_file import Compose, Service
from estiba.doctor.read.containers import Container
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLIS_NUM_THREADS")
_JOB_NAME = re.compile(
    r"(?:^|[-_.])(?:init|initiali[sz]er|setup|migrate|migrations?|seed|seeder|bootstrap|create|provision|prestart)(?:$|[-_.])"
)
_JOB_COMMAND = re.compile(
    r"\bmc\s+(?:mb|alias|config)\b|\balembic\s+upgrade\b|manage\.py\s+migrate\b|\bdb\s+(?:init|upgrade|migrate)\b|"
    r"^exit\s+0$"
)
"""Commands that prepare something once, and end."""

_WITHOUT_HEALTHCHECK = (
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
"""Public images without a HEALTHCHECK."""


class ComposeInvalid(Rule):
    code = "compose-invalid"
    severity = "error"
    title = "The compose file cannot be read, or names something that it does not define."
    reason = "Compose refuses the whole file, so no service starts, also not those without a mistake."
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    restart: unless-stopped\n    mem_limit: 512m\n"
        "    volumes: [data:/data:ro]\n",
    }
    remedy = "Define what is named, or remove the reference. `docker compose config` shows what Compose reads."

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        services = compose.services
        if not services and not compose.node.get("include"):
            message = "The file has no services, so Compose has nothing to start."
            yield cls.finding(Location(compose.file, 0), message, "Add a section `services:`.")
        for service in services.values():
            yield from cls._references(service, compose)

    @classmethod
    def _references(cls, service: Service, compose: Compose) -> Iterator[Finding]:
        """Check that services and volumes are defined, unless another file may define them."""
        complete = service.image or service.node.get("build") or service.node.get("extends")
        if compose.node.get("include") or not complete:
            return
        names = compose.services
        for name, _, at in service.dependencies:
            if name not in names:
                fault = f"{service.name} depends on `{name}`, which is not a service of this file"
                yield cls._unknown(fault, name, names, at)
        for mount in service.mounts:
            named = mount.kind == "volume" and mount.source and "$" not in mount.source
            if named and mount.source not in compose.volumes:
                fault = f"{service.name} mounts the volume `{mount.source}`, which the file does not define"
                yield cls._unknown(fault, mount.source, compose.volumes, mount.at)

    @classmethod
    def check_mounts(cls, container: Container, folder: Path) -> Iterator[Finding]:
        """Check that the files of `env_file` exist."""
        for name, at in container.service.env_files if container.service is not None else ():
            path = folder / dirname(at.file) / name
            if "$" in name or path.exists():
                continue
            example = next((other for other in _examples(path.name) if path.with_name(other).is_file()), "")
            copy = f"cp {join(dirname(name), example)} {name}, and fill it in" if example else f"write {name}"
            fix = f"Before it starts: {copy}; or `- path: {name}` with `required: false`."
            yield cls.finding(at, f"{container.name} reads `{name}`, which does not exist, so Compose refuses it.", fix)

    @classmethod
    def _unknown(cls, fault: str, name: str, known: Iterable[str], at: Location) -> Finding:
        similar = nearest(name, known)
        fix = f"Did you mean `{similar}`?" if similar else f"Define `{name}`, or remove it here."
        return cls.finding(at, f"{fault}, so Compose refuses it.", fix)


def _examples(name: str) -> list[str]:
    """Return the usual names of an example for a file such as `.env`."""
    words = ("example", "sample", "template", "dist")
    return [f"{name}.{word}" for word in words] + [f"{word}{name}" for word in words]


class DependsOnNoHealth(Rule):
    code = "depends-on-no-health"
    severity = "error"
    title = "A service waits for the health of one that has no health check."
    reason = "The other service never becomes healthy, so Compose stops with an error and this one never starts."
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    depends_on: {db: {condition: service_healthy}}\n"
        "  db:\n    image: postgres:17\n",
    }
    remedy = "Give the other service a `healthcheck`, such as `pg_isready` for PostgreSQL."

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        by_name = {container.name: container for container in containers}
        for container in containers:
            for name, condition, at in container.service.dependencies if container.service else ():
                if condition == "service_healthy" and name in by_name and _has_no_health(by_name[name]):
                    message = (
                        f"{container.name} waits until {name} is healthy, but {name} has no health check, "
                        "so it never starts."
                    )
                    yield cls.finding(at, message, f"Give {name} a healthcheck.")


def _has_no_health(container: Container) -> bool:
    """Return True if the file gives it no health check and its image is known to have none."""
    if container.health is not None or container.service is None:
        return False
    if container.service.node.get("healthcheck"):
        return container.service.node.get("healthcheck", "disable").text.lower() == "true"
    if container.image is not None:
        return container.final is not None and parse_image_name(container.final.base).known_root
    return parse_image_name(container.service.image).name in _WITHOUT_HEALTHCHECK


class DependsOnOrder(Rule):
    code = "depends-on-order"
    severity = "warning"
    title = "`depends_on` without a condition waits for the start, not for health."
    reason = (
        "A database needs seconds after its start until it accepts connections. A service that connects once, when it "
        "starts, fails on a slow machine and works on a fast one."
    )
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    depends_on: [db]\n  db:\n    image: postgres:17\n",
    }
    remedy = "Write `depends_on: {db: {condition: service_healthy}}`, and give `db` a `healthcheck`."

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        for container in containers:
            if container.service is not None:
                yield from cls._order(container.service)

    @classmethod
    def _order(cls, service: Service) -> Iterator[Finding]:
        started = [(name, at) for name, condition, at in service.dependencies if condition in ("", "service_started")]
        if started:
            names = [name for name, _ in started]
            have = "have" if len(names) > 1 else "has"
            message = f"{service.name} is started as soon as {listed(names)} {have} been started, ready or not."
            fix = f"Write depends_on: {{{names[0]}: {{condition: service_healthy}}}}, and give it a healthcheck."
            yield cls.finding(started[0][1], message, fix)


class ThreadsOverCpus(Rule):
    code = "threads-over-cpus"
    severity = "warning"
    title = "More threads or workers than the container's processors."
    reason = (
        "Threads beyond the limit are throttled by the kernel: all of them stop until the next period, and the slowest "
        "requests take many times longer."
    )
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    cpus: 2\n    environment: {OMP_NUM_THREADS: '8'}\n",
    }
    remedy = "Set the threads of each worker to the processors divided by the workers."

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        for container in containers:
            if container.service is not None and container.service.cpus:
                yield from cls._threads(container, container.service)

    @classmethod
    def _threads(cls, container: Container, service: Service) -> Iterator[Finding]:
        limit = ceil(service.cpus)
        workers = container.server.workers if container.server else 0
        for name in _THREADS:
            value = container.environment.get(name, "")
            number = int(value) if re.fullmatch(r"\d{1,4}", value) else 0
            if number > 1 and number * max(workers, 1) > limit:
                each = f" in each of {workers} workers" if workers > 1 else ""
                cpus = f"{service.name} may use {service.cpus:g} processors"
                message = f"{name} asks for {number} threads{each}, and {cpus}."
                fix = f"Set {name} to {max(limit // max(workers, 1), 1)}."
                yield cls.finding(container.variable_location(name), message, fix)
                return
        if workers > 2 * limit + 1:
            message = f"{workers} workers share the {service.cpus:g} processors that {service.name} may use."
            yield cls.finding(container.command_line[1], message, f"Start {limit} workers.")

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        quota = container.number("HostConfig", "CpuQuota") / (container.number("HostConfig", "CpuPeriod") or 100_000)
        cpus = container.number("HostConfig", "NanoCpus") / 1e9 or quota
        threads = container.environment.get("OMP_NUM_THREADS", "")
        if cpus > 0 and re.fullmatch(r"\d{1,4}", threads) and int(threads) > max(1, -(-cpus // 1)):
            message = f"OMP_NUM_THREADS asks for {threads} threads, and it may use {cpus:g} processors."
            yield cls.finding(container.at, message, f"Set OMP_NUM_THREADS to {max(1, int(cpus))}.")


class NoRestart(Rule):
    code = "no-restart"
    severity = "note"
    title = "A service that ends is not started again."
    reason = "After a crash, or a reboot of the machine, it stays down until a person starts it."
    example: ClassVar = {"compose.yaml": "services:\n  api:\n    build: .\n    mem_limit: 512m\n"}
    remedy = "Add `restart: unless-stopped`."

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        services = compose.services
        jobs = {
            name
            for service in services.values()
            for name, condition, _ in service.dependencies
            if condition == "service_completed_successfully"
        }
        complete = (service for service in _complete(services) if service.name not in jobs and not _ends(service))
        without = [service for service in complete if not _restarts(service)]
        if without:
            message = f"Nothing starts {listed(service.name for service in without)} again after a crash or a reboot."
            yield cls.finding(without[0].node.at, message, "Add restart: unless-stopped.")

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if container.runs and container.part("HostConfig", "RestartPolicy", "Name") in ("no", ""):
            message = "Nothing starts it again after a crash or a reboot."
            yield cls.finding(container.at, message, "Add restart: unless-stopped, or --restart unless-stopped.")


def _ends(service: Service) -> bool:
    """Return True for a job, by its name or by its last command: started again, it would run for ever."""
    text = " ".join([*(service.entrypoint or []), *(service.command or [])])
    last = [part.strip() for part in re.split(r"&&|;|\n", text) if part.strip(" '\"")][-1:]
    named = _JOB_NAME.search(service.name) or parse_image_name(service.image).name in ("minio/mc", "curlimages/curl")
    return bool(named or any(_JOB_COMMAND.search(part) for part in last))


def _restarts(service: Service) -> bool:
    return bool(service.node.get("restart") or service.node.get("deploy", "restart_policy"))


def _complete(services: dict[str, Service]) -> list[Service]:
    """Leave out services that only make sense over those of another file."""
    return [service for service in services.values() if service.build or service.image]


class NoLimits(Rule):
    code = "no-limits"
    severity = "note"
    title = "A service may take all memory of the machine."
    reason = "When memory runs out, the kernel kills a process of its choice, which may be the database."
    example: ClassVar = {"compose.yaml": "services:\n  api:\n    build: .\n    restart: unless-stopped\n"}
    remedy = "Measure what the service needs under load, and set `mem_limit` above it."

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        without = [service for service in _complete(compose.services) if not _limited(service)]
        if without:
            names = listed(service.name for service in without)
            message = f"{names} may take all memory of the machine, and other services are killed for it."
            yield cls.finding(without[0].node.at, message, "Add mem_limit: 512m, or what it needs.")

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if container.runs and not container.number("HostConfig", "Memory"):
            fix = "Give it a limit: mem_limit in the compose file, or --memory."
            yield cls.finding(container.at, "It may take all memory of the machine.", fix)


def _limited(service: Service) -> bool:
    variable = "$" in service.text("mem_limit") or "$" in service.text("deploy", "resources", "limits", "memory")
    return bool(service.memory) or variable


class ComposeVersion(Rule):
    code = "compose-version"
    severity = "note"
    title = "`version:` has no meaning in a compose file any more."
    reason = "Compose v2 ignores it and prints a warning each time."
    example: ClassVar = {
        "compose.yaml": "version: '3.8'\nservices:\n  api:\n    build: .\n    restart: unless-stopped\n"
        "    mem_limit: 512m\n",
    }
    remedy = "Remove the line."

    @classmethod
    def check_compose(cls, compose: Compose, containers: Sequence[Container]) -> Iterator[Finding]:
        version = compose.node.get("version")
        if version:
            message = "`version:` has had no meaning since Compose v2, which warns about it."
            yield cls.finding(version.at, message, "Remove the line.")
