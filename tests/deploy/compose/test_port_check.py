"""Ports that a deployment would publish: what has one already is named before anything changes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Docker

from estiba.cli.main import run
from estiba.core.ports import free

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

WEB = """
[project]
name = "{name}"

[services.web]
image = "debian:bookworm-slim"
command = ["sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"]
port = {port}
health = ["true"]
"""


@pytest.fixture
def port(docker: Docker, tmp_path: Path) -> Iterator[int]:
    """A project whose one service publishes this port."""
    docker.need("debian:bookworm-slim")
    found = free("127.0.0.1")
    (tmp_path / "estiba.toml").write_text(WEB.format(name=f"{docker.name}-p", port=found))
    yield found
    if (tmp_path / "deploy").exists():
        docker("compose", "down", "--timeout", "1", folder=tmp_path / "deploy" / "compose")


def deploy(folder: Path) -> int:
    return run(["deploy", "compose", "-C", str(folder), "--yes"])


def test_a_process_that_has_the_port_is_named(port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", port)):
        assert deploy(tmp_path) == 5
    said = capsys.readouterr().err
    assert f"Port {port} of web cannot be published: Address already in use, by process " in said
    assert "Nothing was changed." in said
    assert not (tmp_path / "deploy").exists()


def test_a_container_that_has_the_port_is_named(
    port: int, docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = [docker.label, f"--name={docker.name}-holder", f"--publish=127.0.0.1:{port}:80"]
    docker("run", "--detach", *held, "debian:bookworm-slim", "sleep", "100")
    try:
        assert deploy(tmp_path) == 5
    finally:
        docker("rm", "--force", f"{docker.name}-holder")
    assert f"the container {docker.name}-holder publishes it" in capsys.readouterr().err


def test_what_the_project_publishes_itself_is_no_trouble(port: int, docker: Docker, tmp_path: Path) -> None:
    assert deploy(tmp_path) == 0
    file = tmp_path / "estiba.toml"
    file.write_text(file.read_text().replace("[services.web]", "[services.shop]"))
    assert deploy(tmp_path) == 0
    assert docker("ps", "--filter", f"publish={port}", "--format", "{{.Names}}") == f"{docker.name}-p-shop-1"


def test_a_container_between_two_restarts_does_not_block_its_own_repair(
    port: int, docker: Docker, tmp_path: Path
) -> None:
    """Docker lists no ports of a container that waits for its next start, and the port is taken a moment later."""
    held = [f"--name={docker.name}-p-web-1", f"--publish=127.0.0.1:{port}:{port}", "--restart=unless-stopped"]
    labels = {
        "project": f"{docker.name}-p",
        "service": "web",
        "oneoff": "False",
        "container-number": "1",
        "config-hash": "1",
    }
    named = [f"--label=com.docker.compose.{key}={value}" for key, value in labels.items()]
    docker("run", "--detach", docker.label, *held, *named, "debian:bookworm-slim", "sh", "-c", "sleep 0.2; exit 1")
    try:
        codes = [run(["deploy", "compose", "-C", str(tmp_path), "--plan"]) for _ in range(6)]
    finally:
        docker("rm", "--force", f"{docker.name}-p-web-1")
    assert codes == [0] * 6
