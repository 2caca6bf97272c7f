"""Front: an nginx before what serves models, so that Compose can replace containers without losing a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from estiba.deploy.plan import Plan, Service

NAME = "front"
FILE = "nginx.conf"
ALIVE = 8080
"""The port, in its container only, that says whether nginx itself answers."""


def behind(plan: Plan) -> tuple[Service, ...]:
    """The services that the front stands before: those that serve models and are published."""
    return tuple(service for service in plan.services if service.models and service.published is not None)


def definition(plan: Plan, image: str, ports: list[str]) -> dict[str, Any]:
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
            "test": ["CMD", "curl", "--silent", "--fail", f"http://127.0.0.1:{ALIVE}/"],
            "interval": "5s",
            "timeout": "5s",
            "retries": 3,
            "start_period": "30s",
            "start_interval": "1s",
        },
        "depends_on": {service.name: {"condition": "service_healthy"} for service in behind(plan)},
        "networks": ["frontend", "backend"],
    }


def configuration(plan: Plan) -> str:
    """The nginx.conf of the front."""
    return "\n".join([_HEAD, *(line for service in behind(plan) for line in _server(service)), "}"]) + "\n"


def _server(service: Service) -> Iterator[str]:
    yield "  server {"
    yield f"    listen {service.published};"
    yield f"    set $target {service.name};"
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
    listen {ALIVE};
    location / {{
      return 200;
    }}
  }}"""
