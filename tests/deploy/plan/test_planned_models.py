"""Images and pods hold every version that a route of the project file names, under the aliases that it uses."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
import yaml
from projects import compare
from toys import CHURN, CHURN_ROW, toy

from estiba import project
from estiba.core.errors import BadProject
from estiba.deploy.image import build_context
from estiba.deploy.image.spec import image_spec
from estiba.deploy.kubernetes.options import KubernetesOptions, RegistryOptions
from estiba.deploy.kubernetes.render import render
from estiba.gateway.routes import route_of
from estiba.model.registry.mirror import pull
from estiba.model.registry.registry import Registry, open_registry
from estiba.planning import lower, lower_for_compose, lower_for_kubernetes

HEAD = '[project]\nname = "shop"\nregistry = "registry"\n[models.churn]\ntrain = "a:b"\n'
ROUTE = "[gateway.routes.churn]\nweights = { production = 95, candidate = 5 }\n"


def release(registry: Registry, folder: Path, number: int) -> None:
    fields = (msgspec.structs.replace(CHURN.fields[0], description=f"Release {number}."), *CHURN.fields[1:])
    registry.push(toy("churn", msgspec.structs.replace(CHURN, fields=fields), CHURN_ROW, folder / "made"))


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    for number in (1, 2, 3):
        release(open_registry(folder / "registry"), folder, number)
    return folder / "registry"


@pytest.fixture
def registry(releases: Path, tmp_path: Path) -> Registry:
    """Version 1 is production, version 3 the candidate."""
    shutil.copytree(releases, tmp_path / "registry")
    opened = open_registry(tmp_path / "registry")
    opened.set_alias("churn", "production", 1)
    opened.set_alias("churn", "candidate", 3)
    return opened


def loaded(registry: Registry, text: str) -> project.Project:
    folder = Path(registry.url).parent
    (folder / "estiba.toml").write_text(HEAD + text)
    return project.load(folder)


def test_an_image_holds_the_versions_of_its_route(registry: Registry, tmp_path: Path) -> None:
    found = loaded(registry, ROUTE)
    plan = lower(found)
    service = plan["models"]
    build_context._models(service, tmp_path / "held")
    held = open_registry(tmp_path / "held")
    assert [version.version for version in held.versions("churn")] == [1, 3]
    assert held.aliases("churn") == {"production": 1, "candidate": 3}
    followed = route_of(held, "churn", found.gateway.routes)
    assert followed is not None
    assert {name: version.version for name, version in followed[1].items()} == {"production": 1, "candidate": 3}
    assert held.fetch(held.resolve("churn@candidate")).digest == registry.resolve("churn@3").digest
    spec = image_spec(plan, service)
    assert spec.process.command[:2] == ("serve", "churn")
    assert spec.process.command.count("churn") == 1
    assert list(spec.contents.versions("churn")) == ["1", "3"]
    assert spec.contents.settings["gateway"] == {"routes": {"churn": {"weights": {"production": 95, "candidate": 5}}}}
    assert spec.labels["org.estiba.model.churn.version"] == "1"
    assert spec.labels["org.estiba.model.churn.3.digest"] == f"sha256:{registry.resolve('churn@3').digest}"


def test_the_model_of_an_image_is_production_though_a_newer_version_is_held(registry: Registry, tmp_path: Path) -> None:
    registry.remove_alias("churn", "production")
    route = "[gateway.routes.churn]\nweights = { 1 = 100 }\nshadow = 'candidate'\n"
    build_context._models(lower(loaded(registry, route))["models"], tmp_path / "held")
    held = open_registry(tmp_path / "held")
    assert held.resolve("churn").version == registry.resolve("churn").version == 3
    registry.set_alias("churn", "production", 1)
    build_context._models(lower(loaded(registry, route))["models"], tmp_path / "again")
    assert open_registry(tmp_path / "again").resolve("churn").version == 1


def test_another_candidate_or_weight_is_another_image(registry: Registry) -> None:
    tags = {lower(loaded(registry, ""))["models"].image, lower(loaded(registry, ROUTE))["models"].image}
    tags.add(lower(loaded(registry, ROUTE.replace("95", "90").replace("= 5", "= 10")))["models"].image)
    registry.set_alias("churn", "candidate", 2)
    tags.add(lower(loaded(registry, ROUTE))["models"].image)
    assert len(tags) == 4


def test_a_model_beside_it_takes_no_route(registry: Registry) -> None:
    """A server of its own gets the routes of its models alone, and no other versions."""
    registry.push(toy("price", msgspec.structs.replace(CHURN), CHURN_ROW, Path(registry.url).parent / "made"))
    plan = lower(loaded(registry, f'{ROUTE}[models.price]\ntrain = "a:c"\nport = 8009\n'))
    assert [model.version for model in plan["price"].models] == ["1"]
    assert "gateway" not in image_spec(plan, plan["price"]).contents.settings
    assert [f"{model.name}@{model.version}" for model in plan["models"].models] == ["churn@1", "churn@3", "price@1"]


def test_a_route_that_cannot_be_followed_is_refused_before_anything_is_built(registry: Registry) -> None:
    registry.remove_alias("churn", "candidate")
    with pytest.raises(BadProject, match=r"gateway\.routes\.churn: churn has no alias 'candidate'"):
        lower_for_compose(loaded(registry, ROUTE))
    other = msgspec.structs.replace(CHURN, fields=CHURN.fields[1:])
    row = {name: value for name, value in CHURN_ROW.items() if name != CHURN.fields[0].name}
    folder = Path(registry.url).parent / "made"
    registry.push(toy("churn", other, row, folder), ["candidate"])
    with pytest.raises(BadProject, match=r"candidate \(churn@4\) has another signature than production"):
        lower_for_kubernetes(loaded(registry, ROUTE))


def test_a_route_and_a_canary_of_the_same_model_are_refused(registry: Registry) -> None:
    more = '[kubernetes]\nhost = "h.example"\ngateway = "a/b"\n[kubernetes.canary.churn]\nweight = 5\n'
    with pytest.raises(BadProject, match=r"kubernetes\.canary\.churn: the model has a route too"):
        lower_for_kubernetes(loaded(registry, ROUTE + more))


def test_pods_copy_the_versions_of_the_route_and_their_aliases(
    registry: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    plan = lower_for_kubernetes(loaded(registry, f'{ROUTE}[images]\nmodels = "registry"\n'))
    text = render(plan, KubernetesOptions(registry=RegistryOptions(claim="models"))).texts["base/models.yaml"]
    pod = next(one for one in yaml.safe_load_all(text) if one["kind"] == "Deployment")["spec"]["template"]["spec"]
    shown = yaml.safe_dump(pod["initContainers"][0]["args"])
    for number in (1, 3):
        shown = shown.replace(registry.resolve(f"churn@{number}").digest, f"DIGEST-{number}")
    compare(shown, "kubernetes-registry/routes.yaml", request)
    aliases = [("churn@1", "production"), ("churn@3", "candidate")]
    for _ in range(2):  # a pod's first container may run again
        list(pull(registry.url, ["churn@1", "churn@3"], tmp_path / "pod", aliases))
    assert open_registry(tmp_path / "pod").aliases("churn") == {"production": 1, "candidate": 3}
