"""Artifacts are reproducible, verified before anything is loaded, and complete or absent."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sample_artifacts import FILES, manifest, names

from estiba.core.errors import BadArtifact, EstibaError, NotFound
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact


@pytest.fixture
def good(tmp_path: Path) -> Artifact:
    return artifact.write(tmp_path / "artifacts", manifest(), FILES)


def test_the_same_inputs_give_the_same_digest(tmp_path: Path, good: Artifact) -> None:
    shuffled = {path: FILES[path] for path in reversed(FILES)}
    again = artifact.write(tmp_path / "elsewhere", manifest(), shuffled)
    assert again.digest == good.digest == good.path.name
    assert (again.path / "artifact.json").read_bytes() == (good.path / "artifact.json").read_bytes()


def test_the_digest_is_that_of_the_manifest_and_the_manifest_names_every_file(good: Artifact) -> None:
    content = (good.path / "artifact.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == good.digest
    for entry in good.manifest.files:
        data = good.file(entry.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry.bytes, entry.sha256)
    assert {entry.path for entry in good.manifest.files} == FILES.keys()


def test_reading_gives_back_what_was_written(good: Artifact) -> None:
    found = artifact.read(good.path)
    assert found == good
    assert msgspec.structs.replace(found.manifest, files=()) == manifest()
    assert found.model.read_bytes() == FILES["model.onnx"]


def test_a_relative_path_works(good: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(good.path)
    assert artifact.read(Path()).digest == good.digest


def test_whole_numbers_numpy_numbers_and_the_order_of_keys_do_not_change_the_digest(tmp_path: Path) -> None:
    plain = artifact.write(tmp_path, manifest(metrics={"a": 1.0, "b": 0.5}), FILES)
    odd = artifact.write(tmp_path, manifest(metrics={"b": np.float64(0.5), "a": 1}), FILES)
    assert odd.digest == plain.digest


def test_writing_again_reuses_what_is_there(tmp_path: Path, good: Artifact) -> None:
    before = good.model.stat()
    artifact.write(tmp_path / "artifacts", manifest(), FILES)
    assert good.model.stat() == before
    assert names(tmp_path / "artifacts") == [good.digest]


def test_writing_again_repairs_what_is_damaged(tmp_path: Path, good: Artifact) -> None:
    good.model.write_bytes(b"x")
    artifact.write(tmp_path / "artifacts", manifest(), FILES)
    assert artifact.read(good.path) == good


def flip(good: Artifact) -> str:
    data = bytearray(good.model.read_bytes())
    data[7] ^= 1
    good.model.write_bytes(data)
    return "model.onnx was changed"


def truncate(good: Artifact) -> str:
    os.truncate(good.model, 10)
    return "model.onnx has 10 bytes instead of 950"


def empty(good: Artifact) -> str:
    os.truncate(good.file("golden/rows.json"), 0)
    return "golden/rows.json has 0 bytes"


def delete(good: Artifact) -> str:
    good.file("card.md").unlink()
    return "card.md is missing"


def add(good: Artifact) -> str:
    (good.path / "golden" / "__init__.py").write_text("print('hello')")
    return "golden/__init__.py is not in the manifest"


def link_file(good: Artifact) -> str:
    aside = good.path.parent / "aside"
    good.model.rename(aside)
    good.model.symlink_to(aside)
    return "model.onnx is a symbolic link"


def link_folder(good: Artifact) -> str:
    aside = good.path.parent / "aside"
    (good.path / "golden").rename(aside)
    (good.path / "golden").symlink_to(aside)
    return "golden is a symbolic link"


def pipe(good: Artifact) -> str:
    good.model.unlink()
    os.mkfifo(good.model)
    return "model.onnx is a symbolic link or a device"


def edit_manifest(good: Artifact) -> str:
    path = good.path / "artifact.json"
    path.write_text(path.read_text().replace("0.96", "0.99"))
    return "artifact.json was changed"


def truncate_manifest(good: Artifact) -> str:
    os.truncate(good.path / "artifact.json", 100)
    return "artifact.json was changed"


def delete_manifest(good: Artifact) -> str:
    (good.path / "artifact.json").unlink()
    return "artifact.json is missing"


DAMAGE = [flip, truncate, empty, delete, add, link_file, link_folder, pipe]
DAMAGE += [edit_manifest, truncate_manifest, delete_manifest]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_refused_by_the_name_of_the_file(good: Artifact, damage: Callable[[Artifact], str]) -> None:
    said = damage(good)
    with pytest.raises(BadArtifact) as caught:
        artifact.read(good.path)
    assert said in caught.value.message
    assert str(good.path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["latest", "0" * 64, "A" * 64])
def test_a_renamed_directory_is_refused(good: Artifact, name: str) -> None:
    renamed = good.path.rename(good.path.parent / name)
    with pytest.raises(BadArtifact, match="digest"):
        artifact.read(renamed)


def test_a_linked_directory_is_refused(good: Artifact, tmp_path: Path) -> None:
    link = tmp_path / good.digest
    link.symlink_to(good.path)
    with pytest.raises(BadArtifact, match="is a symbolic link"):
        artifact.read(link)


def test_a_missing_directory_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no artifact at"):
        artifact.read(tmp_path / ("0" * 64))
    (tmp_path / ("1" * 64)).write_text("")
    with pytest.raises(BadArtifact, match="is not a directory"):
        artifact.read(tmp_path / ("1" * 64))


def forged(root: Path, **changed: object) -> Path:
    """A directory whose name and manifest agree, but whose manifest Estiba would not have written."""
    content = msgspec.json.encode({**msgspec.to_builtins(manifest()), **changed})
    folder = root / hashlib.sha256(content).hexdigest()
    folder.mkdir()
    (folder / "artifact.json").write_bytes(content)
    return folder


def test_a_newer_schema_asks_for_a_newer_estiba(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="made by a newer Estiba") as caught:
        artifact.read(forged(tmp_path, schema=artifact.SCHEMA + 1, invented=True))
    assert "newer version of Estiba" in str(caught.value.hint)


@pytest.mark.parametrize(
    "changed",
    [{"invented": 1}, {"schema": "1"}, {"engine": "perl"}, {"name": None}, {"files": [{"path": "model.onnx"}]}],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(BadArtifact, match="is not a manifest of Estiba"):
        artifact.read(forged(tmp_path, **changed))


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a\\b", "", ".", "artifact.json"])
def test_a_path_that_leaves_the_artifact_is_refused(tmp_path: Path, path: str) -> None:
    files = [{"path": path, "sha256": "0" * 64, "bytes": 0}]
    with pytest.raises(BadArtifact, match="leaves the artifact"):
        artifact.read(forged(tmp_path, files=files))
    with pytest.raises(EstibaError, match="leaves the artifact"):
        artifact.write(tmp_path / "w", manifest(), {**FILES, path: b""})
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), "high", object()])
def test_a_figure_that_json_cannot_hold_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(EstibaError, match="cannot be stored") as caught:
        artifact.write(tmp_path / "w", manifest(metrics={"loss": value}), FILES)
    assert "finite" in str(caught.value.hint)
    assert not (tmp_path / "w").exists()


def test_the_model_file_must_be_among_the_files(tmp_path: Path) -> None:
    with pytest.raises(EstibaError, match=r"model\.onnx.* is not one of its files"):
        artifact.write(tmp_path, manifest(), {"card.md": b""})


def test_an_unknown_file_is_not_found(good: Artifact) -> None:
    with pytest.raises(NotFound, match=r"no file 'x\.onnx'"):
        good.file("x.onnx")


def test_a_full_disk_leaves_nothing_and_says_why(small_disk: Path) -> None:
    with pytest.raises(EstibaError) as caught:
        artifact.write(small_disk, manifest(), {**FILES, "large.bin": bytes(200_000)})
    assert f"Cannot write {small_disk}" in caught.value.message
    assert "disk" in str(caught.value.hint)
    assert names(small_disk) == []
    assert artifact.write(small_disk, manifest(), FILES).model.exists()


def test_a_file_larger_than_the_limit_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    try:
        with pytest.raises(EstibaError, match="File too large"):
            artifact.write(tmp_path, manifest(), {**FILES, "large.bin": bytes(200_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """A folder that this process may read but not write, also where it is root: it becomes nobody for a while."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_no_permission_says_where_and_what_to_do(forbidden: Path) -> None:
    for root in (forbidden, forbidden / "new"):
        with pytest.raises(EstibaError, match="Permission denied") as caught:
            artifact.write(root, manifest(), FILES)
        assert f"Cannot write {root}" in caught.value.message
        assert "right to" in str(caught.value.hint)
    assert names(forbidden) == []


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EstibaError, match="Not a directory") as caught:
        artifact.write(tmp_path / "file", manifest(), FILES)
    assert "A file stands where a folder is needed" in str(caught.value.hint)


def test_what_a_killed_writer_left_is_swept_after_a_day(tmp_path: Path) -> None:
    for name, hours in (("old", 25), ("young", 1)):
        (tmp_path / f".tmp-{name}").mkdir()
        then = time.time() - hours * 3600
        os.utime(tmp_path / f".tmp-{name}", times=(then, then))
    made = artifact.write(tmp_path, manifest(), FILES)
    assert names(tmp_path) == [".tmp-young", made.digest]
