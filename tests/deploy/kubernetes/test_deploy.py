"""`estiba deploy kubernetes` without kubectl, a cluster, or manifests; the rest is in the tests of the cluster."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from estiba.cli.main import run
from estiba.deploy.kubernetes import deploy


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    """A kustomization of one object."""
    (tmp_path / "kustomization.yaml").write_text("resources: [map.yaml]\n")
    (tmp_path / "map.yaml").write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"}}')
    return str(tmp_path)


def test_nothing_rendered_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "estiba.toml").write_text('[project]\nname = "shop"')
    assert run(["deploy", "kubernetes", "staging", "-C", str(tmp_path)]) == 4
    said = capsys.readouterr().err
    assert f"There is no kustomization.yaml in {tmp_path}/deploy/kubernetes/overlays/staging" in said
    assert "estiba kubernetes" in said


def test_without_kubectl(overlay: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert run(["deploy", "kubernetes", overlay, "--plan"]) == 4
    assert "kubectl is not installed, or not on PATH." in capsys.readouterr().err


def test_without_a_cluster(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "settings"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert run(["deploy", "kubernetes", overlay, "--plan"]) == 6
    said = capsys.readouterr().err
    assert "kubectl knows no cluster" in said
    assert "--context" in said
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and nobody listens
        server = f"--server=http://127.0.0.1:{silent.getsockname()[1]}"
        for words in (["set-cluster", "c", server], ["set-context", "c", "--cluster=c"], ["use-context", "c"]):
            subprocess.run(["kubectl", "config", *words], check=True, capture_output=True)
        assert run(["deploy", "kubernetes", overlay, "--plan"]) == 6
    said = capsys.readouterr().err
    assert "No cluster answers: The connection to the server" in said
    assert "--context" in said
    assert run(["deploy", "kubernetes", overlay, "--context", "live"]) == 6
    assert "live" in capsys.readouterr().err


SILENT_AT_FIRST = """#!/bin/sh
[ -e asked ] || { touch asked; echo 'The connection to the server was refused' >&2; exit 1; }
echo '{"status": {"conditions": [{"type": "Complete", "status": "True"}]}}'
"""


def test_a_cluster_that_is_silent_for_a_moment_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster can be told to be silent just once, so this is what kubectl prints then."""
    (tmp_path / "kubectl").write_text(SILENT_AT_FIRST)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    assert deploy._ready(deploy.Target(tmp_path, timeout=20), deploy.Change("Job", "load", "n", "new"), said.append)
    assert said == ["job/load is done"]
