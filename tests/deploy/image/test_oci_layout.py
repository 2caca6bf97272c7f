"""OCI layouts are reproducible to the byte, have correct digests, and hold an image that runs."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from images_made import changed, copy, engine, made, web

from estiba.core.errors import Conflict, EstibaError, NotFound
from estiba.deploy.image import build, oci_builder, oci_layout, size_report
from estiba.deploy.image.build import BuildOptions
from estiba.deploy.image.build_context import BuildContext
from estiba.deploy.image.container_engine import Engine

__all__ = ["copy", "engine", "made", "web"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def layout(web: BuildContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("oci") / "layout"
    oci_builder.write(web, target)
    return target


def blob(layout: Path, described: dict[str, Any]) -> bytes:
    content = (layout / "blobs/sha256" / described["digest"].removeprefix("sha256:")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == described["digest"].removeprefix("sha256:")
    assert len(content) == described["size"]
    return content


def manifest(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_bytes())
    found: dict[str, Any] = json.loads(blob(layout, index["manifests"][0]))
    return found


def test_every_digest_is_right(layout: Path) -> None:
    described = manifest(layout)
    config = json.loads(blob(layout, described["config"]))
    plain = [hashlib.sha256(gzip.decompress(blob(layout, layer))).hexdigest() for layer in described["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in plain]
    assert len(plain) == 3
    assert config["config"]["User"] == "10001:0"
    assert config["config"]["Cmd"] == ["python", "server.py", "5000"]
    assert config["config"]["Healthcheck"]["Test"][:3] == ["CMD", "python", "-c"]
    assert config["config"]["Labels"] == described["annotations"]


def test_two_layouts_are_the_same_bytes(web: BuildContext, layout: Path, tmp_path: Path) -> None:
    oci_builder.write(web, tmp_path / "again")
    one, two = (
        {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for place in (layout, tmp_path / "again")
    )
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one)


def test_nothing_in_it_is_for_one_user_or_has_a_time(layout: Path) -> None:
    for layer in manifest(layout)["layers"]:
        path = layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:")
        with tarfile.open(path) as tar:
            for entry in tar:
                assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 0)
                assert entry.issym() or entry.mode & 0o004, entry.name
                assert "/test/" not in entry.name


def test_a_layout_that_is_there_already_stays(layout: Path, web: BuildContext) -> None:
    with pytest.raises(Conflict, match="exists already"):
        oci_builder.write(web, layout)


def test_what_cannot_be_made_without_an_engine(copy: BuildContext, tmp_path: Path) -> None:
    def of(**changes: Any) -> BuildContext:
        return BuildContext(copy.folder, changed(copy.spec, **changes), {})

    for changes, message in (
        ({"contents": {"python": "3.99"}}, "Python 3.99"),
        ({"contents": {"packages": ("libgomp1",)}}, "only apt can install"),
        ({"style": "slim"}, "needs the layers of python"),
    ):
        with pytest.raises((EstibaError, NotFound), match=message):
            oci_builder.write(of(**changes), tmp_path / "layout")
    assert not (tmp_path / "layout").exists()
    (tmp_path / "base.tar").write_bytes(b"no archive")
    with pytest.raises(EstibaError, match="not an image archive of"):
        oci_builder.write(copy, tmp_path / "layout", tmp_path / "base.tar")


def test_a_step_that_fails_leaves_nothing(copy: BuildContext, tmp_path: Path) -> None:
    (copy.folder / "tools/estiba/deploy/image/slim/trim_packages.py").write_text("raise SystemExit('no space left')")
    with pytest.raises(EstibaError, match="The step trim_packages of web failed: no space left"):
        oci_builder.write(copy, tmp_path / "layout")
    assert not (tmp_path / "layout").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["context"]


def test_a_layout_of_models_runs_and_is_described(made: BuildContext, tmp_path: Path, engine: Engine) -> None:
    told: list[str] = []
    built = build.write_layout(
        made, tmp_path / "layout", None, BuildOptions(), tmp_path, lambda service, doing, detail: told.append(doing)
    )
    assert built.verified is not None
    assert built.verified.rows > 0
    assert told == ["writing", "running"]
    assert built.weight.total < 130e6
    assert sorted(path.name for path in built.folder.iterdir() if path.suffix == ".json") == [
        "image.json",
        "provenance.json",
        "sbom.cdx.json",
        "weight.json",
    ]
    assert not engine.has(f"estiba-verify/models:{made.spec.image.rpartition(':')[2]}")


def test_a_layout_lies_on_the_layers_of_its_base(web: BuildContext, engine: Engine, tmp_path: Path) -> None:
    engine.save(web.spec.contents.base, tmp_path / "base.tar")
    slim = BuildContext(web.folder, changed(web.spec, style="slim"), {})
    oci_builder.write(slim, tmp_path / "layout", tmp_path / "base.tar")
    base = oci_layout.base_image(tmp_path / "base.tar")
    assert len(manifest(tmp_path / "layout")["layers"]) == len(base.layers) + 3
    contents = size_report.layout(tmp_path / "layout")
    assert "usr/bin/apt-get" in contents.sizes
    assert any(path.endswith("site-packages/idna/__init__.py") for path in contents.sizes)
