"""Registries with two writers, killed writers, missing permissions, or storage that cannot be reached."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from sample_artifacts import FILES, create_many, manifest, names, packed, push_for_ever, push_many

from estiba.core.errors import BadArtifact, Conflict, EstibaError, NotFound, Unavailable
from estiba.core.stores import files
from estiba.core.stores.files import Store, open_store
from estiba.model.artifact import artifact
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry import routes
from estiba.model.registry.registry import Registry, open_registry
from estiba.model.registry.route_record import RouteOptions

pytestmark = pytest.mark.slow

Make = Callable[..., Artifact]

SPAWN = multiprocessing.get_context("spawn")


def race(work: Callable[..., list[int]], *calls: tuple[object, ...]) -> list[list[int]]:
    """Results of `work` for each tuple of arguments, in processes that start together at a barrier."""
    with SPAWN.Manager() as manager, ProcessPoolExecutor(len(calls), mp_context=SPAWN) as pool:
        gate = manager.Barrier(len(calls), timeout=60)
        return [job.result() for job in [pool.submit(work, *call, gate) for call in calls]]


def test_two_processes_never_get_the_same_number(url: str, registry: Registry, tmp_path: Path) -> None:
    count = 20 if url.startswith("/") else 5
    first, second = race(push_many, *((url, tmp_path / str(n), n * 100, count) for n in range(2)))
    assert sorted(first + second) == list(range(1, 2 * count + 1))
    assert len({v.digest for v in registry.versions("iris")}) == 2 * count
    assert registry.resolve("iris@candidate").version in (first[-1], second[-1])
    assert all(registry.fetch(version) for version in registry.versions("iris"))


def test_a_file_is_created_once_whoever_asks(store: Store) -> None:
    store.create("models/x/versions/1.json", b"first")
    with pytest.raises(Conflict):
        store.create("models/x/versions/1.json", b"second")
    assert store.read("models/x/versions/1.json") == b"first"
    assert store.names("models/x/versions") == ["1.json"]


def test_a_file_has_one_writer_of_two_that_ask_at_once(url: str) -> None:
    first, second = race(create_many, (url, 1, 30), (url, 2, 30))
    assert sorted(first + second) == list(range(30))
    store = open_store(url)
    assert all(store.read(f"race/{n}.json") == (b"1" if n in first else b"2") for n in range(30))


def test_a_killed_writer_leaves_a_registry_that_works(url: str, registry: Registry, tmp_path: Path) -> None:
    for round_ in range(3 if url.startswith("/") else 1):
        process = SPAWN.Process(target=push_for_ever, args=(url, tmp_path / f"w{round_}"))
        process.start()
        deadline = time.monotonic() + 60
        before = len(registry.list() and registry.versions("iris"))
        while len(registry.list() and registry.versions("iris")) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.join()
        versions = registry.versions("iris")
        assert [v.version for v in versions] == list(range(1, len(versions) + 1))
        assert registry.fetch(registry.resolve("iris@production"))
    assert all(registry.fetch(version) for version in registry.versions("iris"))
    assert registry.push(packed(tmp_path, 10**6)).version == len(registry.versions("iris"))


@pytest.fixture
def forbidden(make: Make) -> Iterator[Path]:
    """A registry with one version that this process may read but not write; where it is root it becomes nobody."""
    folder = Path(tempfile.mkdtemp())
    open_registry(folder).push(make(1), ["production"])
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_registry_without_permission_to_write_can_be_read(forbidden: Path) -> None:
    registry = open_registry(forbidden)
    assert registry.fetch(registry.resolve("iris")).model.read_bytes() == FILES["model.onnx"]
    assert registry.list() == ("iris",)
    before = registry.stamp()
    changes: list[Callable[[], object]] = [
        lambda: registry.set_alias("iris", "blue", 1),
        lambda: registry.remove_alias("iris", "production"),
        lambda: registry.remove("iris", 1, force=True),
        lambda: registry.push(registry.fetch(registry.resolve("iris")), ["blue"]),
        lambda: routes.set_route(registry, "iris", RouteOptions(weights={"1": 100})),
    ]
    for change in changes:
        with pytest.raises(EstibaError, match="Permission denied") as caught:
            change()
        assert f"Cannot write {forbidden}" in caught.value.message
        assert "right to" in str(caught.value.hint)
    assert registry.stamp() == before


def test_a_registry_that_may_not_be_read_says_so(forbidden: Path) -> None:
    registry = open_registry(forbidden)
    if os.geteuid() == 65534:
        os.seteuid(0)
        (forbidden / "models" / "iris" / "versions").chmod(0)
        os.seteuid(65534)
    else:
        (forbidden / "models" / "iris" / "versions").chmod(0)
    with pytest.raises(EstibaError, match=r"Cannot read .*Permission denied"):
        registry.versions("iris")


def test_a_full_disk_leaves_the_registry_as_it_was(small_disk: Path, make: Make, tmp_path: Path) -> None:
    registry = open_registry(small_disk)
    registry.push(make(1), ["production"])
    before = sorted(small_disk.rglob("*"))
    large = artifact.write(tmp_path / "large", manifest(), {**FILES, "large.bin": bytes(200_000)})
    with pytest.raises(EstibaError, match=f"Cannot write {small_disk}") as caught:
        registry.push(large)
    assert "disk" in str(caught.value.hint)
    assert sorted(small_disk.rglob("*")) == before
    assert registry.fetch(registry.resolve("iris")).manifest == make(1).manifest


def test_a_file_in_place_of_the_registry(tmp_path: Path, make: Make) -> None:
    (tmp_path / "registry").write_text("")
    registry = open_registry(tmp_path / "registry")
    for ask in (registry.list, lambda: registry.resolve("iris"), lambda: registry.push(make(1))):
        with pytest.raises(EstibaError, match="Not a directory") as caught:
            ask()
        assert "A file stands where a folder is needed" in str(caught.value.hint)


def test_a_linked_artifact_in_the_registry_is_refused(tmp_path: Path, make: Make) -> None:
    registry = open_registry(tmp_path / "registry")
    version = registry.push(make(1))
    inside = tmp_path / "registry" / "artifacts" / version.digest
    inside.rename(tmp_path / version.digest)
    inside.symlink_to(tmp_path / version.digest)
    with pytest.raises(BadArtifact, match="is a symbolic link"):
        registry.fetch(version)


def test_a_number_that_is_taken_but_cannot_be_read_is_skipped(tmp_path: Path, make: Make) -> None:
    registry = open_registry(tmp_path / "registry")
    registry.push(make(1))
    (tmp_path / "registry/models/iris/versions/2.json").symlink_to(tmp_path / "nowhere")
    assert registry.push(make(2)).version == 3
    assert registry.resolve("iris@3").metrics == {"number": 2.0}


def test_a_folder_by_name_by_path_and_by_address_is_the_same(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_registry("registry").push(make(1))
    for url in ("registry", str(tmp_path / "registry"), tmp_path / "registry", f"file://{tmp_path}/registry"):
        assert open_registry(url).resolve("iris").version == 1


def test_an_artifact_written_in_the_registry_itself_is_not_copied(tmp_path: Path) -> None:
    made = packed(tmp_path / "registry" / "artifacts", 1)
    before = made.model.stat()
    registry = open_registry(tmp_path / "registry")
    assert registry.fetch(registry.push(made)).path == made.path
    assert made.model.stat() == before


def test_another_writer_that_never_ends_is_reported(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_TIMEOUT_SECONDS", 0.05)
    store = open_store(tmp_path / "registry")
    with store.lock(), pytest.raises(Conflict, match=r"Another process has locked .* for a minute\."):
        Registry(store, tmp_path).push(make(1))


def test_unknown_addresses_and_missing_libraries() -> None:
    with pytest.raises(EstibaError, match="zzz"):
        open_registry("zzz://bucket/prefix")
    with pytest.raises(EstibaError, match="gs://") as caught:
        open_registry("gs://bucket/prefix")
    assert "gcsfs" in str(caught.value.hint)  # what to install, and not the extra that speaks to S3


def test_a_missing_bucket_is_named(s3: str, make: Make, tmp_path: Path) -> None:
    registry = open_registry("s3://nobody-made-this", cache=tmp_path)
    with pytest.raises(NotFound, match="s3://nobody-made-this"):
        registry.push(make(1))


def test_a_remote_artifact_is_downloaded_once_and_again_when_damaged(s3: str, make: Make, tmp_path: Path) -> None:
    registry = open_registry(f"{s3}/cached", cache=tmp_path / "cache")
    version = registry.push(make(1))
    first = registry.fetch(version)
    assert first.path == tmp_path / "cache" / version.digest
    before = first.model.stat()
    assert registry.fetch(version).model.stat() == before
    first.model.write_bytes(b"?")
    assert registry.fetch(version).model.read_bytes() == FILES["model.onnx"]
    assert names(tmp_path / "cache") == [version.digest]


def test_storage_that_does_not_answer_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(Unavailable, match=r"Cannot list s3://models") as caught:
        open_registry("s3://models", cache=tmp_path).list()
    assert "network" in str(caught.value.hint)


def test_a_named_pipe_in_place_of_a_record_is_an_error_at_once(tmp_path: Path, make: Make) -> None:
    registry = open_registry(tmp_path / "registry")
    registry.push(make(1), ["production"])
    record = next((tmp_path / "registry").rglob("production.json"))
    content = record.read_bytes()
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(EstibaError, match=r"production\.json is not a regular file"):
        registry.resolve("iris@production")
    record.unlink()
    record.write_bytes(content)
    assert registry.resolve("iris@production").version == 1
