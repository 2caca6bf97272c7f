"""Front: an nginx before what serves models, so that Compose can replace containers without losing a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from estiba.deploy.image.spec import image_spec
from estiba.deploy.plan.plan import Plan, Service

NAME = "front"
FILE = "nginx.conf"
NETWORK = "front"
"""The network of the front and what stands behind it, and of nobody else."""

ALIVE = "/tmp/alive.sock"
"""The socket, in its container only, that says whether nginx itself answers: a port could be a service's."""

DNS_CACHE_SECONDS = 2.5
"""Seconds after which the front surely knows a new container: it remembers what a name means for up to two, as nginx
counts one second of validity in whole seconds."""


def behind(plan: Plan) -> tuple[Service, ...]:
    """The services that the front stands before: those that serve models and are published."""
    return tuple(service for service in plan.services if service.models and service.published is not None)


def prepared(plan: Plan) -> Plan:
    """The plan in which what is behind the front listens, in its container, at the port that it is published at.

    Docker may give a stopped container's address to the next one while the front, and others, still remember it. A
    port that belongs to one service only keeps a request for one model from another.
    """
    served = {service.name for service in behind(plan)}
    services = (replace(one, port=one.published) if one.name in served else one for one in plan.services)
    return replace(plan, services=tuple(services))


def behind_it(plan: Plan, service: Service) -> dict[str, Any]:
    """What the front changes in the Compose service of something behind it, in a plan that is prepared."""
    networks = {"frontend": {}, "backend": {}, NETWORK: {"aliases": [_alias(service)]}}
    return {"command": [*image_spec(plan, service).process.command, "--port", str(service.port)], "networks": networks}


def definition(plan: Plan, image: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    """What is the front's own in its Compose service.

    Args:
        ports: that it publishes for the services behind it.
    """
    return {
        "image": image,
        "command": ["nginx", "-c", f"/etc/nginx/{FILE}", "-g", "daemon off;"],
        "user": "101:101",
        "ports": ports,
        "healthcheck": {
            "test": ["CMD", "curl", "--silent", "--fail", "--unix-socket", ALIVE, f"http://{NAME}/"],
            "start_period": "30s",
        },
        "depends_on": {service.name: {"condition": "service_healthy"} for service in behind(plan)},
        "networks": ["frontend", NETWORK],
    }


def configuration(plan: Plan) -> str:
    """The nginx.conf of the front."""
    return "\n".join([_HEAD, *(line for service in behind(plan) for line in _server(service)), "}"]) + "\n"


def _alias(service: Service) -> str:
    """Its name on the front's network only: no service can have a name with a dot."""
    return f"{service.name}.{NETWORK}"


def _server(service: Service) -> Iterator[str]:
    yield "  server {"
    yield f"    listen {service.published} backlog=4096;"  # 511 are soon full where nginx has to wait for a processor
    yield f"    set $target {_alias(service)};"
    yield "    location / {"
    yield f"      proxy_pass http://$target:{service.port};"
    yield "    }"
    yield "  }"


_HEAD = f"""\
# Written by Estiba. Each name is looked up anew every second and may have several addresses: old and new containers.
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
  # A prediction changes nothing, so one that a stopping container did not answer may be asked of another.
  proxy_next_upstream error timeout non_idempotent;
  proxy_connect_timeout 1s;
  proxy_read_timeout 300s;
  server {{
    listen unix:{ALIVE};
    location / {{
      return 200;
    }}
  }}"""
