"""`[server]` of the project file."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from estiba.core.log import Format
from estiba.serving.http.connection import HttpOptions
from estiba.serving.telemetry.tracing import TelemetryOptions


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Options of the model server.

    Args:
        host: the address to listen on.
        port: 0 lets the system choose a free one.
        unix: path of a Unix socket to listen on instead; of `estiba serve` only.
        certificate: PEM file of the server's certificate and those of its issuers, for HTTPS; of `estiba serve` only.
        certificate_key: PEM file of its private key.
        workers: worker processes; by default as many as the processors that this process may use.
        threads: threads of native libraries for one batch; by default the processors divided by the workers.
        drain: seconds for requests in flight to finish after a signal to stop.
        shutdown_delay: seconds for which readiness fails, and requests are still answered, before the server drains.
        start_timeout: seconds that a worker may take to load its models, at its start or for a newer version.
        poll: seconds between checks of the registry for aliases that moved; a bucket may charge for each check.
        max_restarts: workers that may die within a minute before liveness fails.
        log: `json`, `text`, or `auto`, which is text on a terminal.
        access_log: the share of requests that get a line in the log, 0 to 1; responses from 500 up always do.
        access_log_limit: lines per second and worker, and as many again of failures; lines beyond it are counted.
        request_timeout: seconds until a prediction request expires; a caller's X-Request-Timeout may shorten it.
        max_connections: clients connected at once, all workers together; further clients get a 503, except for
            health checks. By default as many as the descriptors of one process allow.
        max_queued_rows: rows that may wait for a model in each worker; beyond this a request is refused at once.
        default: the model that answers `POST /predict`; by default the only one.
        insecure: allow a host other than loopback although requests are not authenticated.
        trusted_proxies: addresses and networks of the proxies before this server, such as `10.0.0.0/8`, whose
            Forwarded and X-Forwarded headers are believed; `unix` for those that come by a Unix socket.
        prefix: the path below which clients reach this server, such as `/ml`; all paths answer with and without it.
        compress_from: size in bytes from which answers are compressed, for clients that accept gzip; by default none
            are.
        hsts: seconds for which browsers use only HTTPS for this host and all its ports, as pages ask them to where
            clients come by HTTPS; 0 does not ask.
        log_clients: name the client's address in lines of the access log.
        http: limits of a connection.
        telemetry: spans for OpenTelemetry.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    unix: str = ""
    certificate: str = ""
    certificate_key: str = ""
    workers: Annotated[int, Meta(ge=1)] | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None
    drain: Annotated[float, Meta(ge=0)] = 10.0
    shutdown_delay: Annotated[float, Meta(ge=0)] = 0.0
    start_timeout: Annotated[float, Meta(gt=0)] = 60.0
    poll: Annotated[float, Meta(ge=0.1)] = 0.5
    max_restarts: Annotated[int, Meta(ge=0)] = 5
    log: Format = "auto"
    access_log: Annotated[float, Meta(ge=0, le=1)] = 1.0
    access_log_limit: Annotated[int, Meta(ge=1)] = 200
    request_timeout: Annotated[float, Meta(gt=0)] = 30.0
    max_connections: Annotated[int, Meta(ge=1)] | None = None
    max_queued_rows: Annotated[int, Meta(ge=1)] = 20_000
    default: str = ""
    insecure: bool = False
    trusted_proxies: tuple[str, ...] = ()
    prefix: str = ""
    compress_from: Annotated[int, Meta(ge=1024)] | None = None
    hsts: Annotated[int, Meta(ge=0)] = 0
    log_clients: bool = False
    http: HttpOptions = HttpOptions()
    telemetry: TelemetryOptions = TelemetryOptions()
