"""The health check that runs inside a container: the rendered command, run against a real local server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import plan

from estiba.core import ports
from estiba.deploy.compose import render
from estiba.deploy.compose.render import ComposeOptions
from estiba.deploy.image import spec
from estiba.deploy.plan import health
from estiba.deploy.plan.plan import Build, Http, PlannedModel, Service

PROXY = "http://127.0.0.1:9"
"""A proxy that is not there: what asks it fails."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/health": 200, "/moved": 302}.get(self.path, 503)
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/health")
        self.send_header("content-length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Do not write to standard error."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that is healthy at /health."""
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def run(argv: list[str]) -> int:
    """Run a command with proxies in its environment, as Docker's client configuration puts them there."""
    programs = {"python": sys.executable, "estiba": str(Path(sys.executable).with_name("estiba"))}
    variables = {name: PROXY for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY")}
    environment = {**os.environ, **variables, "no_proxy": "", "NO_PROXY": ""}
    done = subprocess.run([programs.get(argv[0], argv[0]), *argv[1:]], env=environment, timeout=60)
    return done.returncode


def composed(folder: Path, text: str) -> list[str]:
    """The health check of the service `web` in compose.yaml."""
    files = render.render(plan(folder, text), ComposeOptions())
    test = yaml.safe_load(files.texts["compose.yaml"])["services"]["web"]["healthcheck"]["test"]
    assert test[0] == "CMD"
    return [str(argument) for argument in test[1:]]


BUILT = '[services.web]\ncommand = "web"\nport = {port}\n{health}'


@pytest.mark.slow
@pytest.mark.parametrize(("path", "code"), [("/health", 0), ("/moved", 1), ("/other", 1)])
def test_compose_asks_an_application_without_a_proxy(tmp_path: Path, port: int, path: str, code: int) -> None:
    assert run(composed(tmp_path, BUILT.format(port=port, health=f'health = "{path}"'))) == code


@pytest.mark.slow
def test_compose_connects_to_an_application_without_a_path(tmp_path: Path, port: int) -> None:
    assert run(composed(tmp_path, BUILT.format(port=port, health=""))) == 0
    assert run(composed(tmp_path, BUILT.format(port=ports.free("127.0.0.1"), health=""))) == 1


@pytest.mark.slow
def test_compose_asks_an_image_of_others_without_a_proxy(tmp_path: Path, port: int) -> None:
    if shutil.which("wget") is None:
        pytest.skip("wget is not installed here")
    text = f'[services.web]\nimage = "web:1"\nport = {port}\nhealth = "/health"'
    assert run(composed(tmp_path, text)) == 0
    assert run(composed(tmp_path, text.replace("/health", "/other"))) != 0


@pytest.mark.slow
def test_models_are_asked_without_a_proxy(port: int) -> None:
    model = PlannedModel("iris", "1", "0" * 64, Path(), "onnx", {})
    build = Build("models", "slim", "3.12")
    service = Service("models", "models:1", build, port=port, health=Http("/health"), models=(model,))
    assert run(list(health.command(service, str))) == 0


def test_an_image_and_compose_have_the_same_health_check(tmp_path: Path) -> None:
    text = BUILT.format(port=5000, health='health = "/health"')
    found = plan(tmp_path, text)
    assert list(spec.image_spec(found, found["web"]).process.health) == composed(tmp_path, text)


def test_a_service_without_a_port_or_a_program_to_connect_has_no_health_check() -> None:
    assert health.command(Service("web", "web:1"), str) == ()
