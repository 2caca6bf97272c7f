"""Rules about hosts that only the container reaches, ports without a program, and published databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from estiba.doctor.finding import Finding
from estiba.doctor.read.containers import Container
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.rule import Rule

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DATABASES = {
    "postgres": 5432,
    "postgresql": 5432,
    "pgvector": 5432,
    "mysql": 3306,
    "mariadb": 3306,
    "mongo": 27017,
    "redis": 6379,
    "memcached": 11211,
    "elasticsearch": 9200,
    "clickhouse-server": 9000,
}
"""Images of databases, with the port of each."""

_PUBLIC_OPTION = {"gunicorn": "--bind 0.0.0.0:8000", "streamlit run": "--server.address 0.0.0.0"}


class LoopbackHost(Rule):
    code = "loopback-host"
    severity = "error"
    title = "The program listens on 127.0.0.1, which only its own container can reach."
    reason = (
        "A container has a loopback interface of its own. Published ports and other containers come in from its "
        "network interface, so their connections are refused or reset."
    )
    example: ClassVar = {
        "Dockerfile": 'FROM python:3.12-slim\nUSER 10001\nCMD ["uvicorn", "app.main:app", "--port", "8000"]\n',
    }
    remedy = "Listen on all interfaces: `--host 0.0.0.0`, for gunicorn `--bind 0.0.0.0:8000`."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        server = container.server
        if server is None or server.host not in _LOOPBACK or _host_network(container):
            return
        default = "" if server.host in " ".join(container.command_line[0]) else ", its default"
        message = f"{server.kind} listens on {server.host}{default}, which nothing outside the container can reach."
        host_option = "--ip 0.0.0.0" if server.kind.startswith("jupyter") else "--host 0.0.0.0"
        in_code = container.server_location != container.command_line[1]
        option = _PUBLIC_OPTION.get(server.kind, host_option)
        fix = 'Call run() with host="0.0.0.0".' if in_code else f"Start it with {option}."
        yield cls.finding(container.server_location, message, fix)

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        for port in container.published_ports if container.runs else ():
            hosts = container.listens.get(port, set())
            if hosts and all(host.startswith("127.") or host == "::1" for host in hosts):
                message = f"It listens on port {port} of {min(hosts)} only, so nothing reaches its published port."
                yield cls.finding(container.at, message, "Let the program listen on 0.0.0.0.")


def _host_network(container: Container) -> bool:
    return container.service is not None and container.service.text("network_mode") not in ("", "bridge")


class PortMismatch(Rule):
    code = "port-mismatch"
    severity = "error"
    title = "The published port leads to a port on which the program does not listen."
    reason = "Every connection to the published port is refused or reset, although the container is up."
    example: ClassVar = {
        "compose.yaml": "services:\n  api:\n    build: .\n    restart: unless-stopped\n    mem_limit: 512m\n"
        "    ports: ['8080:80']\n",
    }
    remedy = "Publish the port of the program as the second number: `8080:8000`."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        server = container.server
        if server is None or not server.port or _host_network(container) or container.service is None:
            return
        targets = {port.target for port in container.ports if port.target}
        if len(targets) == 1 and server.port not in targets:
            port = container.ports[0]
            message = (
                f"Port {port.target} of {container.name} is published, but {server.kind} listens on {server.port}."
            )
            yield cls.finding(port.at, message, f"Publish {port.published or port.target}:{server.port}.")

    @classmethod
    def check_running(cls, container: InspectedContainer) -> Iterator[Finding]:
        for port in container.published_ports if container.runs and container.listens else ():
            if port not in container.listens:
                message = f"Its port {port} is published, but it listens on {container.listening_ports}."
                fix = f"Publish port {min(container.listens)} of the container."
                yield cls.finding(container.at, message, fix)


class ExposeMismatch(Rule):
    code = "expose-mismatch"
    severity = "note"
    title = "EXPOSE names another port than the program listens on."
    reason = "EXPOSE opens no port; it tells people and tools which one to publish, here the wrong one."
    example: ClassVar = {
        "Dockerfile": "FROM python:3.12-slim\nUSER 10001\nEXPOSE 80\n"
        'CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000"]\n',
    }
    remedy = "Write the port on which the program listens."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        server, final, image = container.server, container.final, container.image
        published = any(port.target for port in container.ports)
        if server is None or not server.port or published or final is None or image is None:
            return
        steps = list(final.steps_of("EXPOSE"))
        exposed = [argument.partition("/")[0] for step in steps for argument in step.arguments]
        known = exposed and all(port.isdigit() for port in exposed) and not _host_network(container)
        if known and str(server.port) not in exposed:
            message = f"EXPOSE says {', '.join(exposed)}, but {server.kind} listens on {server.port}."
            yield cls.finding(image.at(steps[-1].instruction.line), message, f"Write EXPOSE {server.port}.")


class PublishedDatabase(Rule):
    code = "published-database"
    severity = "warning"
    title = "A database is published on all network interfaces."
    reason = (
        "Every machine that reaches the host reaches the database, past the firewall of the host, as Docker writes its "
        "own rules. Other services of the file reach it by its name, without a published port."
    )
    example: ClassVar = {
        "compose.yaml": "services:\n  db:\n    image: postgres:17\n    restart: unless-stopped\n    mem_limit: 512m\n"
        "    ports: ['5432:5432']\n",
    }
    remedy = "Remove the port, or publish it to this machine alone: `127.0.0.1:5432:5432`."

    @classmethod
    def check_container(cls, container: Container) -> Iterator[Finding]:
        image = container.service.image if container.service is not None and container.image is None else ""
        name = parse_image_name(image).name.rpartition("/")[2]
        if name not in _DATABASES or container.for_development:
            return
        for port in container.ports:
            if port.target == _DATABASES[name] and port.host in ("", "0.0.0.0", "::"):
                message = f"Port {port.target} of {container.name} is published on all interfaces of the machine."
                fix = f"Remove it, or publish 127.0.0.1:{port.published or port.target}:{port.target}."
                yield cls.finding(port.at, message, fix)
