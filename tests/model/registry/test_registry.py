"""The registry, over a folder and over a real S3 server: one suite for both."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_artifacts import FILES, manifest

from estiba.core.errors import BadArtifact, Conflict, EstibaError, NotFound
from estiba.core.stores.files import Store
from estiba.model.artifact import artifact
from estiba.model.registry.registry import Ref, Registry

SPAWN = multiprocessing.get_context("spawn")


Make = Callable[..., artifact.Artifact]


def test_versions_count_from_one_and_keep_their_artifact(registry: Registry, make: Make) -> None:
    made = [make(n) for n in range(3)]
    assert [registry.push(one).version for one in made] == [1, 2, 3]
    for number, one in enumerate(made, 1):
        found = registry.fetch(registry.resolve(f"iris@{number}"))
        assert (found.digest, found.manifest) == (one.digest, one.manifest)
        assert found.model.read_bytes() == FILES["model.onnx"]


def test_a_version_says_when_and_how_good(registry: Registry, make: Make) -> None:
    version = registry.push(make(7))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", version.created)
    assert version.metrics == {"number": 7.0}
    assert str(version) == "iris@1"
    assert registry.versions("iris") == (version,)


def test_the_same_artifact_keeps_its_number(registry: Registry, make: Make) -> None:
    first = registry.push(make(1))
    registry.push(make(2))
    assert registry.push(make(1)) == first
    assert len(registry.versions("iris")) == 2


def test_a_bare_name_is_production_or_else_the_newest(registry: Registry, make: Make) -> None:
    registry.push(make(1))
    registry.push(make(2), ["candidate"])
    assert registry.resolve("iris").version == 2
    registry.set_alias("iris", "production", 1)
    assert registry.resolve("iris").version == 1
    assert registry.resolve(Ref("iris", "candidate")).version == 2
    assert registry.aliases("iris") == {"candidate": 2, "production": 1}


def test_an_alias_moves_and_goes(registry: Registry, make: Make) -> None:
    registry.push(make(1), ["production", "blue"])
    registry.push(make(2), ["production"])
    assert registry.aliases("iris") == {"blue": 1, "production": 2}
    registry.remove_alias("iris", "blue")
    assert registry.aliases("iris") == {"production": 2}
    with pytest.raises(NotFound, match="no alias 'blue'"):
        registry.remove_alias("iris", "blue")


def test_several_models_do_not_mix(registry: Registry, make: Make) -> None:
    assert registry.list() == ()
    registry.push(make(1, "iris"), ["production"])
    registry.push(make(1, "bankchurn"))
    assert registry.list() == ("bankchurn", "iris")
    assert registry.aliases("bankchurn") == {}
    assert [v.version for v in registry.versions("bankchurn")] == [1]


@pytest.mark.parametrize(
    ("ref", "said", "hint"),
    [
        ("iris@9", "iris has no version 9", "Versions of iris: 1"),
        ("iris@green", "iris has no alias 'green'", "Aliases of iris: blue"),
        ("rose", "There is no model 'rose'", "It has: iris"),
        ("rose@1", "There is no model 'rose'", "It has: iris"),
        ("rose@blue", "There is no model 'rose'", "It has: iris"),
    ],
)
def test_what_is_not_there_is_named(registry: Registry, make: Make, ref: str, said: str, hint: str) -> None:
    registry.push(make(1), ["blue"])
    with pytest.raises(NotFound) as caught:
        registry.resolve(ref)
    assert said in caught.value.message
    assert hint in str(caught.value.hint)


def test_an_empty_registry_says_so(registry: Registry) -> None:
    with pytest.raises(NotFound) as caught:
        registry.resolve("iris")
    assert registry.url in caught.value.message
    assert "pack a model first" in str(caught.value.hint)
    with pytest.raises(NotFound):
        registry.versions("iris")
    assert registry.aliases("iris") == {}


def test_an_alias_needs_a_version_that_lives(registry: Registry, make: Make) -> None:
    registry.push(make(1))
    registry.push(make(2))
    registry.remove("iris", 2)
    for number in (2, 3):
        with pytest.raises(NotFound, match=f"no version {number}"):
            registry.set_alias("iris", "production", number)
    assert registry.aliases("iris") == {}


def test_a_removed_version_is_gone_and_its_number_is_not_given_again(
    registry: Registry, store: Store, make: Make
) -> None:
    registry.push(make(1))
    removed = registry.push(make(2))
    registry.remove("iris", 2)
    assert [v.version for v in registry.versions("iris")] == [1]
    assert store.names("artifacts") == [make(1).digest]
    with pytest.raises(NotFound):
        registry.remove("iris", 2)
    assert registry.push(make(2)).version == 3
    assert registry.fetch(registry.resolve("iris")).digest == removed.digest


def test_removing_all_versions_removes_the_model(registry: Registry, store: Store, make: Make) -> None:
    registry.push(make(1))
    registry.remove("iris", 1)
    assert registry.list() == ()
    assert store.names("artifacts") == []
    with pytest.raises(NotFound, match="There is no model 'iris'"):
        registry.versions("iris")


def test_an_alias_protects_its_version(registry: Registry, make: Make) -> None:
    registry.push(make(1))
    registry.push(make(2), ["production", "blue"])
    with pytest.raises(Conflict, match=r"iris@2 is the version of the alias blue, production"):
        registry.remove("iris", 2)
    registry.remove("iris", 2, force=True)
    assert registry.aliases("iris") == {}
    assert registry.resolve("iris").version == 1


def test_a_bad_alias_is_refused_before_anything_is_pushed(registry: Registry, make: Make) -> None:
    for alias in ("3", "Production", "../x", "", "a b"):
        with pytest.raises(EstibaError):
            registry.push(make(1), ["fine", alias])
        with pytest.raises(EstibaError):
            registry.resolve(Ref("iris", alias))
    assert registry.list() == ()


def test_a_model_needs_a_name_that_is_one(registry: Registry, tmp_path: Path) -> None:
    odd = artifact.write(tmp_path / "odd", manifest("../iris"), FILES)
    with pytest.raises(EstibaError, match="cannot be the name of a model") as caught:
        registry.push(odd)
    assert "lower-case" in str(caught.value.hint)


def test_a_damaged_artifact_is_not_pushed(registry: Registry, make: Make) -> None:
    damaged = make(1)
    damaged.model.write_bytes(b"?")
    with pytest.raises(BadArtifact, match=r"model\.onnx"):
        registry.push(damaged)
    assert registry.list() == ()


def test_pushing_again_repairs_what_was_cut_short(registry: Registry, store: Store, make: Make) -> None:
    version = registry.push(make(1))
    store.replace(f"artifacts/{version.digest}/model.onnx", b"cut")
    with pytest.raises(BadArtifact, match=rf"{version.digest}/model\.onnx has 3 bytes"):
        registry.fetch(version)
    registry.push(make(1))
    assert registry.fetch(version).model.read_bytes() == FILES["model.onnx"]


def test_a_foreign_artifact_under_a_version_is_refused(registry: Registry, store: Store, make: Make) -> None:
    version = registry.push(make(1))
    other = registry.push(make(1, "rose"))
    record = store.read("models/iris/versions/1.json").replace(version.digest.encode(), other.digest.encode())
    store.replace("models/iris/versions/1.json", record)
    with pytest.raises(BadArtifact, match="iris@1 names an artifact of the model 'rose'"):
        registry.fetch(registry.resolve("iris"))


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"\xff\xfe", b'{"name": "iris"}'])
def test_a_damaged_version_record_names_its_file_and_hurts_nobody_else(
    registry: Registry, store: Store, make: Make, data: bytes
) -> None:
    registry.push(make(1))
    registry.push(make(2))
    registry.push(make(1, "rose"))
    store.replace("models/iris/versions/2.json", data)
    for ask in (lambda: registry.resolve("iris@2"), lambda: registry.versions("iris")):
        with pytest.raises(BadArtifact, match=r"models/iris/versions/2\.json is damaged") as caught:
            ask()
        assert caught.value.hint == "Remove iris@2 and push the model again."
    assert registry.resolve("iris@1").version == registry.resolve("rose").version == 1
    assert registry.list() == ("iris", "rose")


def test_a_damaged_version_can_be_removed_and_pushed_again(registry: Registry, store: Store, make: Make) -> None:
    registry.push(make(1))
    store.replace("models/iris/versions/1.json", b"")
    registry.remove("iris", 1)
    assert registry.list() == ()
    assert registry.push(make(1)).version == 2


def test_a_damaged_record_keeps_artifacts_that_it_may_name(registry: Registry, store: Store, make: Make) -> None:
    registry.push(make(1))
    registry.push(make(2))
    store.replace("models/iris/versions/1.json", b"")
    registry.remove("iris", 2)
    assert len(store.names("artifacts")) == 2


@pytest.mark.parametrize("field", ['"version": 1', '"name": "iris"', '"digest": "'])
def test_a_record_about_something_else_is_refused(registry: Registry, store: Store, make: Make, field: str) -> None:
    registry.push(make(1))
    record = store.read("models/iris/versions/1.json").decode()
    wrong = {'"version": 1': '"version": 2', '"name": "iris"': '"name": "rose"', '"digest": "': '"digest": "../'}
    store.replace("models/iris/versions/1.json", record.replace(field, wrong[field]).encode())
    with pytest.raises(BadArtifact, match="is the record of another version"):
        registry.resolve("iris@1")


@pytest.mark.parametrize("data", [b"", b'{"name":"rose","alias":"blue","version":1,"updated":""}'])
def test_a_damaged_alias_names_its_file_and_can_be_set_again(
    registry: Registry, store: Store, make: Make, data: bytes
) -> None:
    registry.push(make(1), ["blue"])
    store.replace("models/iris/aliases/blue.json", data)
    for ask in (lambda: registry.resolve("iris@blue"), lambda: registry.aliases("iris")):
        with pytest.raises(BadArtifact, match=r"models/iris/aliases/blue\.json") as caught:
            ask()
        assert caught.value.hint == "Set the alias blue of iris again, or remove it."
    assert registry.resolve("iris").version == 1
    registry.set_alias("iris", "blue", 1)
    assert registry.resolve("iris@blue").version == 1


def test_an_alias_of_a_removed_version_is_not_replaced_by_the_newest(
    registry: Registry, store: Store, make: Make
) -> None:
    registry.push(make(1), ["production"])
    alias = store.read("models/iris/aliases/production.json")
    registry.push(make(2))
    registry.remove("iris", 1, force=True)
    store.replace("models/iris/aliases/production.json", alias)
    with pytest.raises(NotFound, match="no version 1"):
        registry.resolve("iris")


def test_the_stamp_changes_with_every_change_and_only_then(registry: Registry, make: Make) -> None:
    changes: list[Callable[[], object]] = [
        lambda: registry.push(make(1)),
        lambda: registry.push(make(2)),
        lambda: registry.set_alias("iris", "production", 1),
        lambda: registry.set_alias("iris", "production", 2),
        lambda: registry.push(make(1, "rose")),
        lambda: registry.remove("iris", 1),
        lambda: registry.remove_alias("iris", "production"),
    ]
    stamps = [registry.stamp()]
    for change in changes:
        change()
        stamps.append(registry.stamp())
        assert registry.stamp() == stamps[-1]
    assert len(set(stamps)) == len(stamps)
