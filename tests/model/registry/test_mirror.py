"""Versions copied into a folder that a server takes for its registry."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from estiba.cli.main import run
from estiba.core.errors import BadArtifact, Conflict, EstibaError, NotFound
from estiba.model.artifact.artifact import Artifact
from estiba.model.registry.mirror import pinned, pull
from estiba.model.registry.registry import Registry, open_registry
from estiba.serving.http.listen import listen

Make = Callable[..., Artifact]


def test_versions_keep_their_numbers(url: str, registry: Registry, make: Make, tmp_path: Path) -> None:
    registry.push(make(1))
    second = registry.push(make(2), ["production"])
    registry.push(make(3))
    target = tmp_path / "target"
    for _ in range(2):  # what is there already is no trouble: a pod's first container may run again
        assert list(pull(url, ["iris@production"], target)) == [second]
    copy = open_registry(target)
    assert copy.versions("iris") == (second,)
    assert copy.fetch(copy.resolve("iris")).digest == second.digest
    assert {path.name for path in target.iterdir()} == {"artifacts", "models"}


def test_what_is_pinned_must_be_that_artifact(url: str, registry: Registry, make: Make, tmp_path: Path) -> None:
    version = registry.push(make(1))
    wrong = "0" * 64
    with pytest.raises(BadArtifact, match=f"sha256:{version.digest}, not sha256:{wrong}"):
        list(pull(url, [pinned("iris", "1", wrong)], tmp_path / "target"))
    assert not (tmp_path / "target").exists()
    assert list(pull(url, [pinned("iris", "1", version.digest)], tmp_path / "target")) == [version]


def test_a_copy_that_was_damaged_is_fetched_again(url: str, registry: Registry, make: Make, tmp_path: Path) -> None:
    version = registry.push(make(1))
    list(pull(url, ["iris@1"], tmp_path / "target"))
    model = tmp_path / "target" / "artifacts" / version.digest / "model.onnx"
    model.write_bytes(b"?")
    list(pull(url, ["iris@1"], tmp_path / "target"))
    assert open_registry(tmp_path / "target").fetch(version)


def test_another_version_of_that_number_stays(tmp_path: Path, make: Make) -> None:
    for name, number in (("here", 1), ("there", 2)):
        open_registry(tmp_path / name).push(make(number))
    before = open_registry(tmp_path / "there").resolve("iris@1")
    with pytest.raises(Conflict, match="has another iris@1"):
        list(pull(tmp_path / "here", ["iris@1"], tmp_path / "there"))
    assert open_registry(tmp_path / "there").resolve("iris@1") == before


def test_what_is_not_there_or_no_reference_is_named(tmp_path: Path, make: Make) -> None:
    open_registry(tmp_path / "here").push(make(1))
    with pytest.raises(NotFound, match="no version 2"):
        list(pull(tmp_path / "here", ["iris@2"], tmp_path / "there"))
    with pytest.raises(EstibaError, match="does not end in a digest"):
        list(pull(tmp_path / "here", ["iris@1@sha256:4f1c"], tmp_path / "there"))


@pytest.mark.slow
def test_a_registry_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("s3fs")
    with listen("127.0.0.1", 0) as silent:  # takes connections and says nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        began = time.monotonic()
        words = ["models", "pull", "iris@1", "--registry", "s3://models", "--to", str(tmp_path / "there")]
        assert run([*words, "--timeout", "1.5"]) == 6
        assert time.monotonic() - began < 10
    assert "error: s3://models did not answer within 1.5 seconds." in capsys.readouterr().err
