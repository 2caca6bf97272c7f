"""Deploying with Compose: what is wrong is said before anything changes. What goes well is in test_stack.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import stack

from estiba.cli.main import run
from lab import Docker


def test_without_docker_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["deploy", "compose", "-C", str(tmp_path), "--yes"]) == 4
    assert "docker is not here" in capsys.readouterr().err
    assert not (tmp_path / "deploy").exists()


def test_without_an_engine_it_says_so(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    assert run(["deploy", "compose", "-C", str(tmp_path), "--yes"]) == 6
    assert "Start Docker" in capsys.readouterr().err


def test_an_image_that_was_not_built_is_named_before_anything_changes(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack(tmp_path)
    file = tmp_path / "estiba.toml"
    file.write_text(file.read_text().replace('name = "shop"', f'name = "{docker.name}-d"'))
    monkeypatch.setenv("KEY", "x")
    assert run(["deploy", "compose", "-C", str(tmp_path), "--yes"]) == 4
    said = capsys.readouterr().err
    assert "nothing was changed" in said
    assert "estiba build" in said
    assert not (tmp_path / "deploy").exists()
