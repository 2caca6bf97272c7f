"""The Spanish page of the course does what it says, with Docker where Docker is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from lab import Docker
from pages import Reader

from estiba.core.ports import free

PAGE = Path(__file__).parents[1] / "docs" / "es" / "curso.md"
PROJECTS = ("flores", "mi-flask-api", "mi-stack")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_course_works_as_its_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIBA_REGISTRY", "ESTIBA_DATA", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ESTIBA_LANG", "es")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    docker = engine()
    reader = Reader(tmp_path, free("127.0.0.1"), docker=docker is not None)
    try:
        reader.read(PAGE)
    finally:
        reader.close()
        if docker is not None:
            remove(docker)


def engine() -> Docker | None:
    """The Docker of this machine, if it has one with the images that the page needs."""
    docker = Docker()
    try:
        needed = ("python:3.11-slim", "debian:bookworm-slim", "prom/prometheus:v3.7.3")
        found = all(docker.attempt("image", "inspect", image).returncode == 0 for image in needed)
    except FileNotFoundError:
        return None
    return docker if found and docker.attempt("compose", "version").returncode == 0 else None


def remove(docker: Docker) -> None:
    """Remove the containers, networks, volumes and images of the page's projects."""
    docker.attempt("rm", "--force", "flores-api")
    for name in PROJECTS:
        docker.attempt("compose", "--project-name", name, "down", "--volumes", "--timeout", "1")
        for image in docker("image", "ls", "--quiet", f"{name}/*").split():
            docker.attempt("rmi", "--force", image)
