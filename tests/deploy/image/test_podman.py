"""podman in place of docker builds, runs and verifies images, and loads OCI layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from images_made import PYTHON, changed, engine, made, web

from estiba.core.errors import EstibaError, NotFound
from estiba.deploy.image import build as building
from estiba.deploy.image import container_engine
from estiba.deploy.image.build import BuildOptions, Built
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine

__all__ = ["engine", "made", "web"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def podman(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """podman with the base image of the Docker engine, and content with limits that it may set.

    By default it raises them for what it runs, which a sandbox without CAP_SYS_RESOURCE does not allow.
    """
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
    )
    monkeypatch.setenv("CONTAINERS_CONF", str(tmp_path / "containers.conf"))
    try:
        found = container_engine.find("podman")
    except NotFound as error:
        pytest.skip(f"{error.message} scripts/lab/oci brings it.")
    base = f"python:{PYTHON}-slim"
    if not found.has(base):
        engine.save(base, tmp_path / "base.tar")
        found.load(tmp_path / "base.tar")
    return found


def named(context: BuildContext, image: str) -> BuildContext:
    return BuildContext(context.folder, changed(context.spec, image=image), context.left_out)


def build(podman: Engine, context: BuildContext, project: Path) -> Built:
    """An image that podman built and ran, whose name is gone again."""
    try:
        return building.build_one(podman, context, project, BuildOptions(), lambda *words: None)
    finally:
        podman.remove(context.spec.image)


def test_models_answer_as_in_training(podman: Engine, made: BuildContext, tmp_path: Path) -> None:
    built = build(podman, named(made, "localhost/estiba-test/models:podman"), tmp_path)
    assert built.engine == "podman"
    assert built.verified is not None
    assert built.verified.rows > 0
    assert built.verified.memory > 10e6
    assert built.weight.total < 130e6
    base = json.loads((built.folder / "provenance.json").read_bytes())["predicate"]["buildDefinition"]
    assert base["resolvedDependencies"][-1]["digest"]["sha256"] == podman.digest(made.spec.contents.base)[7:]


def test_an_application_runs(podman: Engine, web: BuildContext, tmp_path: Path) -> None:
    built = build(podman, named(web, "localhost/estiba-test/web:podman"), tmp_path)
    assert built.verified is not None
    assert built.verified.start is not None


def test_what_fails_is_found_out_and_gets_no_name(podman: Engine, web: BuildContext, tmp_path: Path) -> None:
    context = named(web, "localhost/estiba-test/web:ends")
    ends = changed(context.spec, runtime={"environment": {"PYTHONHOME": "/nowhere"}})
    with pytest.raises(EstibaError, match=r"(?s)ended with exit code 1 while it started.*encodings"):
        build(podman, BuildContext(context.folder, ends, context.left_out), tmp_path)
    assert not podman.has("localhost/estiba-test/web:ends")


def test_a_layout_runs_in_podman(podman: Engine, web: BuildContext, tmp_path: Path) -> None:
    wish = BuildOptions(engine="podman")
    built = building.write_layout(web, tmp_path / "layout", None, wish, tmp_path, lambda *words: None)
    assert built.verified is not None
    assert built.verified.start is not None
    assert not podman.has(f"estiba-verify/web:{web.spec.image.rpartition(':')[2]}")
