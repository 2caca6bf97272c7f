"""Error messages for a container engine that is installed but cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from images_made import copy, engine, web

from estiba.core.errors import EstibaError, NotFound
from estiba.deploy.image import container_engine
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine

pytestmark = pytest.mark.slow

__all__ = ["copy", "engine", "web"]


def test_an_engine_that_does_not_answer(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker's own client, and nobody at the other end."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    with pytest.raises(NotFound, match=r"No container engine works here \(docker: (?i:error:).*nobody\.sock") as caught:
        container_engine.find("docker")
    assert caught.value.hint == "Start the container engine, or build without one: estiba build --oci DIR."


def test_docker_without_buildx(
    copy: BuildContext, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    if not engine.try_to("buildx", "version").code:
        pytest.skip("this Docker has buildx wherever it looks")
    with pytest.raises(EstibaError, match="buildx") as caught:
        engine.build(copy.folder, network=False, on_line=lambda line: None)
    assert "pass --builder podman, or build without an engine: --oci DIR" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Error: slirp4netns failed: open(/dev/net/tun): Permission denied", "slirp4netns: install it"),
        ("ERROR: write /var/lib/docker/tmp/x: no space left on device", "TMPDIR"),
        ("Error: runc: error setting rlimit type 7: operation not permitted: OCI permission denied", "default_ulimits"),
        ("docker: unknown flag: --iidfile", "too old"),
    ],
)
def test_what_to_do_about_what_an_engine_says(tmp_path: Path, said: str, hint: str) -> None:
    """Words that they have been seen to say, on machines that are not like this one."""
    (tmp_path / "engine").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    (tmp_path / "engine").chmod(0o755)
    with pytest.raises(EstibaError, match="run failed: ") as caught:
        Engine(str(tmp_path / "engine")).ask("run", "--detach", "image")
    assert caught.value.hint is not None
    assert hint in caught.value.hint
