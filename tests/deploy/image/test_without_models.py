"""Images that hold no models: what is in them and in their name, and what Compose makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import yaml
from images_made import changed, made, toy_plan
from lab import Docker
from toys import CHURN, CHURN_ROW, toy

from estiba.core.stores.files import libraries
from estiba.deploy.compose import render
from estiba.deploy.compose.render import ComposeOptions
from estiba.deploy.image import dockerfile, requirements, sbom
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.slim import rootfs, trim_packages
from estiba.deploy.image.spec import image_spec
from estiba.deploy.plan.plan import Plan
from estiba.model.registry.registry import open_registry

pytestmark = pytest.mark.slow

__all__ = ["made"]

WITHOUT = '[images]\nmodels = "registry"\n'


@pytest.fixture
def plan(toy_registry: Path, tmp_path: Path) -> Plan:
    return toy_plan(tmp_path / "project", toy_registry, WITHOUT)


@pytest.fixture
def far(plan: Plan) -> Plan:
    """The same of a bucket."""
    return replace(plan, registry="s3://models/toys")


def test_the_server_looks_where_models_are_mounted(plan: Plan) -> None:
    found = image_spec(plan, plan["models"])
    assert "--registry" not in found.process.command
    assert found.process.environment["ESTIBA_REGISTRY"] == "/registry"
    assert found.contents.trim_level == "onnx"
    assert not [name for name in found.labels if name.startswith("org.estiba.model")]
    text = dockerfile.render(found)
    assert "# Only settings of the server" in text
    assert "/cache" not in text


def test_one_that_asks_a_bucket_has_room_for_what_it_gets(far: Plan) -> None:
    found = image_spec(far, far["models"])
    assert (found.contents.trim_level, found.runtime.volumes) == ("registry", ("/cache",))
    assert found.process.environment["XDG_CACHE_HOME"] == "/cache"
    assert "install -d -m 0770 /volumes/cache" in dockerfile.render(found)


def test_other_versions_are_the_same_image_and_other_settings_another(toy_registry: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    registry = open_registry(folder)
    registry.push(toy("churn", CHURN, CHURN_ROW, tmp_path / "first"))
    without = [toy_plan(tmp_path / "a", folder, WITHOUT)["models"].image]
    within = [toy_plan(tmp_path / "a", folder)["models"].image]
    fields = (msgspec.structs.replace(CHURN.fields[0], description="Another."), *CHURN.fields[1:])
    registry.push(toy("churn", msgspec.structs.replace(CHURN, fields=fields), CHURN_ROW, tmp_path / "second"))
    without.append(toy_plan(tmp_path / "a", folder, WITHOUT)["models"].image)
    within.append(toy_plan(tmp_path / "a", folder)["models"].image)
    assert without[0] == without[1]
    assert len({*within, *without}) == 3
    assert toy_plan(tmp_path / "a", folder, WITHOUT + "[server]\ndrain = 5\n")["models"].image not in without


def test_the_libraries_of_an_address() -> None:
    pytest.importorskip("s3fs")
    assert libraries("s3://bucket/models") == ("fsspec", "s3fs")
    assert libraries("/srv/models") == ()


def test_any_model_that_comes_later_can_be_run_and_the_bucket_be_asked(plan: Plan) -> None:
    pytest.importorskip("s3fs")
    models = plan["models"].models
    found = {pin.name for pin in requirements.serving(models, extra=["onnxruntime", *libraries("s3://a")]).pins}
    assert {"onnxruntime", "s3fs", "aiobotocore", "urllib3"} <= found
    assert "sympy" not in found


def test_of_amazons_services_only_those_of_a_bucket_stay() -> None:
    data = "botocore/data"
    kept = ("s3/2006-03-01/service-2.json.gz", "sts/2011-06-15/service-2.json.gz", "endpoints.json", "_retry.json")
    assert {trim_packages.reason(f"{data}/{name}", "registry") for name in kept} == {""}
    assert trim_packages.reason(f"{data}/ec2/2016-11-15/service-2.json.gz", "registry")
    # Answers of S3 are XML.
    assert [rootfs.reason("xml/sax/expatreader.py", level) == "" for level in ("registry", "onnx")] == [True, False]


def test_its_bill_names_no_model(plan: Plan, made: BuildContext) -> None:
    kinds = {part.kind for part in sbom.parts(made)}
    without = BuildContext(made.folder, changed(made.spec, contents={"registry": plan.registry}), {})
    assert kinds - {part.kind for part in sbom.parts(without)} == {"machine-learning-model"}


def composed(plan: Plan) -> tuple[dict[str, object], str, str]:
    """The service `models`, .env.example and .env."""
    files = render.render(plan, ComposeOptions())
    found = yaml.safe_load(files.texts["compose.yaml"])["services"]["models"]
    return found, files.texts[".env.example"], files.once[".env"]


def test_compose_mounts_a_folder_read_only(plan: Plan) -> None:
    service, example, settings = composed(plan)
    source = "${ESTIBA_REGISTRY_FOLDER:?the folder of the registry: set it in .env}"
    mount = {"type": "bind", "source": source, "target": "/registry", "read_only": True}
    assert service["volumes"] == [mount | {"bind": {"create_host_path": False}}]
    assert settings.endswith(f"\nESTIBA_REGISTRY_FOLDER='{plan.registry}'\n")
    assert example.endswith("\nESTIBA_REGISTRY_FOLDER=\n")  # the same on every machine


def test_compose_reads_any_name_of_a_folder(plan: Plan, docker: Docker, tmp_path: Path) -> None:
    folder = "/srv/it's $HOME #1"
    files = render.render(replace(plan, registry=folder), ComposeOptions())
    (tmp_path / "compose.yaml").write_text(files.texts["compose.yaml"])
    (tmp_path / ".env").write_text(files.once[".env"])
    found = json.loads(docker("compose", "config", "--format", "json", folder=tmp_path))
    assert found["services"]["models"]["volumes"][0]["source"].replace("$$", "$") == folder


def test_compose_lets_the_server_ask_a_bucket(far: Plan) -> None:
    served = replace(far["models"], environment={"KEYS": "${secrets.s3}"}, secrets=("s3",))
    service, _, settings = composed(replace(far, services=(served,)))
    assert service["environment"] == {"ESTIBA_REGISTRY": "s3://models/toys", "KEYS": "/run/secrets/s3"}
    assert service["secrets"] == ["s3"]
    assert service["volumes"] == [{"type": "volume", "source": "models-cache", "target": "/cache"}]
    assert "REGISTRY_FOLDER" not in settings
