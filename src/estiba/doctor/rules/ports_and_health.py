"""Whether a container can be reached, and its health check tells the truth: hosts, ports, programs, time to start."""

from __future__ import annotations

import re
from collections.abc import Iterator

from estiba.doctor.catalogue import Finding, Location, finding
from estiba.doctor.read.containers import Container, HealthCheck, Image, for_development, health_programs
from estiba.doctor.read.dockerfile_stages import Stage, substitute
from estiba.doctor.read.python_sources import MODEL_FILE
from estiba.doctor.rules.base_images import base

_ADDRESS = re.compile(
    r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\])(?::(\$\{?\w+(?::-\d+)?\}?|\d+))?(?=[/'\"\s)?]|$)"
)
_NETCAT = re.compile(r"\bnc\s+(?:-\w+\s+)*(?:localhost|127\.0\.0\.1)\s+(\d+)")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEAVY = {"torch": 20.0, "tensorflow": 20.0, "transformers": 20.0, "keras": 20.0}
_START, _READ = 8.0, 50e6
"""Seconds that Python with scikit-learn may take to start on a busy machine; bytes of a model read a second."""


def check(container: Container) -> Iterator[Finding]:
    """What is wrong with a container as others see it."""
    yield from _host(container)
    yield from _ports(container)
    yield from _server(container)
    yield from _shell_form(container)
    health = container.health
    if health is not None:
        yield from _health_port(container, health)
        yield from _health_program(container, health)
        yield from _start(container, health)
    elif container.image is not None and container.final is not None and not container.for_development:
        yield from _none(container, container.image, container.final)


def _host(container: Container) -> Iterator[Finding]:
    server = container.server
    if server is None or server.host not in _LOOPBACK or _host_network(container):
        return
    told = "" if server.host in " ".join(container.command_line[0]) else ", as nothing tells it otherwise"
    message = f"{server.kind} listens on {server.host}{told}, which nothing outside the container can reach."
    option = {"gunicorn": "--bind 0.0.0.0:8000", "streamlit run": "--server.address 0.0.0.0"}.get(server.kind, "")
    option = option or ("--ip 0.0.0.0" if server.kind.startswith("jupyter") else "--host 0.0.0.0")
    own = container.server_location != container.command_line[1]
    fix = 'Give run() host="0.0.0.0".' if own else f"Give it {option}."
    yield finding("loopback-host", container.server_location, message, fix)


def _host_network(container: Container) -> bool:
    return container.service is not None and container.service.text("network_mode") not in ("", "bridge")


def _ports(container: Container) -> Iterator[Finding]:
    server = container.server
    if server is None or not server.port or _host_network(container):
        return
    targets = {port.target for port in container.ports if port.target}
    if targets and server.port not in targets and container.service is not None and len(targets) == 1:
        port = container.ports[0]
        message = f"Port {port.target} of {container.name} is published, but {server.kind} listens on {server.port}."
        fix = f"Publish {port.published or port.target}:{server.port}."
        yield finding("port-mismatch", port.at, message, fix)
    elif not targets and container.final is not None and container.image is not None:
        yield from _exposed(container, container.final, container.image, server.port)


def _exposed(container: Container, final: Stage, image: Image, port: int) -> Iterator[Finding]:
    steps = list(final.steps_of("EXPOSE"))
    said = [word.partition("/")[0] for step in steps for word in step.words]
    if said and all(word.isdigit() for word in said) and str(port) not in said and container.server is not None:
        message = f"EXPOSE says {', '.join(said)}, but {container.server.kind} listens on {port}."
        yield finding("expose-mismatch", image.at(steps[-1].instruction.line), message, f"Write EXPOSE {port}.")


def _server(container: Container) -> Iterator[Finding]:
    server = container.server
    at = container.server_location
    if server is None or container.for_development or for_development(at.file):
        return
    if server.debugs:
        message = f"{server.kind} runs with its debugger, which runs any code for whoever reaches the port."
        yield finding(
            "debug-mode", at, message, f"Take the debugger out, and start the application with {_proper(server.kind)}."
        )
    elif server.for_development and server.kind.partition(" ")[0] in ("flask", "fastapi"):
        message = f"{server.kind} is made for development: it is slow and not hardened."
        yield finding("development-server", at, message, f"Start the application with {_proper(server.kind)}.")
    elif server.for_development:
        message = f"{server.kind} watches its files and starts again at each change."
        yield finding(
            "development-server", at, message, "Take --reload out, or put it in a compose file for development."
        )


def _proper(kind: str) -> str:
    return "fastapi run" if kind.startswith("fastapi") else "gunicorn --bind 0.0.0.0:8000 MODULE:app"


def asked(health: HealthCheck, container: Container) -> list[int]:
    """The ports that a health check asks on this very container."""
    text = substitute(health.text, container.environment)
    ports = []
    for found in _ADDRESS.finditer(text):
        port = found[1] or ("443" if found[0].startswith("https") else "80")
        ports += [int(port)] if port.isdigit() else []
    return ports + [int(port) for port in _NETCAT.findall(text)]


def _health_port(container: Container, health: HealthCheck) -> Iterator[Finding]:
    server = container.server
    ports = asked(health, container)
    if server is None or not server.port or not ports or server.port in ports:
        return
    message = f"The health check asks port {ports[0]}, but {server.kind} listens on {server.port}."
    yield finding(
        "health-port", health.at, message, f"Ask http://127.0.0.1:{server.port}/ with the path of its health."
    )


def _health_program(container: Container, health: HealthCheck) -> Iterator[Finding]:
    foreign = container.service.image if container.service and container.image is None else ""
    name = foreign or (container.final.base if container.final else "")
    for program in health_programs(health):
        if program.rpartition("/")[2] not in ("curl", "wget", "nc"):
            continue
        known = base(name)
        if not known.lacks(program) or (container.final and _installed(program, container.final)):
            continue
        if program in " ".join(container.command_line[0]):  # installed at the start
            continue
        probably = "probably " if foreign else ""
        message = f"The health check calls {program}, which `{name}` {probably}does not have, so it always fails."
        yield finding("curl-missing", health.at, message, _instead(container))
        return


def _instead(container: Container) -> str:
    port = container.server.port if container.server and container.server.port else 8000
    if container.server and container.server.kind.startswith("estiba"):
        return "Call estiba healthcheck."
    address = f"http://127.0.0.1:{port}/health"
    return f"""Ask with Python: CMD ["python", "-c", "import urllib.request as u; u.urlopen('{address}')"]."""


def _installed(program: str, final: Stage) -> bool:
    package = "netcat" if program == "nc" else program
    brought = any(
        step.instruction.flags.get("from") and program in step.instruction.text for step in final.steps_of("COPY")
    )
    return brought or any(package in line.text for step in final.steps_of("RUN") for line in step.instruction.lines)


def _start(container: Container, health: HealthCheck) -> Iterator[Finding]:
    """Failures count after the start period; the container is unhealthy after as many as `retries`."""
    if container.image is None or container.server is None:
        return
    given = health.start + health.interval * health.retries
    needed = _needed(container)
    if given < needed:
        message = (
            f"The container is called unhealthy {given:g} s after its start; "
            f"this program probably needs up to {needed:.0f} s to load on a busy machine."
        )
        yield finding("start-period-short", health.at, message, f"Set the start period to {max(30, 2 * needed):.0f} s.")


def _needed(container: Container) -> float:
    assert container.image is not None
    sizes = [entry.size for path, entry in container.image.context.entries.items() if MODEL_FILE.search(path)]
    imported = {name for read in container.modules for name in _tops(read.tree)}
    heavy = max((seconds for name, seconds in _HEAVY.items() if name in imported), default=0.0)
    return _START + heavy + max(sizes, default=0) / _READ


def _tops(tree: object) -> Iterator[str]:
    import ast

    assert isinstance(tree, ast.AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _none(container: Container, image: Image, final: Stage) -> Iterator[Finding]:
    chosen = final.last_step("HEALTHCHECK") or (container.service and container.service.node.get("healthcheck"))
    if container.server is None or chosen:  # HEALTHCHECK NONE was meant
        return
    at = container.service.node.at if container.service else Location(image.file, final.instruction.line)
    message = f"Nothing checks the health of {container.name or 'the program'}, so nobody notices when it hangs."
    yield finding("no-healthcheck", at, message, f"Add a HEALTHCHECK. {_instead(container)}")


def _shell_form(container: Container) -> Iterator[Finding]:
    """A shell as process 1: it passes on no signal."""
    words, at = container.command_line
    if len(words) < 3 or words[0].rpartition("/")[2] not in ("sh", "bash", "ash", "dash") or words[1] != "-c":
        return
    init = container.service is not None and container.service.text("init") == "true"
    if container.image is None and container.server is None:  # a job that ends by itself
        return
    if re.search(r"(?:^|[;&\n]\s*)exec\s", words[2]) or words[2].startswith("[") or init:
        return
    kind = "CMD" if container.final and container.final.last_step("CMD") else "ENTRYPOINT"
    program = " ".join(container.program[:2]) or words[2].partition(" ")[0]
    message = f"{kind} in shell form: the shell is process 1 and passes no SIGTERM on to {program}."
    yield finding("shell-form", at, message, f'Write a list, {kind} ["...", "..."], or put exec before the command.')
