"""An artifact as one file: equal bytes, and nothing hostile gets in."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_artifacts import names

from estiba.core.errors import BadArtifact, EstibaError, NotFound
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.registry import Registry, open_registry

Make = Callable[..., Artifact]


def test_export_and_import_keep_the_digest(registry: Registry, make: Make, tmp_path: Path) -> None:
    version = registry.push(make(1), ["production"])
    assert registry.export("iris@production", tmp_path / "iris.estiba") == version
    other = open_registry(tmp_path / "other")
    found = other.import_(tmp_path / "iris.estiba", ["candidate"])
    assert (found.name, found.version, found.digest) == ("iris", 1, version.digest)
    assert other.fetch(other.resolve("iris@candidate")).manifest == make(1).manifest


def test_an_export_is_the_same_bytes_every_time(registry: Registry, make: Make, tmp_path: Path) -> None:
    registry.push(make(1))
    registry.export("iris", tmp_path / "a.estiba")
    other = open_registry(tmp_path / "other")
    other.import_(tmp_path / "a.estiba")
    time.sleep(0.01)
    other.export("iris@1", tmp_path / "b.estiba")
    assert (tmp_path / "a.estiba").read_bytes() == (tmp_path / "b.estiba").read_bytes()
    with tarfile.open(tmp_path / "a.estiba") as tar:
        assert {(m.uid, m.gid, m.uname, m.mtime, m.mode) for m in tar} == {(0, 0, "", 0, 0o644)}


@pytest.fixture
def exported(make: Make, tmp_path: Path) -> Path:
    registry = open_registry(tmp_path / "registry")
    registry.push(make(1))
    registry.export("iris", tmp_path / "iris.estiba")
    return tmp_path / "iris.estiba"


def refused(file: Path, tmp_path: Path, said: str) -> None:
    """The file is refused with these words, and nothing of it is to be seen."""
    other = open_registry(tmp_path / "other")
    with pytest.raises(BadArtifact, match=said) as caught:
        other.import_(file)
    assert str(file) in caught.value.message
    assert caught.value.hint
    assert other.list() == ()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 600, 2000, 4000])
def test_a_file_cut_short_is_refused(exported: Path, tmp_path: Path, size: int) -> None:
    os.truncate(exported, size)
    refused(exported, tmp_path, "is not a complete|does not begin|is missing|was changed")


def test_every_flipped_byte_of_content_is_noticed(exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    for word in (b"not really a model", b'"accuracy', b"[[1.0]]", b"# iris", b'"number"'):
        if (at := data.find(word)) > 0:
            exported.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            refused(exported, tmp_path, "was changed|is not a complete")


@pytest.mark.parametrize("data", [b"PK\x03\x04" + bytes(999), b"\x1f\x8b\x08" + bytes(999), b"hello" * 400])
def test_another_kind_of_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.estiba").write_bytes(data)
    refused(tmp_path / "x.estiba", tmp_path, "is not a complete .estiba file")


def rebuilt(exported: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]) -> Path:
    """The same file with its members changed."""
    with tarfile.open(exported) as tar:
        members = [(m, handle.read()) for m in tar if (handle := tar.extractfile(m))]
    change(members)
    with tarfile.open(exported, "w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return exported


def extra(name: str, kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return member, b""


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "{digest}/../../evil", "{digest}/evil", "evil"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_members_that_the_manifest_does_not_name_are_refused(
    exported: Path, tmp_path: Path, name: str, kind: bytes
) -> None:
    digest = names(tmp_path / "packed")[0]
    rebuilt(exported, lambda members: members.append(extra(name.format(digest=digest), kind)))
    refused(exported, tmp_path, "which its manifest does not list")
    assert not (tmp_path / "evil").exists()
    assert not Path("/tmp/evil").exists()


def test_a_link_in_place_of_the_model_is_refused(exported: Path, tmp_path: Path) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        at = next(i for i, (m, _) in enumerate(members) if m.name.endswith("model.onnx"))
        members[at] = extra(members[at][0].name, tarfile.SYMTYPE)

    refused(rebuilt(exported, change), tmp_path, "which its manifest does not list")


def test_a_member_that_is_missing_twice_or_in_front_is_refused(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    changes: list[tuple[Callable[[list[tuple[tarfile.TarInfo, bytes]]], object], str]] = [
        (lambda members: members.pop(), "is missing"),
        (lambda members: members.append(members[-1]), "which its manifest does not list"),
        (lambda members: members.reverse(), "does not begin with a manifest"),
        (lambda members: members.clear(), "does not begin with a manifest"),
    ]
    for change, said in changes:
        exported.write_bytes(whole)
        refused(rebuilt(exported, change), tmp_path, said)


def test_a_missing_file_and_a_folder_in_its_place(tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "other")
    with pytest.raises(NotFound, match=r"Cannot read .*x\.estiba"):
        registry.import_(tmp_path / "x.estiba")
    with pytest.raises(EstibaError, match="Is a directory"):
        registry.import_(tmp_path)


def test_an_export_that_fails_leaves_what_was_there(make: Make, tmp_path: Path) -> None:
    registry = open_registry(tmp_path / "registry")
    registry.push(make(1))
    (tmp_path / "folder").mkdir()
    with pytest.raises(EstibaError, match="Cannot write"):
        registry.export("iris", tmp_path / "folder")
    with pytest.raises(EstibaError, match="Cannot write"):
        registry.export("iris", tmp_path / "nowhere" / "iris.estiba")
    assert names(tmp_path) == ["folder", "packed", "registry"]


def test_a_sparse_member_is_refused_before_it_fills_the_disk(exported: Path, tmp_path: Path) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        at = next(i for i, (m, _) in enumerate(members) if m.name.endswith("model.onnx"))
        member = tarfile.TarInfo("GNUSparseFile.0/model.onnx")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": members[at][0].name,
            "GNU.sparse.realsize": str(members[at][0].size),
        }
        map_of_no_data = b"0\n".ljust(512, b"\0")
        member.size = len(map_of_no_data)
        members[at] = member, map_of_no_data

    refused(rebuilt(exported, change), tmp_path, "which its manifest does not")
