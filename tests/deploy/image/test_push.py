"""Images are pushed to a real registry by every supported program, and a registry's refusal is reported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from images_made import SERVER, WEB, changed, copy, engine, web
from registries import Registry, registry

from estiba.cli.main import run
from estiba.core.errors import BadProject, EstibaError, NotFound, Unavailable
from estiba.deploy.image import build as building
from estiba.deploy.image import container_engine, oci_builder, oci_layout, push
from estiba.deploy.image.build import BuildOptions
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine
from estiba.deploy.output import ci_pipelines

__all__ = ["copy", "engine", "web"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def silent(line: str) -> None:
    """Ignore a line of output."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry for everybody."""
    with registry(tmp_path_factory.mktemp("registry") / "open") as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that wants to know who is asking."""
    with registry(tmp_path_factory.mktemp("registry") / "guarded", users=True) as found:
        yield found


@pytest.fixture(scope="module")
def layout(web: BuildContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest image there is, with one file in it, as a layout."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "files").mkdir()
    (folder / "files" / "a").write_text("a")
    layer = oci_layout.add_folder(folder / "layout", folder / "files", "a file")
    oci_layout.finish(folder / "layout", changed(web.spec, image="tiny/web:1"), [layer], {})
    return folder / "layout"


@pytest.fixture(params=["docker", "podman", "buildah"])
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Each container engine that is here."""
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    try:
        return container_engine.find(request.param)
    except NotFound as error:
        pytest.skip(f"{error.message} scripts/lab/docker and scripts/lab/oci bring them.")


@pytest.fixture
def skopeo() -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed: scripts/lab/oci brings it")


def named(engine: Engine, layout: Path, name: str) -> str:
    """Gives the smallest image a name in a container engine."""
    oci_builder.load(engine, layout, name)
    return name


def test_each_engine_says_by_which_digest_the_registry_has_it(program: Engine, layout: Path, opened: Registry) -> None:
    name = named(program, layout, f"{opened.host}/shop/{program.program}:1")
    try:
        pushed = push.push(program, name, silent)
    finally:
        program.remove(name)
    assert pushed.startswith(f"{name}@sha256:")
    digest = pushed.rpartition("@")[2]
    assert opened.digest(name, "1") == digest
    assert opened.digest(name, digest) == digest


def test_who_is_not_logged_in_is_told_to(
    program: Engine, layout: Path, guarded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = named(program, layout, f"{guarded.host}/shop/{program.program}:1")
    refused = rf"The registry {guarded.host} refused {name}: .*(?i:auth)"
    try:
        guarded.let_in(tmp_path / "wrong", monkeypatch, password="another")
        with pytest.raises(EstibaError, match=refused) as caught:
            push.push(program, name, silent)
        assert caught.value.hint == f"Log in as a user with write access: {program.program} login {guarded.host}"
        assert guarded.digest(name, "1") is None
        guarded.let_in(tmp_path / "right", monkeypatch)
        digest = push.push(program, name, silent).rpartition("@")[2]
        assert guarded.digest(name, "1") == digest
    finally:
        program.remove(name)


def test_a_registry_that_is_not_there(program: Engine, layout: Path) -> None:
    name = named(program, layout, f"127.0.0.1:1/shop/{program.program}:1")
    try:
        with pytest.raises(Unavailable, match=r"The registry 127\.0\.0\.1:1 cannot be reached, so .* was not pushed"):
            push.push(program, name, silent)
    finally:
        program.remove(name)


@pytest.mark.parametrize("program", ["podman", "buildah"], indirect=True)  # docker tries for 50 seconds first
def test_a_registry_that_only_reads(program: Engine, layout: Path, tmp_path: Path) -> None:
    with registry(tmp_path / "registry", read_only=True) as found:
        name = named(program, layout, f"{found.host}/shop/{program.program}:1")
        try:
            with pytest.raises(EstibaError, match=rf"The registry {found.host} refused {name}"):
                push.push(program, name, silent)
        finally:
            program.remove(name)
        assert found.digest(name, "1") is None


@pytest.mark.usefixtures("skopeo")
def test_a_layout_arrives_byte_for_byte(
    layout: Path, guarded: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"]
    name = f"{guarded.host}/shop/layout:1"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "nothing.json"))
    (tmp_path / "nothing.json").write_text("{}")
    with pytest.raises(EstibaError, match="refused") as caught:
        push.push_layout(layout, name, silent)
    assert caught.value.hint == f"Log in as a user with write access: skopeo login {guarded.host}"
    guarded.let_in(tmp_path / "right", monkeypatch)
    odd = tmp_path / "a:folder with a colon"
    shutil.copytree(layout, odd)
    assert push.push_layout(odd, name, silent) == f"{name}@{digest}"
    assert guarded.digest(name, "1") == digest
    with pytest.raises(Unavailable, match="cannot be reached"):
        push.push_layout(layout, "127.0.0.1:1/shop/layout:1", silent)


def project(folder: Path, repository: str) -> Path:
    """A project with one small application whose images go to a repository."""
    (folder / "server.py").write_text(SERVER)
    (folder / "requirements.txt").write_text("idna==3.10\n")
    (folder / "estiba.toml").write_text(f'[project]\nname = "toys"\n[images]\nrepository = "{repository}"\n' + WEB)
    return folder


def build(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    """The exit code of `estiba build --push --json`, what it prints and what it says."""
    code = run(["build", "-C", str(folder), "--push", "--json", "--no-verify", *words])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else None, said.err


def test_from_a_project_to_a_registry(
    tmp_path: Path, engine: Engine, opened: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, said = build(project(tmp_path, f"{opened.host}/shop"), capsys, "--builder", "docker")
    assert code == 0, said
    (built,) = found
    engine.remove(built["image"])
    digest = opened.digest(built["image"], built["image"].rpartition(":")[2])
    assert digest is not None
    assert built["pushed"] == f"{built['image']}@{digest}"
    assert f"web: pushing ({built['image']})" in said
    statement = json.loads((tmp_path / building.KEPT / "web" / "provenance.json").read_bytes())
    assert statement["subject"] == [{"name": built["image"], "digest": {"sha256": digest.removeprefix("sha256:")}}]
    base = statement["predicate"]["buildDefinition"]["resolvedDependencies"][-1]
    assert base["uri"].startswith("pkg:docker/python@3.")
    assert base["digest"] == {"sha256": engine.digest(f"python:{base['uri'].partition('@')[2]}")[7:]}


@pytest.mark.usefixtures("skopeo")
def test_a_layout_from_a_project_to_a_registry(
    tmp_path: Path, opened: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project(tmp_path, f"{opened.host}/layouts")
    code, found, said = build(folder, capsys, "--oci", str(tmp_path / "layout"))
    assert code == 0, said
    (built,) = found
    assert built["pushed"] == f"{built['image']}@{built['digest']}"
    assert opened.digest(built["image"], built["digest"]) == built["digest"]
    statement = json.loads((tmp_path / building.KEPT / "web" / "provenance.json").read_bytes())
    python = statement["predicate"]["buildDefinition"]["resolvedDependencies"][-1]
    assert python["uri"].startswith("pkg:generic/python@3.")
    assert len(python["digest"]["sha256"]) == 64


@pytest.mark.usefixtures("skopeo")
@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_what_was_pushed_is_signed_as_the_pipeline_signs_it(
    host: str, layout: Path, opened: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By cosign itself, with a key where a pipeline has its identity."""
    if shutil.which("cosign") is None:
        pytest.skip("cosign is not here: scripts/lab/oci brings it")
    name = f"{opened.host}/shop/{host}:1"
    (tmp_path / "images.json").write_text(json.dumps([{"pushed": push.push_layout(layout, name, silent)}]))
    monkeypatch.setenv("COSIGN_PASSWORD", "")
    cosign(tmp_path, "cosign generate-key-pair")
    monkeypatch.setenv("COSIGN_TLOG_UPLOAD", "false")
    estiba = ci_pipelines.Installed("estiba.whl")
    pipeline = ci_pipelines.Pipeline("shop", "3.12", estiba, (), "ghcr.io/acme/shop", "compose")
    text = ci_pipelines.render(pipeline, host)
    (line,) = (line for line in every_text(yaml.safe_load(text)) if "cosign sign" in line)
    monkeypatch.setenv("COSIGN_KEY", str(tmp_path / "cosign.key"))
    cosign(tmp_path, line)
    monkeypatch.delenv("COSIGN_KEY")
    verified = cosign(tmp_path, f"cosign verify --key cosign.pub --insecure-ignore-tlog=true {name}")
    assert json.loads(verified)[0]["critical"]["image"]["docker-manifest-digest"] == opened.digest(name, "1")


def cosign(folder: Path, line: str) -> str:
    """The standard output of a shell command."""
    done = subprocess.run(["bash", "-e", "-c", line], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def every_text(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from every_text(inner)


@pytest.mark.parametrize("more", [(), ("--oci", "layout")])
def test_a_name_without_a_registry_is_refused_before_anything_is_built(
    tmp_path: Path, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, said = build(project(tmp_path, "acme/shop"), capsys, *more)
    assert (code, found) == (2, None)
    assert "images.repository: the name acme/shop/web:" in said
    assert "docker.io/acme" in said
    assert not (tmp_path / building.KEPT).exists()


def test_without_skopeo_no_layout_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="skopeo, which is not installed"):
        push.check(["ghcr.io/acme/shop:1"], layout=True)
    push.check(["ghcr.io/acme/shop:1"], layout=False)
    with pytest.raises(BadProject):
        push.check(["ghcr.io/acme/shop:1", "shop/web:1"], layout=False)


def test_what_was_not_pushed_is_built_and_has_its_name(web: BuildContext, engine: Engine, tmp_path: Path) -> None:
    image = "127.0.0.1:1/shop/web:kept"
    there = BuildContext(web.folder, changed(web.spec, image=image), web.left_out)
    try:
        with pytest.raises(Unavailable, match="cannot be reached"):
            building.build_one(engine, there, tmp_path, BuildOptions(verify=False, push=True), lambda *words: None)
        assert engine.has(image)
    finally:
        engine.remove(image)


def test_manifests_by_the_digests_that_were_pushed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path, "ghcr.io/acme/shop")
    assert run(["kubernetes", "-C", str(folder)]) == 0
    manifest = folder / "deploy" / "kubernetes" / "base" / "web.yaml"
    before = manifest.read_text()
    (image,) = re.findall(r"image: \"?(ghcr\.io/acme/shop/web:\w+)", before)
    sent = f"{image}@sha256:{'ab' * 32}"
    file = tmp_path / "images.json"
    file.write_text(json.dumps([{"service": "web", "image": image, "pushed": sent, "bytes": 1}]))
    assert run(["kubernetes", "-C", str(folder), "--pin", str(file)]) == 0
    assert manifest.read_text() == before.replace(image, sent)
    capsys.readouterr()
    for content, message in (
        (json.dumps([{"image": "ghcr.io/acme/shop/web:other", "pushed": sent}]), "names no image that the project has"),
        (json.dumps([{"image": image, "pushed": None}]), "names no image that was pushed"),
        (json.dumps([{"image": image, "pushed": "elsewhere"}]), "is not a list of pushed images"),
        ("{", "is not a list of pushed images"),
    ):
        file.write_text(content)
        assert run(["kubernetes", "-C", str(folder), "--pin", str(file)]) == 2
        assert message in capsys.readouterr().err
