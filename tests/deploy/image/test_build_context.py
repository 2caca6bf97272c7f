"""Files of an image are readable by the user that runs it, whatever the umask of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from images_made import changed, toy_plan, web_plan

from estiba.deploy.image import build_context, verify
from estiba.deploy.image.spec import image_spec

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="images are made on Linux")


@pytest.fixture(autouse=True)
def nobody_else() -> Iterator[None]:
    """New files are their owner's only, as on a machine with strict settings."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def rights(folder: Path) -> dict[str, str]:
    """By path, the rights of what is not as everybody may read it."""
    found = {str(path.relative_to(folder)): path for path in (folder, *folder.rglob("*"))}
    modes = {name: f"{path.stat().st_mode & 0o777:o}" for name, path in found.items()}
    return {name: mode for name, mode in modes.items() if mode != ("755" if found[name].is_dir() else "644")}


def test_an_application(tmp_path: Path) -> None:
    plan = web_plan(tmp_path / "project")
    (tmp_path / "project" / "server.py").chmod(0o700)
    (tmp_path / "made").mkdir()
    made = build_context.assemble(plan, plan["web"], tmp_path / "made")
    assert rights(made.folder / "app") == {"server.py": "755"}


@pytest.mark.slow
def test_models(toy_registry: Path, tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "project", toy_registry, '[images]\nmodels = "registry"\n')
    (tmp_path / "made").mkdir()
    made = build_context.assemble(plan, plan["models"], tmp_path / "made")
    assert (rights(made.folder / "models"), rights(made.models)) == ({}, {})
    assert list(made.models.glob("models/churn/versions/*.json"))


def test_secrets_of_the_moment(tmp_path: Path) -> None:
    plan = web_plan(tmp_path / "project")
    found = changed(image_spec(plan, plan["web"]), runtime={"secrets": ("key",)})
    with verify._random_secrets(found) as mounts:
        assert rights(Path(mounts[1].partition(":")[0]).parent) == {}
