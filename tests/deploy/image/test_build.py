"""Images are built by Docker, run hardened, and get their name only after verification."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from images_made import SERVER, changed, copy, engine, made, toy_plan, web, web_plan
from toys import CHURN, CHURN_ROW, toy, until

from estiba.core.errors import BadProject, EstibaError, NotFound, ParityError
from estiba.deploy.image import build as building
from estiba.deploy.image import build_context, bundle, container_engine, verify
from estiba.deploy.image.build import BuildOptions
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine, StepFailed
from estiba.deploy.plan.plan import Service
from estiba.model.artifact import artifact
from estiba.model.registry.registry import open_registry

__all__ = ["copy", "engine", "made", "web"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def quiet(service: str, doing: str, detail: str) -> None:
    """Ignore a progress report."""


def build(context: BuildContext, engine: Engine, project: Path, **wish: Any) -> building.Built:
    return building.build_one(engine, context, project, BuildOptions(**wish), quiet)


def named(context: BuildContext, **changes: Any) -> BuildContext:
    """The same context for an image of another name."""
    fresh = changed(context.spec, **changes)
    return BuildContext(context.folder, fresh, context.left_out)


def test_an_image_that_proves_itself_gets_its_name(made: BuildContext, engine: Engine, tmp_path: Path) -> None:
    context = named(made, image="estiba-test/models:proven")
    built = build(context, engine, tmp_path)
    try:
        assert engine.has("estiba-test/models:proven")
        assert built.verified is not None
        assert built.verified.rows == 2
        assert built.verified.memory < 150e6
        assert built.weight.total < 130e6
        labels = engine.inspect("image", "estiba-test/models:proven")["Config"]["Labels"]
        assert labels["org.estiba.model.churn.digest"] == f"sha256:{made.spec.contents.models['churn'][1]}"
        kept = json.loads((built.folder / "weight.json").read_bytes())
        assert sum(kept["packages"].values()) == kept["bytes"]
        nowhere = engine.try_to("run", "--rm", "--read-only", "estiba-test/models:proven")
        assert nowhere.said.startswith("error: No folder for temporary files can be created: ")
    finally:
        engine.remove("estiba-test/models:proven")


def test_sagemaker_runs_it_with_one_word_and_asks_port_8080(
    made: BuildContext, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    built = build(named(made, image="estiba-test/models:sagemaker"), engine, tmp_path, verify=False)
    request.addfinalizer(lambda: engine.remove(built.image))
    container = engine.ask("run", "--detach", "--publish", "127.0.0.1::8080", built.image, "serve")
    request.addfinalizer(lambda: engine.try_to("rm", "--force", container))
    url = f"http://{engine.ask('port', container, '8080').splitlines()[0]}"
    assert until(lambda: answers(f"{url}/ping"), 60)
    (golden,) = (made.folder / "models").glob("artifacts/*/golden.json")
    body = {"dataframe_records": json.loads(golden.read_bytes())["records"][:1]}
    assert len(httpx.post(f"{url}/invocations", json=body).json()["predictions"]) == 1


def test_an_image_shares_the_requests_between_the_versions_of_its_route(
    toy_registry: Path, engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    registry = open_registry(shutil.copytree(toy_registry, tmp_path / "registry"))
    registry.set_alias("churn", "production", 1)
    fields = (msgspec.structs.replace(CHURN.fields[0], description="The second."), *CHURN.fields[1:])
    registry.push(toy("churn", msgspec.structs.replace(CHURN, fields=fields), CHURN_ROW, tmp_path), ["candidate"])
    route = '[gateway.routes.churn]\nweights = { production = 50, candidate = 50 }\nsticky = "header:X-User"\n'
    plan = toy_plan(tmp_path / "project", Path(registry.url), route)
    (tmp_path / "context").mkdir()
    context = build_context.assemble(plan, plan["models"], tmp_path / "context")
    built = build(named(context, image="estiba-test/models:routed"), engine, tmp_path / "project")
    request.addfinalizer(lambda: engine.remove(built.image))
    assert built.verified is not None
    assert built.verified.rows == 4, "two golden rows of each version"
    options = ("--detach", "--read-only", "--tmpfs", "/tmp", "--publish", "127.0.0.1::8000")
    container = engine.ask("run", *options, built.image)
    request.addfinalizer(lambda: engine.try_to("rm", "--force", container))
    url = f"http://{engine.ask('port', container, '8000').splitlines()[0]}"
    assert until(lambda: answers(f"{url}/health/ready"), 60)
    shown = httpx.get(f"{url}/models/churn/route").json()
    assert (shown["decided_by"], [target["version"] for target in shown["targets"]]) == ("file", ["1", "2"])
    chosen = {str(user): {asked(url, str(user)) for _ in range(2)} for user in range(40)}
    assert all(len(versions) == 1 for versions in chosen.values())
    assert 8 < sum(versions == {"2"} for versions in chosen.values()) < 32
    refused = httpx.put(f"{url}/models/churn/route", json={"weights": {"production": 100}})
    assert (refused.status_code, "The project file decides" in refused.json()["detail"]) == (409, True)


def asked(url: str, user: str) -> str:
    answer = httpx.post(f"{url}/models/churn/predict", json={"records": [CHURN_ROW]}, headers={"X-User": user})
    return str(answer.headers["x-model-version"])


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_an_image_over_its_budget_gets_no_name(web: BuildContext, engine: Engine, tmp_path: Path) -> None:
    context = named(web, image="estiba-test/models:heavy", budget=10_000_000)
    with pytest.raises(EstibaError, match="more than its budget of 10 MB"):
        build(context, engine, tmp_path)
    assert not engine.has("estiba-test/models:heavy")
    assert not (tmp_path / building.KEPT).exists()


def test_a_step_that_fails_is_named(copy: BuildContext, engine: Engine, tmp_path: Path) -> None:
    (copy.folder / "requirements.txt").write_text("idna==0.1 --hash=sha256:" + "0" * 64)
    with pytest.raises(StepFailed, match=r"docker cannot build the image: .*pip install") as error:
        build(named(copy, image="estiba-test/models:failed"), engine, tmp_path)
    assert "No matching distribution found for idna==0.1" in error.value.output
    assert not engine.has("estiba-test/models:failed")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("open('/app/state', 'w')", "Read-only file system"),
        ("raise SystemExit('no database')", "no database"),
    ],
)
def test_an_application_that_ends_while_it_starts(
    tmp_path: Path, copy: BuildContext, engine: Engine, code: str, message: str
) -> None:
    (copy.folder / "app/server.py").write_text(code)
    with pytest.raises(EstibaError, match=f"(?s)ended with exit code 1 while it started.*{message}"):
        build(named(copy, image="estiba-test/web:ends"), engine, tmp_path)
    assert not engine.has("estiba-test/web:ends")


def test_an_application_that_works(tmp_path: Path, web: BuildContext, engine: Engine) -> None:
    built = build(named(web, image="estiba-test/web:works"), engine, tmp_path)
    engine.remove(built.image)
    assert built.verified is not None
    assert built.verified.start is not None
    assert built.weight.packages["the application"] == len(SERVER)


def test_a_secret_is_made_up_for_what_reads_one(tmp_path: Path, copy: BuildContext, engine: Engine) -> None:
    code = "assert len(open('/run/secrets/key').read()) > 20"
    (copy.folder / "app/server.py").write_text(f"{code}\n{SERVER}")
    built = build(named(copy, image="estiba-test/web:secret", runtime={"secrets": ("key",)}), engine, tmp_path)
    engine.remove(built.image)
    assert built.verified is not None
    assert built.verified.start is not None


def test_what_needs_others_is_not_told_to_stop_while_it_starts(
    tmp_path: Path, copy: BuildContext, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "NEEDS_OTHERS_SECONDS", 1.0)
    (copy.folder / "app/server.py").write_text("import time; time.sleep(100)")  # process 1 ignores SIGTERM meanwhile
    context = named(copy, image="estiba-test/web:waits", runtime={"standalone": False, "stop_grace": 1})
    built = build(context, engine, tmp_path)
    engine.remove(built.image)
    assert built.verified is not None
    assert (built.verified.start, built.verified.stop) == (None, None)


def test_what_ends_without_its_database_is_not_verified_and_has_its_name(
    tmp_path: Path, copy: BuildContext, engine: Engine
) -> None:
    (copy.folder / "app/server.py").write_text("import socket; socket.create_connection(('postgres', 5432))")
    needs = {"standalone": False, "needs": ("postgres",)}
    built = build(named(copy, image="estiba-test/web:database", runtime=needs), engine, tmp_path)
    assert engine.has("estiba-test/web:database")
    engine.remove(built.image)
    assert built.verified is None
    assert built.unverified.startswith("it needs postgres, and without ended with exit code 1: ")
    assert "socket.gaierror" in built.unverified


@pytest.mark.parametrize("code", ["import nothing_like_this", "open('/app/state', 'w')"])
def test_needs_excuse_no_fault_of_the_image(tmp_path: Path, copy: BuildContext, engine: Engine, code: str) -> None:
    (copy.folder / "app/server.py").write_text(code)
    needs = {"standalone": False, "needs": ("postgres",)}
    with pytest.raises(EstibaError, match="ended with exit code 1 while it started") as error:
        build(named(copy, image="estiba-test/web:ends", runtime=needs), engine, tmp_path)
    assert error.value.hint is not None
    assert "--no-verify" in error.value.hint


def test_one_that_cannot_be_built_keeps_no_other_from_it() -> None:
    seen = []

    def make(service: Service) -> building.Built:
        seen.append(service.name)
        raise NotFound(f"{service.name} has no wheel.", hint="Make one.")

    services = [Service("web", "a/web:1"), Service("api", "a/api:1")]
    with pytest.raises(EstibaError, match=r"web has no wheel.\n\napi has no wheel.") as error:
        list(building.build_each(services, make, lambda service, step, detail: None))
    assert seen == ["web", "api"]
    assert error.value.exit_code == 4


def test_a_build_replaces_the_image_of_its_name_only(copy: BuildContext, engine: Engine, tmp_path: Path) -> None:
    def again(number: int) -> str:
        with (copy.folder / "Dockerfile").open("a") as handle:
            handle.write(f"LABEL round={number}\n")
        return build(named(copy, image="estiba-test/web:again"), engine, tmp_path, verify=False).digest

    try:
        first = again(1)
        engine.tag(first, "estiba-test/web:kept")
        second = again(2)
        assert engine.has(first)
        third = again(3)
        assert engine.has(third)
        assert not engine.has(second)
    finally:
        for name in ("again", "kept"):
            engine.remove(f"estiba-test/web:{name}")


def test_a_model_that_answers_otherwise_is_found_out(made: BuildContext, engine: Engine, tmp_path: Path) -> None:
    """Answers over HTTP are compared with the golden rows of the local artifact, not with those in the image."""
    other = tmp_path / "models"
    shutil.copytree(made.folder / "models", other)
    digest = made.spec.contents.models["churn"][1]
    (golden,) = other.glob(f"artifacts/{digest}/golden.json")
    context = named(made, image="estiba-test/models:otherwise")
    identity = engine.build(made.folder, network=False, on_line=lambda line: None)
    try:
        content = json.loads(golden.read_bytes())
        content["answers"] = [[1 - value for value in row] for row in content["answers"]]
        golden.write_text(json.dumps(content))
        _reseal(other, digest)
        moved = next((other / "artifacts").iterdir()).name
        other_spec = changed(context.spec, contents={"models": {"churn": ("1", moved)}})
        with pytest.raises(ParityError, match="answers golden row 0 with"):
            verify.verify(engine, identity, other_spec, other)
    finally:
        engine.remove(identity)


def _reseal(registry: Path, digest: str) -> None:
    """Gives a changed artifact a manifest that agrees with it, and so another digest."""
    folder = registry / "artifacts" / digest
    manifest = artifact.decode((folder / "artifact.json").read_bytes(), digest, folder)
    files = {entry.path: (folder / entry.path).read_bytes() for entry in manifest.files}
    artifact.write(registry / "artifacts", manifest, files)
    shutil.rmtree(folder)


def test_an_archive_needs_no_network(engine: Engine, tmp_path: Path) -> None:
    plan = web_plan(tmp_path / "project")
    listed = bundle.export(plan, [plan["web"]], tmp_path / "all.tar.gz", None, quiet)
    with bundle.opened(tmp_path / "all.tar.gz") as archive:
        (context,) = archive.contexts
        assert set(listed.bases) == {context.spec.contents.base}
        bundle.provide_base(engine, archive, context.spec.contents.base, lambda text: None)
        built = build(named(context, image="estiba-test/web:offline"), engine, tmp_path, verify=False)
        engine.remove(built.image)
    assert built.unverified == "not asked for"


def test_buildah_builds_it_too(
    web: BuildContext, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    try:
        buildah = container_engine.find("buildah")
    except NotFound as error:
        pytest.skip(f"{error.message} scripts/lab/oci brings it.")
    if not buildah.has(web.spec.contents.base):
        engine.save(web.spec.contents.base, tmp_path / "base.tar")
        buildah.load(tmp_path / "base.tar")
    built = build(named(web, image="localhost/estiba-test/web:buildah"), buildah, tmp_path)
    assert built.unverified == "buildah cannot run it as a deployment would"
    assert built.weight.packages["the application"] == len(SERVER)
    buildah.remove(built.image)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    with pytest.raises(EstibaError, match="not an archive of"), bundle.opened(tmp_path / "a.tar.gz"):
        pass
    with pytest.raises(NotFound), bundle.opened(tmp_path / "b.tar.gz"):
        pass


def test_which_services_are_built(tmp_path: Path, toy_registry: Path) -> None:
    plan = toy_plan(tmp_path, toy_registry, '[services.db]\nimage = "postgres:17"\nport = 5432\n')
    assert [service.name for service in building.select(plan, [])] == ["models"]
    for name, message in (
        ("model", "did you mean 'models'"),
        ("db", "uses the image postgres:17"),
    ):
        with pytest.raises(BadProject, match=message):
            building.select(plan, [name])


def test_no_container_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="docker: not installed; podman: not installed") as error:
        container_engine.find()
    assert re.search("estiba build --oci DIR", str(error.value))
