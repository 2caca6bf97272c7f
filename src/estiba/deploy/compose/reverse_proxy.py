"""Configure nginx as the reverse proxy of model servers, so that Compose can replace them without losing a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from estiba.deploy.image.spec import image_spec
from estiba.deploy.plan.plan import Plan, Service

NAME = "front"
FILE = "nginx.conf"
NETWORK = "front"
"""The network of the reverse proxy and the services behind it only."""

HEALTH_SOCKET = "/tmp/alive.sock"
"""The socket of the health check of nginx itself: every port belongs to a service behind it."""

DNS_CACHE_SECONDS = 2.5
"""Time after which nginx resolves a name again: up to two seconds, as it counts `valid=1s` in whole seconds."""


def behind(plan: Plan) -> tuple[Service, ...]:
    """Return the services behind the reverse proxy: model servers with a published port."""
    return tuple(service for service in plan.services if service.models and service.published is not None)


def use_published_ports(plan: Plan) -> Plan:
    """Return the plan with services behind the proxy listening at their published port, in their containers too.

    Docker may give a stopped container's address to the next one while nginx still has it in its cache. As every
    service has its own port, a request for one model does not reach the server of another.
    """
    names = {service.name for service in behind(plan)}
    services = tuple(
        replace(service, port=service.published) if service.name in names else service for service in plan.services
    )
    return replace(plan, services=services)


def service_behind(plan: Plan, service: Service) -> dict[str, Any]:
    """Return the settings of a Compose service behind the proxy, in a plan with published ports."""
    networks = {"frontend": {}, "backend": {}, NETWORK: {"aliases": [_alias(service)]}}
    return {"command": [*image_spec(plan, service).process.command, "--port", str(service.port)], "networks": networks}


def definition(plan: Plan, image: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the Compose service of the proxy.

    Args:
        ports: published for the services behind it.
    """
    return {
        "image": image,
        "command": ["nginx", "-c", f"/etc/nginx/{FILE}", "-g", "daemon off;"],
        "user": "101:101",
        "ports": ports,
        "healthcheck": {
            "test": ["CMD", "curl", "--silent", "--fail", "--unix-socket", HEALTH_SOCKET, f"http://{NAME}/"],
            "start_period": "30s",
        },
        "depends_on": {service.name: {"condition": "service_healthy"} for service in behind(plan)},
        "networks": ["frontend", NETWORK],
    }


def configuration(plan: Plan) -> str:
    """Return the nginx.conf of the proxy."""
    return "\n".join([_HEAD, *(line for service in behind(plan) for line in _server(service)), "}"]) + "\n"


def _alias(service: Service) -> str:
    """Return the name of a service on the network of the proxy. Names of services have no dot, so it is unique."""
    return f"{service.name}.{NETWORK}"


def _server(service: Service) -> Iterator[str]:
    yield "  server {"
    # The default backlog of 511 fills up while nginx waits for a processor.
    yield f"    listen {service.published} backlog=4096;"
    yield f"    set $target {_alias(service)};"
    yield "    location / {"
    yield f"      proxy_pass http://$target:{service.port};"
    yield "    }"
    yield "  }"


_HEAD = f"""\
# Rendered by Estiba. Names are resolved again every second; one may have several addresses: old and new containers.
pid /tmp/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{
  worker_connections 4096;
}}
http {{
  access_log off;
  server_tokens off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  resolver 127.0.0.11 valid=1s ipv6=off;
  client_max_body_size 0;
  keepalive_timeout 65s;
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  # A prediction changes nothing, so a request that a stopping container did not answer may be repeated to another.
  proxy_next_upstream error timeout non_idempotent;
  proxy_connect_timeout 1s;
  proxy_read_timeout 300s;
  server {{
    listen unix:{HEALTH_SOCKET};
    location / {{
      return 200;
    }}
  }}"""
