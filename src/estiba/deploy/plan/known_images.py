"""Complete the settings of services whose image is PostgreSQL, Redis or RabbitMQ, so that the image alone is enough.

The settings are those that the official images need to run as a user of their own, without privileges and on a
read-only file system. Whatever the project file sets stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from estiba.deploy.plan.plan import Service
from estiba.deploy.plan.service_options import ServiceOptions

_POSTGRES_DATA = "/var/lib/postgresql/data"

_SERVERS = ("postgres", "redis-server", "rabbitmq-server", "docker-entrypoint.sh")

_POSTGRES_PASSWORDS = ("POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRES_HOST_AUTH_METHOD")


@dataclass(frozen=True)
class KnownImage:
    """The settings of an official image.

    Args:
        user: of the image on Debian. alpine: of the one on Alpine Linux.
    """

    port: int
    user: int
    alpine: int
    health: tuple[str, ...]
    volumes: dict[str, str]
    writable: tuple[str, ...] = ()
    stop_signal: Literal["SIGINT"] | None = None
    environment: dict[str, str] = field(default_factory=dict)


_REDIS = KnownImage(6379, 999, 999, ("redis-cli", "-p", "${port}", "ping"), {"data": "/data"})

_RABBITMQ = KnownImage(
    port=5672,
    user=999,
    alpine=100,
    health=("rabbitmq-diagnostics", "--quiet", "check_port_connectivity"),
    volumes={"data": "/var/lib/rabbitmq"},
    writable=("/etc/rabbitmq/conf.d", "/var/log/rabbitmq"),
)


def complete(name: str, options: ServiceOptions) -> ServiceOptions:
    """The options of a service with the settings of its image, where that is a known one.

    A service without `port` is not published: it gets a port for the services that refer to it.
    """
    known = _known(name, options)
    if known is None or not _runs_server(options):
        return options
    secrets = [secret for secret in (f"{name}-password",) if f"${{secrets.{secret}}}" in known.environment.values()]
    return msgspec.structs.replace(
        options,
        port=options.port or known.port,
        public=options.public and options.port is not None,
        health=options.health or known.health,
        user=_user(options, known) if options.user is None else options.user,
        volumes=options.volumes or known.volumes,
        writable=options.writable or known.writable,
        stop_signal=options.stop_signal or known.stop_signal,
        environment={**known.environment, **options.environment},
        secrets=tuple(dict.fromkeys((*options.secrets, *secrets))),
    )


def environment_in_cluster(service: Service) -> dict[str, str]:
    """Variables that a known image needs on Kubernetes only.

    A volume there belongs to root, and PostgreSQL takes no folder that it does not own.
    """
    if _official_name(service.image)[0] == "postgres" and _POSTGRES_DATA in service.volumes.values():
        return {"PGDATA": f"{_POSTGRES_DATA}/pgdata"}
    return {}


def _runs_server(options: ServiceOptions) -> bool:
    """Return whether the image runs the server that it is for, and not a client of it, such as a backup."""
    words = options.command.split() if isinstance(options.command, str) else options.command
    return options.restart and (not words or words[0].startswith("-") or words[0] in _SERVERS)


def _known(name: str, options: ServiceOptions) -> KnownImage | None:
    image, tag = _official_name(options.image)
    if image == "postgres":
        return _postgres(name, tag, options)
    return {"redis": _REDIS, "rabbitmq": _RABBITMQ}.get(image)


def _postgres(name: str, tag: str, options: ServiceOptions) -> KnownImage:
    account = options.environment.get("POSTGRES_USER", "postgres")
    asked = ("--username", account if "$" not in account else "postgres", "--dbname", "postgres")
    environment = {} if options.port in (None, 5432) else {"PGPORT": "${port}"}
    if not any(key in options.environment for key in _POSTGRES_PASSWORDS):
        environment["POSTGRES_PASSWORD_FILE"] = f"${{secrets.{name}-password}}"
    version = tag.partition(".")[0].partition("-")[0]
    is_old = version.isdecimal() and int(version) < 18
    return KnownImage(
        port=5432,
        user=999,
        alpine=70,
        # While a first start still creates the database, PostgreSQL listens on a socket alone.
        health=("pg_isready", "--host", "127.0.0.1", "--port", "${port}", *asked),
        volumes={"data": _POSTGRES_DATA if is_old else "/var/lib/postgresql"},
        writable=("/var/run/postgresql",),
        stop_signal="SIGINT",
        environment=environment,
    )


def _user(options: ServiceOptions, known: KnownImage) -> int:
    return known.alpine if "alpine" in _official_name(options.image)[1] else known.user


def _official_name(image: str) -> tuple[str, str]:
    """The name and the tag of an official image, such as docker.io/library/postgres:17; ("", "") for any other."""
    name, _, tag = image.partition("@")[0].removeprefix("docker.io/").removeprefix("library/").partition(":")
    return ("", "") if "/" in name or not name else (name, tag)
