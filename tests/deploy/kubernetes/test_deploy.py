"""`estiba deploy kubernetes`: the manifests that it applies, and errors without kubectl or a cluster.

The tests of the cluster deploy for real.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from estiba.cli.main import run
from estiba.deploy.kubernetes.cluster import Cluster
from estiba.deploy.kubernetes.compare import ObjectChange
from estiba.deploy.kubernetes.deploy import KubernetesTarget
from estiba.deploy.kubernetes.rollout import wait_until_ready
from estiba.deploy.output.files import Rendered

pytestmark = pytest.mark.slow


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    """A kustomization of one object."""
    (tmp_path / "kustomization.yaml").write_text("resources: [map.yaml]\n")
    (tmp_path / "map.yaml").write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"}}')
    return str(tmp_path)


def test_an_overlay_that_does_not_exist_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "estiba.toml").write_text('[project]\nname = "shop"')
    assert run(["deploy", "kubernetes", "qa", "-C", str(tmp_path), "--no-render"]) == 4
    error = capsys.readouterr().err
    assert f"There is no kustomization.yaml in {tmp_path}/deploy/kubernetes/overlays/qa" in error
    assert "estiba kubernetes" in error
    assert run(["kubernetes", "-C", str(tmp_path)]) == 0
    assert run(["deploy", "kubernetes", "qa", "-C", str(tmp_path)]) == 4
    assert "Overlays: dev, production, staging." in capsys.readouterr().err


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
    assert "kubectl has no current context" in said
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
    steps: list[str] = []
    assert wait_until_ready(Cluster(), ObjectChange("Job", "load", "n", "new"), 20, steps.append)
    assert steps == ["job/load is done"]


EMPTY_CLUSTER = """#!{python}
import json, pathlib, shutil, sys
arguments = sys.argv[1:]
if "create" in arguments:
    import yaml
    folder = pathlib.Path(arguments[arguments.index("--kustomize") + 1])
    base = sorted((folder / "../../base").glob("[!k]*.yaml"))
    objects = [item for file in base for item in yaml.safe_load_all(file.read_text())]
    for item in objects:
        item["metadata"]["namespace"] = "default"
    json.dump({{"items": objects}}, sys.stdout)
elif "namespace" in arguments:
    json.dump({{"kind": "Namespace"}}, sys.stdout)
elif "apply" in arguments:
    folder = pathlib.Path(arguments[arguments.index("--kustomize") + 1])
    shutil.copytree(folder / "../..", "applied", dirs_exist_ok=True)
"""

PROJECT = """
[project]
name = "shop"
[services.web]
image = "web:{tag}"
user = 1000
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that `estiba kubernetes` has rendered, and a kubectl that keeps what it applies in `applied`.

    The tests of the cluster apply manifests for real; this stands for a cluster that has no object yet.
    """
    (tmp_path / "kubectl").write_text(EMPTY_CLUSTER.format(python=sys.executable))
    (tmp_path / "kubectl").chmod(0o755)
    (tmp_path / "estiba.toml").write_text(PROJECT.format(tag=1))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.chdir(tmp_path)
    assert run(["kubernetes"]) == 0
    (tmp_path / "estiba.toml").write_text(PROJECT.format(tag=2))
    return tmp_path


@pytest.mark.parametrize("overlay", ["staging", "deploy/kubernetes/overlays/staging"])
def test_a_changed_project_does_not_deploy_stale_manifests(
    shop: Path, overlay: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = shop / "deploy" / "kubernetes" / "base" / "web.yaml"
    before = manifest.read_text()
    assert run(["deploy", "kubernetes", overlay, "--plan"]) == 0
    output = capsys.readouterr()
    assert "new      Deployment web" in output.out
    assert "are out of date and will be rendered again: base/web.yaml\n" in output.err
    assert manifest.read_text() == before
    assert [path.name for path in (shop / "deploy").iterdir()] == ["kubernetes"]
    assert run(["deploy", "kubernetes", overlay, "--yes"]) == 0
    assert "image: web:2" in (shop / "applied" / "base" / "web.yaml").read_text()
    assert run(["kubernetes", "--check"]) == 0


def test_manifests_are_applied_as_they_are_where_that_is_asked_for(shop: Path, tmp_path: Path) -> None:
    assert run(["deploy", "kubernetes", "staging", "--yes", "--no-render"]) == 0
    assert "image: web:1" in (shop / "applied" / "base" / "web.yaml").read_text()
    assert run(["deploy", "kubernetes", "staging", "--no-render", "--pin", "images.json"]) == 2
    shutil.move(shop / "deploy", shop / "elsewhere")
    assert run(["deploy", "kubernetes", "elsewhere/kubernetes/overlays/staging", "--yes"]) == 0
    assert "image: web:1" in (shop / "applied" / "base" / "web.yaml").read_text()
    assert not (shop / "deploy").exists()


def test_changes_of_an_overlay_take_part_in_the_proposal(shop: Path) -> None:
    """The draft that is proposed holds the overlay as its owner changed it, and files that only the owner has."""
    overlay = shop / "deploy" / "kubernetes" / "overlays" / "staging" / "kustomization.yaml"
    overlay.write_text("mine")
    (shop / "deploy" / "kubernetes" / "base" / "mine.yaml").write_text('{"kind": "X", "metadata": {"name": "mine"}}')
    target = KubernetesTarget(Cluster(), shop / "deploy" / "kubernetes", "overlays/staging", Rendered({}))
    with target._draft() as draft:
        assert (draft / "overlays" / "staging" / "kustomization.yaml").read_text() == "mine"
    assert "mine" in [change.name for change in target.propose().changes]
