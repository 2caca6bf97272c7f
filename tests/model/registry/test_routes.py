"""Routes of a registry, over a folder and over a real S3 server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toys import CHURN, CHURN_ROW, toy

from estiba.core.errors import BadRequest, Conflict, EstibaError, NotFound
from estiba.model.artifact import artifact
from estiba.model.registry import routes
from estiba.model.registry.registry import Registry, open_registry
from estiba.model.registry.route_record import KEPT_GENERATIONS, HeaderRule, Range, RouteOptions
from estiba.model.registry.routes import Change

Make = Callable[..., artifact.Artifact]
CANARY = RouteOptions(weights={"production": 95, "candidate": 5})


def with_versions(registry: Registry, make: Make) -> Registry:
    registry.push(make(1), ["production"])
    registry.push(make(2), ["candidate"])
    return registry


def test_a_route_is_kept_changed_and_removed(registry: Registry, make: Make) -> None:
    with_versions(registry, make)
    assert routes.current(registry, "iris") is None
    stamp = registry.stamp()
    options = RouteOptions(
        weights=CANARY.weights, sticky="header:X-User", shadow="2", when=(HeaderRule("X-Beta", "1", "candidate"),)
    )
    first = routes.set_route(registry, "iris", options, Change("ada"))
    assert registry.stamp() != stamp
    found = routes.current(registry, "iris")
    assert found == first
    assert (first.generation, first.by, first.ranges[0]) == (1, "ada", Range(0.05, "candidate"))
    assert {target: each.version for target, each in routes.versions(registry, "iris", options).items()} == {
        "production": 1, "candidate": 2, "2": 2
    }  # fmt: skip
    raised = routes.set_route(registry, "iris", RouteOptions(weights={"candidate": 20, "production": 80}))
    assert (raised.generation, raised.salt) == (2, first.salt)
    assert list(raised.options.weights if raised.options else ()) == ["candidate", "production"]
    assert routes.reset_route(registry, "iris")
    assert routes.current(registry, "iris") is None
    assert not routes.reset_route(registry, "iris")
    again = routes.set_route(registry, "iris", CANARY)
    assert again.generation == 4
    assert again.salt != first.salt, "a new experiment begins with other callers"


def test_of_two_changes_at_once_one_is_told(registry: Registry, make: Make) -> None:
    with_versions(registry, make)
    weights = [{"production": 100.0 - i, "candidate": float(i)} for i in range(8)]

    def change(i: int) -> int | str:
        try:
            return routes.set_route(registry, "iris", RouteOptions(weights=weights[i]), Change(expected=0)).generation
        except Conflict as error:
            return error.message

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(change, range(8)))
    assert sorted(map(str, results))[0] == "1"
    assert results.count(1) == 1
    assert all("changed by somebody else meanwhile" in str(each) for each in results if each != 1)
    found = routes.current(registry, "iris")
    assert found is not None
    assert found.options is not None
    assert found.options.weights == weights[results.index(1)]


def test_former_routes_are_not_kept_for_ever(registry: Registry, make: Make) -> None:
    with_versions(registry, make)
    for i in range(KEPT_GENERATIONS + 5):
        routes.set_route(registry, "iris", RouteOptions(weights={"production": 100 - i, "candidate": i}))
    assert registry.route_generation("iris") == KEPT_GENERATIONS + 5
    assert len(registry._store.names("models/iris/routes")) == KEPT_GENERATIONS


def test_what_a_route_names_is_not_removed(registry: Registry, make: Make) -> None:
    with_versions(registry, make)
    routes.set_route(registry, "iris", CANARY)
    with pytest.raises(Conflict, match="The route of iris names candidate"):
        registry.remove_alias("iris", "candidate")
    with pytest.raises(Conflict, match="The route of iris names candidate"):
        registry.remove("iris", 2, force=True)
    routes.reset_route(registry, "iris")
    registry.remove("iris", 2, force=True)


def test_targets_that_are_not_there(registry: Registry, make: Make) -> None:
    with_versions(registry, make)
    for target, message in (("blue", "no alias 'blue'"), ("9", "no version 9")):
        with pytest.raises(NotFound, match=message):
            routes.set_route(registry, "iris", RouteOptions(weights={"production": 95, target: 5}))
    with pytest.raises(NotFound, match="no model 'irs'"):
        routes.set_route(registry, "irs", CANARY)
    assert registry.route_generation("iris") == 0


@pytest.fixture
def churn(tmp_path: Path) -> Registry:
    """Two versions of `churn` with another signature each."""
    import msgspec

    registry = open_registry(tmp_path / "registry")
    registry.push(toy("churn", CHURN, CHURN_ROW, tmp_path), ["production"])
    fields = tuple(msgspec.structs.replace(f, nullable=True) if f.name == "balance" else f for f in CHURN.fields[:-1])
    other = msgspec.structs.replace(CHURN, fields=fields)
    row = {name: value for name, value in CHURN_ROW.items() if name != "active"}
    registry.push(toy("churn", other, row, tmp_path), ["candidate"])
    return registry


def test_another_signature_is_refused_with_what_differs(churn: Registry) -> None:
    with pytest.raises(BadRequest) as caught:
        routes.set_route(churn, "churn", CANARY)
    assert caught.value.message == (
        "candidate (churn@2) has another signature than production (churn@1): "
        "the field active is gone; balance: may be missing."
    )


def test_sticky_by_a_field_that_is_not_there(churn: Registry) -> None:
    with pytest.raises(BadRequest, match="no field 'contry' to be sticky by; did you mean 'country'"):
        routes.set_route(churn, "churn", RouteOptions(weights={"1": 100}, sticky="field:contry"))


def test_a_damaged_route_can_be_replaced_or_removed(churn: Registry) -> None:
    routes.set_route(churn, "churn", RouteOptions(weights={"1": 100}))
    for change in (
        lambda: routes.reset_route(churn, "churn"),
        lambda: routes.set_route(churn, "churn", RouteOptions(weights={"1": 100})),
    ):
        file = Path(churn.url) / "models" / "churn" / "routes" / f"{churn.route_generation('churn')}.json"
        file.write_bytes(b"{")
        with pytest.raises(EstibaError, match="is damaged"):
            routes.current(churn, "churn")
        assert change()
