"""Manifests of models that no image holds: how pods fetch them, whom they may reach for it, and what cannot be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import compare

from estiba import project
from estiba.cli.main import run
from estiba.core.errors import BadProject
from estiba.deploy.kubernetes.options import KubernetesOptions, RegistryOptions
from estiba.deploy.kubernetes.render import render
from estiba.deploy.plan.plan import Plan
from estiba.model.registry.registry import open_registry
from estiba.planning import lower

pytestmark = pytest.mark.slow

TOML = """
[project]
name = "shop"
registry = "{registry}"
[models.churn]
train = "shop:train"
port = 8001
[images]
models = "registry"
registry_environment = {{ {variables} }}
"""

MINIO = 'AWS_ENDPOINT_URL = "http://minio.storage.svc:9000", AWS_SHARED_CREDENTIALS_FILE = "${secrets.s3}"'

Manifest = dict[str, Any]


def planned(folder: Path, registry: Path | str, variables: str = "", more: str = "") -> Plan:
    (folder / "estiba.toml").write_text(TOML.format(registry=registry, variables=variables) + more)
    return lower(project.load(folder), canaries=bool(more))


@pytest.fixture
def copy(toy_registry: Path, tmp_path: Path) -> Path:
    """A registry that a test may change."""
    return Path(shutil.copytree(toy_registry, tmp_path / "copy"))


def rendered(plan: Plan, **options: Any) -> list[Manifest]:
    found = render(plan, KubernetesOptions(registry=RegistryOptions(**options)))
    return list(yaml.safe_load_all(found.texts["base/churn.yaml"]))


def named(objects: list[Manifest], kind: str) -> Manifest:
    return next(one for one in objects if one["kind"] == kind)


def pod(objects: list[Manifest]) -> Manifest:
    found: Manifest = named(objects, "Deployment")["spec"]["template"]["spec"]
    return found


def test_the_whole(toy_registry: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Of a claim, as a plan of object storage needs a server of it; the cluster's tests have one."""
    plan = planned(tmp_path, toy_registry, MINIO)
    options = RegistryOptions(claim="models", annotations={"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/models"})
    text = render(plan, KubernetesOptions(registry=options)).texts["base/churn.yaml"]
    tag, digest = plan["churn"].image.rpartition(":")[2], plan["churn"].models[0].digest
    compare(text.replace(tag, "TAG").replace(digest, "DIGEST"), "kubernetes-registry/churn.yaml", request)


def test_the_newest_schemas_take_it(toy_registry: Path, tmp_path: Path) -> None:
    import kubernetes_validate

    for one in rendered(planned(tmp_path, toy_registry, MINIO), claim="models"):
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_containers_of_a_pod_have_names_of_their_own(toy_registry: Path, tmp_path: Path) -> None:
    found = render(planned(tmp_path, toy_registry), KubernetesOptions(registry=RegistryOptions(claim="models")))
    for name in ("models", "churn"):
        spec = pod(list(yaml.safe_load_all(found.texts[f"base/{name}.yaml"])))
        names = [one["name"] for one in (*spec["initContainers"], *spec["containers"])]
        assert names == ["fetch-models", name]


def test_the_first_container_is_restricted_and_says_why_it_fails(toy_registry: Path, tmp_path: Path) -> None:
    found = pod(rendered(planned(tmp_path, toy_registry, MINIO), claim="models"))
    first, server = found["initContainers"][0], found["containers"][0]
    for same in ("image", "securityContext", "resources"):
        assert first[same] == server[same]
    assert first["securityContext"]["readOnlyRootFilesystem"] is True
    assert first["terminationMessagePolicy"] == "FallbackToLogsOnError"
    places = {one["name"]: one["mountPath"] for one in first["volumeMounts"] if not one.get("readOnly")}
    assert places == {"tmp": "/tmp", "models": "/registry"}
    room = next(one["emptyDir"]["sizeLimit"] for one in found["volumes"] if one["name"] == "models")
    assert int(room.removesuffix("Mi")) >= 17


def test_only_the_first_container_has_the_way_into_the_registry(toy_registry: Path, tmp_path: Path) -> None:
    found = pod(rendered(planned(tmp_path, toy_registry, MINIO), claim="models"))
    first, server = found["initContainers"][0], found["containers"][0]
    assert {one["name"]: one["value"] for one in first["env"]}["AWS_SHARED_CREDENTIALS_FILE"] == "/run/secrets/s3"
    assert "secrets" in {one["name"] for one in first["volumeMounts"]}
    assert "env" not in server
    assert {one["name"]: one.get("readOnly") for one in server["volumeMounts"]} == {"tmp": None, "models": True}


def test_another_version_changes_the_pods_and_not_the_image(copy: Path, tmp_path: Path) -> None:
    before = planned(tmp_path, copy)
    assert pod(rendered(before, claim="models"))["initContainers"][0]["args"][2].startswith("churn@1@sha256:")
    # A record with another number and the same artifact is enough to see whether anything looks at it.
    record = (copy / "models/churn/versions/1.json").read_text().replace('"version": 1', '"version": 2')
    (copy / "models/churn/versions/2.json").write_text(record)
    after = planned(tmp_path, copy)
    assert before["churn"].image == after["churn"].image
    assert pod(rendered(after, claim="models"))["initContainers"][0]["args"][2].startswith("churn@2@sha256:")


def test_a_canary_runs_in_the_image_of_its_model(copy: Path, tmp_path: Path) -> None:
    open_registry(copy).set_alias("churn", "candidate", 1)
    more = '[kubernetes]\nhost = "h.example"\ngateway = "a/b"\n[kubernetes.canary.churn]\nweight = 5\n'
    plan = planned(tmp_path, copy, more=more)
    assert plan["churn-canary"].image == plan["churn"].image


def ways(variables: str, tmp_path: Path, toy_registry: Path, **options: Any) -> list[tuple[str, int | None]]:
    """Destinations that pods may connect to: networks and namespaces, each with a port, or None for any."""
    plan = replace(planned(tmp_path, toy_registry, variables), registry="s3://models/shop")
    rules = named(rendered(plan, **options), "NetworkPolicy")["spec"]["egress"]
    found = []
    for rule in rules:
        for peer in rule["to"]:
            space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name", "own")
            port = rule["ports"][0]["port"] if "ports" in rule else None
            found.append((peer["ipBlock"]["cidr"] if "ipBlock" in peer else space, port))
    return found


@pytest.mark.parametrize(
    ("variables", "networks", "expected"),
    [
        ("", (), [("0.0.0.0/0", 443), ("::/0", 443)]),
        ("", ("10.1.2.0/24",), [("10.1.2.0/24", 443)]),
        ("", ("10.1.2.3",), [("10.1.2.3/32", 443)]),
        ('AWS_ENDPOINT_URL = "http://10.9.8.7:9000"', ("10.1.2.0/24",), [("10.9.8.7/32", 9000)]),
        ('AWS_ENDPOINT_URL = "http://[fd00::7]:9000"', (), [("fd00::7/128", 9000)]),
        (MINIO, (), [("storage", None)]),
        ('AWS_ENDPOINT_URL = "http://minio:9000"', (), [("own", None)]),
        ('AWS_ENDPOINT_URL = "https://s3.example.com"', (), [("0.0.0.0/0", 443), ("::/0", 443)]),
        ('AWS_ENDPOINT_URL = "https://s3.example.com"', ("10.1.0.0/16",), [("10.1.0.0/16", 443)]),
        ('HTTPS_PROXY = "http://10.0.0.1:3128", A = "b"', (), [("10.0.0.1/32", 3128)]),
    ],
)
def test_pods_may_reach_no_more_than_the_registry(
    variables: str,
    networks: tuple[str, ...],
    expected: list[tuple[str, int | None]],
    tmp_path: Path,
    toy_registry: Path,
) -> None:
    assert ways(variables, tmp_path, toy_registry, networks=networks) == expected


def test_nothing_is_reached_for_a_claim(toy_registry: Path, tmp_path: Path) -> None:
    policy = named(rendered(planned(tmp_path, toy_registry, MINIO), claim="models"), "NetworkPolicy")
    assert "egress" not in policy["spec"]


def test_a_folder_of_this_machine_is_out_of_reach(
    toy_registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tmp_path, toy_registry)
    assert run(["kubernetes", "-C", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"pods cannot reach the registry {toy_registry}, a folder of this machine" in said
    assert "s3://bucket/models" in said
    assert "claim in [kubernetes.registry]" in said
    assert not (tmp_path / "deploy").exists()


@pytest.mark.parametrize(
    ("variables", "options", "words"),
    [
        ('AWS_ENDPOINT_URL = "http://127.0.0.1:9000"', {"claim": "models"}, "means the container itself"),
        ('AWS_ENDPOINT_URL = "http://localhost:9000"', {"claim": "models"}, "means the container itself"),
        ("", {"claim": "models", "networks": ("here",)}, "'here' is not a network"),
        ("", {"claim": "models", "networks": ("10.1.2.3/8",)}, "is not a network"),
        (
            "",
            {"claim": "models", "networks": ("10.1.2.3",)},
            "pods read the registry from a volume",
        ),
    ],
)
def test_what_cannot_be_reached_is_named(
    variables: str, options: dict[str, Any], words: str, toy_registry: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadProject, match=words):
        rendered(planned(tmp_path, toy_registry, variables), **options)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ('A = "${services.models.url}"', "only"),
        ('A = "${secret.a}"', "is not a known reference"),
        ('A = "http://minio:port"', "is not a valid URL"),
    ],
)
def test_variables_that_lead_nowhere_are_refused(variables: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadProject, match=words) as caught:
        planned(tmp_path, "nowhere", variables)
    assert "images.registry_environment.A" in caught.value.message


def test_a_setting_that_would_do_nothing_is_refused(toy_registry: Path, tmp_path: Path) -> None:
    plan = planned(tmp_path, toy_registry)
    with pytest.raises(BadProject, match="the images hold the models"):
        rendered(replace(plan, registry=""), claim="models")
    file = tmp_path / "estiba.toml"
    file.write_text(file.read_text().replace('models = "registry"', "").replace("{  }", "{ AWS_REGION = 'x' }"))
    with pytest.raises(BadProject, match=r"images\.registry_environment: the images hold the models"):
        project.load(tmp_path)


def test_credentials_are_never_made_up(toy_registry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(tmp_path, toy_registry, MINIO, '[kubernetes.registry]\nclaim = "models"\n')
    assert run(["kubernetes", "-C", str(tmp_path)]) == 0
    assert "create secret generic s3" in capsys.readouterr().out
    assert run(["compose", "-C", str(tmp_path)]) == 4
    assert "The secret s3 is not in" in capsys.readouterr().err
    assert not (tmp_path / ".estiba" / "secrets" / "s3").exists()
