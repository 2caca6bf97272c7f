"""The files of the last healthy deployment are kept in a volume, through a container that is never started."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Docker

from estiba.core.errors import EstibaError
from estiba.deploy.compose import last_good
from estiba.deploy.compose.project import ComposeProject

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

COMPOSE = """\
name: {name}
services:
  store:
    image: redis:8
"""


def test_files_are_kept_and_nothing_else_is_left(docker: Docker, tmp_path: Path) -> None:
    """The image declares a volume of its own, which Docker makes for each container."""
    docker.need("redis:8")
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(name=f"{docker.name}-l"))
    (tmp_path / ".env").write_text("A=1\n")
    project, kept = ComposeProject(tmp_path), tmp_path / "kept"
    kept.mkdir()
    with pytest.raises(EstibaError, match="has no container, whose image Docker needs"):
        last_good.save(project)
    assert not last_good.fetch(project, kept)
    try:
        docker("compose", "create", folder=tmp_path)
        before = docker("volume", "ls", "--quiet").split()
        last_good.save(project)
        assert last_good.fetch(project, kept)
        assert (kept / ".env").read_text() == "A=1\n"
        assert docker("volume", "ls", "--quiet").split() == before
    finally:
        docker("compose", "down", "--volumes", folder=tmp_path)
        docker.attempt("volume", "rm", "--force", last_good.volume(project))
