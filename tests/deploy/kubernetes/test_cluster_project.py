"""A project's manifests and images on a real cluster, deployed with `estiba deploy`.

Run by `make test-kubernetes`. The cluster is Kubernetes 1.20, so fields that it does not know yet are removed from
the manifests, as `known` lists; test_render.py checks the complete manifests with the newest schemas.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from cluster import GATE, Cluster, Load, eventually, known, versions
from toys import CHURN, CHURN_ROW, toy

from estiba import project
from estiba.cli.main import run
from estiba.deploy.kubernetes.render import render
from estiba.deploy.output import files as rendered
from estiba.model.registry.registry import open_registry
from estiba.planning import lower

pytestmark = pytest.mark.slow

TOML = """
[project]
name = "shop"
[models.churn]
train = "shop:train"
port = 8001
[images]
cpus = 0.5
memory = "256MB"
[kubernetes]
namespace = "{namespace}"
shutdown_delay = 4
autoscale = {{ minimum = 2, maximum = 3 }}
"""


@dataclass
class Shop:
    """A project in a namespace of its own."""

    folder: Path
    seen: Cluster
    images: dict[int, str]

    def write(self, image: str) -> Path:
        """A kustomization of what `estiba kubernetes` writes for the model's own service, as the cluster knows it."""
        found = project.load(self.folder)
        files = render(lower(found), found.kubernetes)
        texts = [files.texts[path] for path in ("base/churn.yaml", "base/common.yaml")]
        objects = [known(one) for text in texts for one in yaml.safe_load_all(text)]
        deployment = next(one for one in objects if one["kind"] == "Deployment")
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = image
        policy = next(one for one in objects if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "churn")
        gate = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gate"}}}
        policy["spec"]["ingress"] = [{"from": [gate], "ports": [{"protocol": "TCP", "port": 8000}]}]
        folder = self.folder / "overlay"
        names = json.dumps({"namespace": self.seen.namespace, "resources": ["all.yaml"]})
        all_of_it = yaml.safe_dump_all(objects)
        rendered.write(rendered.Rendered({"kustomization.yaml": names, "all.yaml": all_of_it}), folder)
        return folder

    def deploy(self, image: str, *more: str) -> int:
        return run(["deploy", "kubernetes", str(self.write(image)), "--yes", *more])

    def load(self) -> Load:
        return Load(self.seen.address("churn"), path="/predict", body=json.dumps(CHURN_ROW).encode())


@pytest.fixture(scope="module")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Two versions of a model, an image of each built without Docker, and the first of them deployed."""
    folder, images = tmp_path_factory.mktemp("shop"), {}
    with cluster.new_namespace() as inside, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        (folder / "estiba.toml").write_text(TOML.format(namespace=inside.namespace))
        inside.kubectl("annotate", "namespace", inside.namespace, GATE)
        registry = open_registry(folder / ".estiba" / "registry")
        for number in (1, 2):
            fields = (msgspec.structs.replace(CHURN.fields[0], description=f"Release {number}."), *CHURN.fields[1:])
            registry.push(toy("churn", msgspec.structs.replace(CHURN, fields=fields), CHURN_ROW, folder))
            layout = folder / f"layout-{number}"
            assert run(["build", "churn", "-C", str(folder), "--oci", str(layout), "--no-verify"]) == 0
            images[number] = lower(project.load(folder))["churn"].image
            cluster.load(layout, images[number])
        made = Shop(folder, inside, images)
        assert made.deploy(images[1]) == 0
        eventually(lambda: len(pods(made)) == 2, seconds=60)
        inside.rolled_out("churn")
        yield made


def pods(shop: Shop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.seen.get("pods")["items"]
    return found


@pytest.mark.timeout(300)
def test_rendered_pods_run_restricted_and_answer(shop: Shop) -> None:
    for pod in pods(shop):
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["status"]["containerStatuses"][0]["ready"] is True
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    with shop.load() as load:
        eventually(lambda: load.answers.total() > 20)
    assert load.lost == []


@pytest.mark.timeout(300)
def test_a_new_version_of_a_model_under_load_loses_no_request(shop: Shop) -> None:
    with shop.load() as load:
        eventually(lambda: load.answers.total() > 200)
        assert shop.deploy(shop.images[2]) == 0
        eventually(lambda: all(shop.images[2] == pod["spec"]["containers"][0]["image"] for pod in pods(shop)), 60)
        time.sleep(2)
    assert load.lost == []
    assert set(versions(load)) == {"1", "2"}
    print(f"{load.answers.total()} requests, none lost, the slowest {load.slowest * 1000:.0f} ms")


@pytest.mark.timeout(300)
def test_a_release_that_cannot_start_is_taken_back(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.deploy(shop.images[1]) == 0
    with shop.load() as load:
        assert shop.deploy("shop/churn:gone", "--timeout", "15") == 1
        said = capsys.readouterr().err
    assert "deployment/churn did not become ready" in said
    assert "ErrImagePull" in said or "ImagePullBackOff" in said
    assert "The previous deployment runs again." in said
    assert load.lost == []
    assert set(versions(load)) == {"1"}


@pytest.mark.timeout(300)
def test_a_second_deployment_of_the_same_changes_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.deploy(shop.images[1]) == 0
    capsys.readouterr()
    assert shop.deploy(shop.images[1]) == 0
    assert "0 of " in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_pods_are_added_under_load(shop: Shop) -> None:
    with shop.load() as load:
        eventually(lambda: shop.seen.get("deployment", "churn")["status"].get("readyReplicas") == 3, seconds=120)
    assert load.lost == []


def test_a_secret_that_nobody_made_is_named_and_nothing_is_changed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shop.write("shop/churn:other")
    objects = list(yaml.safe_load_all((folder / "all.yaml").read_text()))
    deployment = next(one for one in objects if one["kind"] == "Deployment")
    secrets = {"name": "secrets", "projected": {"sources": [{"secret": {"name": "token"}}]}}
    deployment["spec"]["template"]["spec"]["volumes"].append(secrets)
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
    assert run(["deploy", "kubernetes", str(folder), "--yes"]) == 4
    assert f"no secret {shop.seen.namespace}/token" in capsys.readouterr().err
    assert "shop/churn:other" not in shop.seen.kubectl("get", "deployment", "churn", "-o", "yaml")


@pytest.mark.timeout(240)
def test_what_keeps_data_and_its_files_are_taken_back_too(
    namespace: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A StatefulSet waits for ever for a pod that cannot start, also when it is told to go back."""
    monkeypatch.setenv("KUBECONFIG", str(namespace.kubeconfig))
    container = {"name": "web", "image": "estiba.test/web:1"}
    pod = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"serviceName": "web", "selector": {"matchLabels": {"app": "web"}}, "template": pod}
    kept = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": spec}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "red"}}

    def deploy() -> int:
        names = {"namespace": namespace.namespace, "resources": ["kept.json", "settings.json"]}
        for name, value in (("kustomization.yaml", names), ("kept.json", kept), ("settings.json", settings)):
            (tmp_path / name).write_text(json.dumps(value))
        return run(["deploy", "kubernetes", str(tmp_path), "--yes", "--timeout", "20"])

    assert deploy() == 0
    container["image"], settings["data"] = "estiba.test/web:gone", {"colour": "blue"}
    assert deploy() == 1
    assert namespace.get("configmap", "settings")["data"] == {"colour": "red"}
    assert namespace.get("pod", "web-0")["spec"]["containers"][0]["image"] == "estiba.test/web:1"


@pytest.mark.timeout(300)
def test_a_task_is_waited_for_and_one_that_fails_is_taken_back(
    namespace: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(namespace.kubeconfig))

    def deploy(name: str, script: str, colour: str) -> int:
        container = {"name": "task", "image": "estiba.test/web:1", "command": ["/bin/sh", "-c", script]}
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
        settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
        names = {"namespace": namespace.namespace, "resources": ["job.json", "settings.json"]}
        for file, value in (
            ("kustomization.yaml", names),
            ("job.json", job | {"spec": {"backoffLimit": 0, "template": template}}),
            ("settings.json", settings | {"data": {"colour": colour}}),
        ):
            (tmp_path / file).write_text(json.dumps(value))
        return run(["deploy", "kubernetes", str(tmp_path), "--yes", "--timeout", "60"])

    began = time.monotonic()
    assert deploy("migrate-1", "sleep 4", "red") == 0
    assert time.monotonic() - began > 4
    assert "job/migrate-1 is done" in capsys.readouterr().out
    for became in ("new", "again"):
        assert deploy("migrate-2", "echo no such table; exit 3", "blue") == 1
        said = capsys.readouterr()
        assert f"{became:8} Job migrate-2" in said.out
        assert "job/migrate-2 failed" in said.err
        assert "exit code 3" in said.err
        assert "no such table" in said.err
        assert namespace.get("configmap", "settings")["data"] == {"colour": "red"}
