"""Rules about the port, the program, the start period and the result of health checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import ClassVar

from estiba.doctor.finding import Finding, Location
from estiba.doctor.read.containers import Container, HealthCheck, health_programs
from estiba.doctor.read.dockerfile_stages import Stage, substitute
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.python_sources import MODEL_FILE
from estiba.doctor.rule import Rule

_ADDRESS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])(?::(\$\{?\w+(?::-\d+)?\}?|\d+))?(?=[/'\"\s)?]|$)"
)
_ADDRESS_WITH_PORT = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):(\d+)")
_WHOLE_ADDRESS = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])[^\s'\"|;)\]]*")
_CLIENTS = {"postgres": "pg_isready -U USER", "redis": "redis-cli ping", "rabbitmq": "rabbitmq-diagnostics -q ping"}
_ROUTES = {"streamlit": "/_stcore/health", "mlflow": "/health", "jupyter": "/api"}
"""The route for health of servers that bring one."""

_NETCAT = re.compile(r"\bnc\s+(?:-\w+\s+)*(?:localhost|127\.0\.0\.1)\s+(\d+)")
_PROGRAM_NOT_FOUND = re.compile(
    r"(?:exec: \"?(curl|wget|nc)\"?: executable file not found|(?:^|[\s:/])(curl|wget|nc): (?:command )?not found)",
    re.M,
)
_IMPORT_SECONDS = {"torch": 20.0, "tensorflow": 20.0, "transformers": 20.0, "keras": 20.0}
_START_SECONDS = 8.0
"""Python with scikit-learn may take as long to start on a busy machine."""

_MODEL_BYTES_PER_SECOND = 50e6
_SERVE = 'CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000"]\n'
_COPIES = "FROM python:3.12-slim\nWORKDIR /app\nCOPY models/ models/\nCOPY app/ app/\nUSER 10001\n"


class HealthPort(Rule):
    code = "health-port"
    severity = "error"
    title = "The health check asks a port on which the program does not listen."
    reason = "The container is always unhealthy: services that wait for it never start, and deployments are undone."
    example: ClassVar = {
        "Dockerfile": f"{_COPIES}HEALTHCHECK --start-period=30s CMD python -c "
        f"\"import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health')\"\n{_SERVE}",
    }
    remedy = "Ask the port on which the program listens inside the container, not the published one."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        server, health = container.server, container.health
        ports = _checked_ports(health, container) if health is not None else []
        if health is None or server is None or not server.port or not ports or server.port in ports:
            return
        message = f"The health check asks port {ports[0]}, but {server.kind} listens on {server.port}."
        fix = f"Ask http://127.0.0.1:{server.port}/ with the path of its health."
        yield cls.finding(health.at, message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        if not _fails(container) or _missing_program(container):
            return
        ports = _other_ports(container)
        if ports:
            message = f"Its health check asks port {ports[0]}, but it listens on {container.listening_ports}."
            yield cls.finding(container.at, message, f"Ask port {min(container.listens)}.")


def _checked_ports(health: HealthCheck, container: Container) -> list[int]:
    """Return the ports of this container that its health check asks."""
    text = substitute(health.text, container.environment)
    ports = []
    for match in _ADDRESS.finditer(text):
        port = match[1] or ("443" if match[0].startswith("https") else "80")
        ports += [int(port)] if port.isdigit() else []
    return ports + [int(port) for port in _NETCAT.findall(text)]


def _fails(container: InspectedContainer) -> bool:
    status = container.part("State", "Health", "Status")
    return status in ("unhealthy", "starting") and bool(container.last_probe)


def _missing_program(container: InspectedContainer) -> str:
    match = _PROGRAM_NOT_FOUND.search("\n".join(container.probes))
    return (match[1] or match[2]) if match else ""


def _other_ports(container: InspectedContainer) -> list[int]:
    """Return the ports that the health check asks, if the container listens on none of them."""
    text = substitute(container.check, container.environment)
    ports = [int(port) for port in _ADDRESS_WITH_PORT.findall(text)]
    return ports if container.listens and not set(ports) & set(container.listens) else []


class CurlMissing(Rule):
    code = "curl-missing"
    severity = "error"
    title = "The health check calls a program that the image does not have."
    reason = "Slim images have no curl, so the check always fails, and the container is always unhealthy."
    example: ClassVar = {
        "Dockerfile": f"{_COPIES}HEALTHCHECK --start-period=30s CMD curl -f http://127.0.0.1:8000/health\n{_SERVE}",
    }
    remedy = "Ask with what the image has: Python's `urllib.request`, or `estiba healthcheck`."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        health = container.health
        foreign = container.service.image if container.service and container.image is None else ""
        name = foreign or (container.final.base if container.final else "")
        for program in health_programs(health) if health is not None else ():
            if program.rpartition("/")[2] not in ("curl", "wget", "nc"):
                continue
            installed = container.final is not None and _installs(program, container.final)
            installed_at_start = program in " ".join(container.command_line[0])
            if parse_image_name(name).lacks(program) and not installed and not installed_at_start:
                assert health is not None
                probably = "probably " if foreign else ""
                message = (
                    f"The health check calls {program}, which `{name}` {probably}does not have, so it always fails."
                )
                yield cls.finding(health.at, message, _without_curl(container))
                return

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        program = _missing_program(container) if _fails(container) else ""
        if program:
            message = f"Its health check calls {program}, which the image does not have."
            fix = "Ask with what the image has, such as Python's urllib.request, or estiba healthcheck."
            yield cls.finding(container.at, message, fix)


def _installs(program: str, final: Stage) -> bool:
    package = "netcat" if program == "nc" else program
    copied = any(
        step.instruction.flags.get("from") and program in step.instruction.text for step in final.steps_of("COPY")
    )
    return copied or any(package in line.text for step in final.steps_of("RUN") for line in step.instruction.lines)


def _without_curl(container: Container) -> str:
    """Name a health check with what the image has, that asks the same address."""
    if container.server and container.server.kind.startswith("estiba"):
        return "Call estiba healthcheck."
    name = parse_image_name(container.service.image if container.service and container.image is None else "").name
    if name in _CLIENTS:
        return f"Ask with what the image has: {_CLIENTS[name]}."
    if not _has_python(container):
        install = "" if container.image is None else ", or install it in the last stage of the Dockerfile"
        return f"Ask with a program that the image has{install}."
    return (
        f"""Ask with Python: CMD ["python", "-c", "import urllib.request as u; u.urlopen('{_address(container)}')"]."""
    )


def _has_python(container: Container) -> bool:
    final = container.final
    base = final.base if final is not None else container.service.image if container.service is not None else ""
    runs = " ".join(step.text for step in final.steps_of("RUN")) if final is not None else ""
    program = " ".join(container.program[:1])
    return (
        re.search(r"python|conda|jupyter|mlflow|airflow|/uv\b", base) is not None
        or re.search(r"\bpython3?\b|\bpip3?\b|\buv\b", runs) is not None
        or (container.server is not None and container.server.kind != "")
        or program.rpartition("/")[2].startswith("python")
    )


def _address(container: Container) -> str:
    """Return the address that the health check asks; without one, the port of the server and its route for health."""
    asked = (
        _WHOLE_ADDRESS.search(substitute(container.health.text, container.environment)) if container.health else None
    )
    if asked is not None:
        return asked[0]
    port = container.server.port if container.server and container.server.port else 8000
    return f"http://127.0.0.1:{port}{_health_route(container) or '/health'}"


def _health_route(container: Container) -> str:
    """Return the route for health of a program, by its server or its code; empty if it has none."""
    kind = container.server.kind.partition(" ")[0] if container.server else ""
    if kind in _ROUTES:
        return _ROUTES[kind]
    routes = [
        argument.value
        for module in container.modules
        for call, _ in module.calls()
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]
    return next(
        (route for route in routes if re.fullmatch(r"/[\w/-]*(?:health|ready|live|ping|status)\w*/?", route)), ""
    )


class StartPeriodShort(Rule):
    code = "start-period-short"
    severity = "warning"
    title = "The container is called unhealthy before the program can have started."
    reason = (
        "Importing libraries and reading a model takes seconds, on a busy machine many. A container that is called "
        "unhealthy meanwhile is replaced, and the next one has no more time."
    )
    example: ClassVar = {
        "Dockerfile": f"{_COPIES}HEALTHCHECK --interval=2s --retries=2 CMD python -c "
        f"\"import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')\"\n{_SERVE}",
    }
    remedy = "Set `--start-period` to twice the time of a slow start: failures count only after it."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        """Compare the time to a start with the start period and as many intervals as there are retries."""
        health = container.health
        if health is None or container.image is None or container.server is None:
            return
        allowed = health.start + health.interval * health.retries
        needed = _start_seconds(container)
        if allowed < needed:
            message = (
                f"The container is called unhealthy {allowed:g} s after its start; "
                f"this program probably needs up to {needed:.0f} s to load on a busy machine."
            )
            yield cls.finding(health.at, message, f"Set the start period to {max(30, 2 * needed):.0f} s.")


def _start_seconds(container: Container) -> float:
    assert container.image is not None
    sizes = [entry.size for path, entry in container.image.context.entries.items() if MODEL_FILE.search(path)]
    imported = {name for module in container.modules for name in _imported_packages(module.tree)}
    slowest = max((seconds for name, seconds in _IMPORT_SECONDS.items() if name in imported), default=0.0)
    return _START_SECONDS + slowest + max(sizes, default=0) / _MODEL_BYTES_PER_SECOND


def _imported_packages(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


class NoHealthcheck(Rule):
    code = "no-healthcheck"
    severity = "note"
    title = "Nothing checks whether the program answers."
    reason = "A program that hangs is still running, so nothing replaces it and no service can wait for it."
    example: ClassVar = {"Dockerfile": f"{_COPIES}{_SERVE}"}
    remedy = "Add a HEALTHCHECK that asks the program over HTTP."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        image, final, service = container.image, container.final, container.service
        if container.health is not None or image is None or final is None or container.for_development:
            return
        switched_off = final.last_step("HEALTHCHECK") or (service and service.node.get("healthcheck"))
        if container.server is None or switched_off:
            return
        at = service.node.at if service else Location(image.file, final.instruction.line)
        message = f"Nothing checks the health of {container.name or 'the program'}, so a hang is not noticed."
        missing = bool(container.modules) and not _health_route(container)
        route = ", and a route for it to the program" if missing else ""
        yield cls.finding(at, message, f"Add a HEALTHCHECK{route}. {_without_curl(container)}")


class Unhealthy(Rule):
    code = "unhealthy"
    severity = "error"
    title = "The health check of a running container fails."
    reason = "The program does not answer, or not as its health check expects; other services wait for it in vain."
    example: ClassVar = {"docker inspect": '"Health": {"Status": "unhealthy"}\n'}
    remedy = "Run the command of the health check in the container: `docker exec NAME COMMAND`."
    shown_by = "test_a_health_check_that_fails"

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        unhealthy = container.part("State", "Health", "Status") == "unhealthy" and _fails(container)
        if unhealthy and not _missing_program(container) and not _other_ports(container):
            output = " ".join(container.last_probe.split())[-200:]
            command = re.sub(r"^(?:CMD-SHELL|CMD)\s+", "", container.check)[:200]
            fix = f"Try it by hand: docker exec {container.name} {command}"
            yield cls.finding(container.at, f"Its health check fails: {output}.", fix)
