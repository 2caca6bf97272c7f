"""Pods that fetch their models from object storage, on a real cluster: releases without a new image, and a bucket that
is gone. The S3 server runs on this machine, which the cluster reaches at its own end of the cable.

Run by `make test-kubernetes`, as test_cluster_project.py, whose manifests for Kubernetes 1.20 these are.
"""

from __future__ import annotations

import json
import shutil
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

MACHINE = "10.213.0.1"
BUCKET = "s3://models/shop"

TOML = """
[project]
name = "shop"
registry = "{bucket}"
[models.churn]
train = "shop:train"
port = 8001
[images]
cpus = 0.5
memory = "256MB"
models = "registry"
registry_environment = {{ AWS_ENDPOINT_URL = "{endpoint}", AWS_SHARED_CREDENTIALS_FILE = "${{secrets.s3}}" }}
[kubernetes]
namespace = "{namespace}"
shutdown_delay = 4
autoscale = {{ minimum = 2, maximum = 3 }}
registry = {{ timeout = 20 }}
"""

CREDENTIALS = "[default]\naws_access_key_id = estiba\naws_secret_access_key = estiba\n"


@dataclass
class Shop:
    """A project whose models are in a bucket, in a namespace of its own."""

    folder: Path
    seen: Cluster

    def manifests(self) -> list[dict[str, Any]]:
        """The manifests of the model's own service, with only the fields that the cluster knows."""
        found = project.load(self.folder)
        files = render(lower(found), found.kubernetes)
        texts = [files.texts[path] for path in ("base/churn.yaml", "base/common.yaml")]
        objects = [known(one) for text in texts for one in yaml.safe_load_all(text)]
        policy = next(one for one in objects if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "churn")
        gate = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gate"}}}
        policy["spec"]["ingress"] = [{"from": [gate], "ports": [{"protocol": "TCP", "port": 8000}]}]
        return objects

    def deploy(self, objects: list[dict[str, Any]], *more: str) -> int:
        folder = self.folder / "overlay"
        names = json.dumps({"namespace": self.seen.namespace, "resources": ["all.yaml"]})
        rendered.write(
            rendered.Rendered({"kustomization.yaml": names, "all.yaml": yaml.safe_dump_all(objects)}), folder
        )
        return run(["deploy", "kubernetes", str(folder), "--yes", *more])

    def release(self, number: int) -> None:
        """Puts another version of the model into the bucket."""
        fields = (msgspec.structs.replace(CHURN.fields[0], description=f"Release {number}."), *CHURN.fields[1:])
        made = toy("churn", msgspec.structs.replace(CHURN, fields=fields), CHURN_ROW, self.folder)
        assert open_registry(BUCKET, cache=self.folder / "cache").push(made).version == number

    def load(self) -> Load:
        return Load(self.seen.address("churn"), path="/predict", body=json.dumps(CHURN_ROW).encode())


@pytest.fixture(scope="module")
def endpoint(cluster: Cluster) -> Iterator[str]:
    """The address of an S3 server that pods reach, and this process too."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed: no S3 server to test against")
    import s3fs

    server = moto.ThreadedMotoServer(ip_address=MACHINE, port=0, verbose=False)
    server.start()
    address = f"http://{MACHINE}:{server.get_host_and_port()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        names = {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "estiba", "SECRET_ACCESS_KEY": "estiba"}
        for name, value in names.items():
            patch.setenv(f"AWS_{name}", value)
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("models")
        yield address
    server.stop()


@pytest.fixture(scope="module")
def shop(cluster: Cluster, endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Version 1 in the bucket, one image without it, deployed."""
    folder = tmp_path_factory.mktemp("shop")
    with cluster.new_namespace() as inside, pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        text = TOML.format(bucket=BUCKET, endpoint=endpoint, namespace=inside.namespace)
        (folder / "estiba.toml").write_text(text)
        (folder / "credentials").write_text(CREDENTIALS)
        inside.kubectl("annotate", "namespace", inside.namespace, GATE)
        inside.kubectl("create", "secret", "generic", "s3", f"--from-file=value={folder / 'credentials'}")
        made = Shop(folder, inside)
        made.release(1)
        layout = folder / "layout"
        assert run(["build", "churn", "-C", str(folder), "--oci", str(layout), "--no-verify"]) == 0
        cluster.load(layout, lower(project.load(folder))["churn"].image)
        assert made.deploy(made.manifests()) == 0
        inside.rolled_out("churn")
        yield made


@pytest.mark.timeout(300)
def test_pods_serve_what_they_fetched_and_only_the_first_container_has_the_credentials(shop: Shop) -> None:
    with shop.load() as load:
        eventually(lambda: load.answers.total() > 20)
    assert load.lost == []
    assert set(versions(load)) == {"1"}
    pod = shop.seen.get("pods")["items"][0]
    said = shop.seen.kubectl("logs", pod["metadata"]["name"], "--container", "fetch-models")
    assert said.startswith("churn@1 sha256:")
    secrets = {one["name"]: "secrets" in str(one["volumeMounts"]) for one in every_container(pod)}
    assert secrets == {"fetch-models": True, "churn": False}


@pytest.mark.timeout(300)
def test_the_cluster_takes_the_server_of_all_models_too(shop: Shop) -> None:
    found = project.load(shop.folder)
    text = render(lower(found), found.kubernetes).texts["base/models.yaml"]
    objects = [known(one) for one in yaml.safe_load_all(text)]
    said = shop.seen.kubectl("apply", "--dry-run=server", "-f", "-", text=yaml.safe_dump_all(objects))
    assert "deployment.apps/models created (server dry run)" in said


def every_container(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]


@pytest.mark.timeout(300)
def test_a_release_is_rolled_out_under_load_with_the_same_image_and_loses_no_request(shop: Shop) -> None:
    before = shop.manifests()
    image = lower(project.load(shop.folder))["churn"].image
    shop.release(2)
    assert lower(project.load(shop.folder))["churn"].image == image
    with shop.load() as load:
        eventually(lambda: load.answers.total() > 200)
        assert shop.deploy(shop.manifests()) == 0
        time.sleep(6)  # the old pods still answer for a while
    assert load.lost == []
    assert set(versions(load)) == {"1", "2"}
    print(f"{load.answers.total()} requests, none lost, the slowest {load.slowest * 1000:.0f} ms")
    with shop.load() as load:
        eventually(lambda: load.answers.total() > 50)
        assert shop.deploy(before) == 0  # the manifests of before are the models of before
        time.sleep(6)
    assert load.lost == []
    with shop.load() as load:
        eventually(lambda: load.answers.total() > 50)
    assert set(versions(load)) == {"1"}


@pytest.mark.timeout(300)
def test_a_registry_that_is_down_is_named_and_what_ran_still_runs(
    shop: Shop, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    down = json.loads(json.dumps(shop.manifests()).replace(endpoint, f"http://{MACHINE}:9"))
    with shop.load() as load:
        assert shop.deploy(down, "--timeout", "45") == 1
    said = capsys.readouterr().err
    assert "deployment/churn did not become ready" in said
    assert f"error: Cannot read {BUCKET}" in said
    assert f'Could not connect to the endpoint URL: "http://{MACHINE}:9' in said
    assert said.count(f"error: Cannot read {BUCKET}") == 1
    assert "The previous deployment runs again." in said
    assert load.lost == []


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "models"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "standard",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}

HOLDER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "holder"},
    "spec": {
        "containers": [{"name": "web", "image": "estiba.test/web:1"}],
        "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    },
}


@pytest.mark.timeout(300)
def test_a_registry_on_a_volume(namespace: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same from a claim, whose folder this machine fills as an administrator would."""
    monkeypatch.setenv("KUBECONFIG", str(namespace.kubeconfig))
    models = tmp_path / "models"
    open_registry(models).push(toy("churn", CHURN, CHURN_ROW, tmp_path / "made"))
    text = TOML.format(bucket=models, endpoint="http://10.9.9.9", namespace=namespace.namespace)
    text = text.replace("registry = { timeout = 20 }", 'registry = { claim = "models" }')
    variables = next(line for line in text.splitlines() if line.startswith("registry_environment"))
    (tmp_path / "estiba.toml").write_text(text.replace(variables, ""))
    assert run(["build", "churn", "-C", str(tmp_path), "--oci", str(tmp_path / "layout"), "--no-verify"]) == 0
    namespace.load(tmp_path / "layout", lower(project.load(tmp_path))["churn"].image)
    namespace.apply(CLAIM, HOLDER)  # a claim gets its volume when the first pod asks for it
    eventually(lambda: namespace.get("pvc", "models")["spec"].get("volumeName"))
    volume = namespace.get("pv", namespace.get("pvc", "models")["spec"]["volumeName"])
    shutil.copytree(models, volume["spec"]["local"]["path"], dirs_exist_ok=True)
    namespace.kubectl("annotate", "namespace", namespace.namespace, GATE)
    shop = Shop(tmp_path, namespace)
    assert shop.deploy(shop.manifests()) == 0
    with shop.load() as load:
        eventually(lambda: load.answers.total() > 20)
    assert set(versions(load)) == {"1"}
