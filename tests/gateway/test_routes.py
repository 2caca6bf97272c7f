"""Routes of a real server: shares, callers that stay, changes under load, shadows, and routes that are refused."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from constant_load import Load
from slow_server import slow_artifact
from supervised import BODY, RECORD, Server, ask, pack, serving
from toys import BROKEN_ROW, PRICE, SUPPORT, children, toy

from estiba.core.errors import BadProject
from estiba.gateway.log_query import Query, find
from estiba.gateway.routes import check_pinned, follows_route
from estiba.model.artifact import artifact
from estiba.model.registry import routes
from estiba.model.registry.registry import Registry, open_registry
from estiba.model.registry.route_record import HeaderRule, RouteOptions
from estiba.state.store import open_log

pytestmark = pytest.mark.slow

PATH = "/models/toy/predict"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with three versions of `toy`."""
    folder = tmp_path_factory.mktemp("routes") / "registry"
    for shift in (0.0, 0.3, 0.6):
        pack(folder, shift)
    return folder


@pytest.fixture
def registry(packed: Path, tmp_path: Path) -> Registry:
    """A copy of it: version 1 is production, 2 the candidate."""
    shutil.copytree(packed, tmp_path / "registry")
    opened = open_registry(tmp_path / "registry")
    opened.set_alias("toy", "production", 1)
    opened.set_alias("toy", "candidate", 2)
    return opened


def canary(weight: float, **more: Any) -> RouteOptions:
    return RouteOptions(weights={"production": 100 - weight, "candidate": weight}, **more)


@contextmanager
def served(registry: Registry, *options: str, workers: int = 1, **given: Any) -> Iterator[Server]:
    with serving(Path(registry.url), "--workers", str(workers), *options, **given) as server:
        yield server


def answer(server: Server, record: Any = RECORD, path: str = PATH, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"http://127.0.0.1:{server.port}{path}", json={"records": [record]}, headers=named)


def version(server: Server, **headers: str) -> str:
    return str(answer(server, **headers).headers["x-model-version"])


def followed(server: Server, generation: int) -> bool:
    """Every worker follows that change of the route; connections are spread over them."""
    return all(shown(server).get("generation") == generation for _ in range(12))


def shown(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/models/toy/route")[1])
    return found


def test_a_change_takes_effect_within_a_second_in_all_workers_under_load(registry: Registry) -> None:
    async def run(server: Server) -> None:
        async with Load(server.port, PATH, BODY, connections=6) as tally:
            await asyncio.sleep(1)
            assert set(tally.versions) == {"1"}
            began = time.monotonic()
            stored = await asyncio.to_thread(routes.set_route, registry, "toy", canary(50))  # version 2 is loaded first
            await asyncio.to_thread(server.wait, lambda: followed(server, stored.generation))
            first = time.monotonic() - began
            began = time.monotonic()
            stored = await asyncio.to_thread(routes.set_route, registry, "toy", canary(100))
            await asyncio.to_thread(server.wait, lambda: followed(server, stored.generation))
            second = time.monotonic() - began
            before = tally.versions["1"]
            await asyncio.sleep(1)
            assert tally.versions["1"] <= before + 6, "requests that were under way"
        assert not tally.lost
        assert set(tally.statuses) == {200}
        assert tally.versions["2"] > 100
        assert (first < 5, second < 2) == (True, True), (first, second)  # on a machine that is busy with its own load

    with served(registry, workers=3) as server:
        asyncio.run(run(server))


def test_a_change_reaches_every_worker_within_a_second_where_its_versions_are_loaded(registry: Registry) -> None:
    routes.set_route(registry, "toy", canary(50))
    with served(registry, workers=3) as server:
        clients = [httpx.Client(base_url=f"http://127.0.0.1:{server.port}") for _ in range(9)]
        for weight, expected in ((100, "2"), (0, "1"), (100, "2")):
            routes.set_route(registry, "toy", canary(weight))
            time.sleep(1.0)
            found = {client.post(PATH, json=BODY).headers["x-model-version"] for client in clients for _ in range(3)}
            assert found == {expected}
        registry.set_alias("toy", "candidate", 1)  # version 1 is loaded as production
        time.sleep(1.0)
        assert {client.post(PATH, json=BODY).headers["x-model-version"] for client in clients} == {"1"}
        for client in clients:
            client.close()


def test_headers_and_metrics_name_the_variant(registry: Registry) -> None:
    with served(registry) as server:
        plain = answer(server)
        assert (plain.headers["x-model-version"], "x-model-variant" in plain.headers) == ("1", False)
        routes.set_route(registry, "toy", canary(100))
        server.wait(lambda: followed(server, 1))
        found = answer(server)
        assert (found.headers["x-model-version"], found.headers["x-model-variant"]) == ("2", "candidate")
        assert answer(server, {"x0": 1.0}).headers["x-model-variant"] == "candidate"
        series = 'estiba_requests_total{model="toy",version="2",variant="candidate",protocol="native",code="%d"}'
        assert (server.metric(series % 200), server.metric(series % 422)) == (1, 1)
        own = answer(server, path="/models/toy/versions/1/predict")
        assert (own.headers["x-model-version"], "x-model-variant" in own.headers) == ("1", False)
        for path, body in (("/invocations", {"dataframe_records": [RECORD]}), ("/v1/models/toy:predict", None)):
            sent = httpx.post(f"http://127.0.0.1:{server.port}{path}", json=body or {"instances": [RECORD]})
            assert (sent.status_code, sent.headers["x-model-variant"]) == (200, "candidate"), path


def test_callers_stay_while_a_candidate_is_raised_and_a_server_starts_again(registry: Registry) -> None:
    callers = [f"user-{i}" for i in range(150)]
    kept: set[str] = set()
    for weight in (10, 40):
        stored = routes.set_route(registry, "toy", canary(weight, sticky="header:X-User"))
        with served(registry) as server:
            assert shown(server)["generation"] == stored.generation
            chosen = {caller: {version(server, x_user=caller) for _ in range(2)} for caller in callers}
        assert all(len(versions) == 1 for versions in chosen.values())
        candidate = {caller for caller, versions in chosen.items() if versions == {"2"}}
        assert kept < candidate
        kept = candidate
    assert 30 < len(kept) < 90


def test_a_field_decides_in_every_form_of_body(registry: Registry) -> None:
    routes.set_route(registry, "toy", canary(50, sticky="field:x0"))
    with served(registry) as server:
        by_value = {}
        for value in range(40):
            record = {"x0": value, "x1": -1.0}
            small = answer(server, record)
            by_value[value] = small.headers["x-model-version"]
            assert small.json()["version"] == by_value[value]
            assert small.headers["x-model-variant"] == {"1": "production", "2": "candidate"}[by_value[value]]
            single = httpx.get(f"http://127.0.0.1:{server.port}/predict?x0={value}.0&x1=5")
            csv = httpx.post(
                f"http://127.0.0.1:{server.port}{PATH}", content=f"x0,x1\n{value},2\n7,7\n",
                headers={"content-type": "text/csv"},
            )  # fmt: skip
            many = {"records": [record] + [{"x0": 3.5, "x1": 0.5}] * 3000}
            large = httpx.post(f"http://127.0.0.1:{server.port}{PATH}", json=many) if value < 6 else csv
            for other in (single, csv, large):
                assert (other.status_code, other.headers["x-model-version"]) == (200, by_value[value])
                assert other.json()["version"] == by_value[value]
        assert set(by_value.values()) == {"1", "2"}
        direct = answer(server, {"x0": 3, "x1": -1.0}, f"/models/toy/versions/{by_value[3]}/predict")
        assert answer(server, {"x0": 3, "x1": -1.0}).json()["predictions"] == direct.json()["predictions"]
        assert answer(server, {"x0": "?"}).status_code == 422


def test_rules_come_before_the_weights(registry: Registry) -> None:
    rules = (HeaderRule("X-Beta", "1", "candidate"), HeaderRule("X-Old", "yes", "3"))
    routes.set_route(registry, "toy", RouteOptions(weights={"production": 100}, when=rules))
    with served(registry) as server:
        assert [version(server), version(server, x_beta="1"), version(server, X_Old="yes")] == ["1", "2", "3"]
        assert version(server, x_beta="2") == "1"


def test_a_promotion_moves_the_alias_and_the_route_follows(registry: Registry) -> None:
    routes.set_route(registry, "toy", canary(50))
    with served(registry) as server:
        assert {version(server) for _ in range(30)} == {"1", "2"}
        registry.set_alias("toy", "production", 2)
        server.wait(lambda: [each["version"] for each in shown(server)["targets"]] == ["2", "2"])
        assert {version(server) for _ in range(20)} == {"2"}
        assert {answer(server).headers["x-model-variant"] for _ in range(30)} == {"production", "candidate"}
        registry.set_alias("toy", "candidate", 3)
        server.wait(lambda: {version(server) for _ in range(20)} == {"2", "3"})
        routes.reset_route(registry, "toy")
        server.wait(lambda: not shown(server)["targets"])
        assert {version(server) for _ in range(20)} == {"2"}


def push_wrong(registry: Registry) -> int:
    """Push a copy of version 3 with the golden rows of version 1, so that it cannot be proven; its number."""
    good = registry.fetch(registry.resolve("toy@3"))
    files = {entry.path: good.file(entry.path).read_bytes() for entry in good.manifest.files}
    files["golden.json"] = registry.fetch(registry.resolve("toy@1")).file("golden.json").read_bytes()
    return registry.push(artifact.write(Path(registry.url).parent / "wrong", good.manifest, files)).version


def test_a_version_that_cannot_be_proven_leaves_the_old_route(registry: Registry) -> None:
    routes.set_route(registry, "toy", canary(50))
    with served(registry) as server:
        wrong = push_wrong(registry)
        routes.set_route(registry, "toy", RouteOptions(weights={"production": 10, str(wrong): 90}))
        server.wait(lambda: "refused" in shown(server))
        about = f"its route (production = version 1, {wrong} = version {wrong}): "
        assert shown(server)["refused"].startswith(about)
        assert {version(server) for _ in range(30)} == {"1", "2"}
        assert "the route is not followed" in server.log.read_text()
        assert server.metric("estiba_swap_failures_total") == 1
        routes.set_route(registry, "toy", canary(100))
        server.wait(lambda: followed(server, 3))
        assert "refused" not in shown(server)


def test_a_server_starts_although_a_candidate_cannot_be_proven(registry: Registry) -> None:
    wrong = push_wrong(registry)
    routes.set_route(registry, "toy", RouteOptions(weights={"production": 90, str(wrong): 10}))
    with served(registry) as server:
        assert {version(server) for _ in range(20)} == {"1"}
        assert f"{wrong} = version {wrong}" in shown(server)["refused"]
        routes.set_route(registry, "toy", canary(100))
        server.wait(lambda: version(server) == "2")


def test_only_what_follows_production_follows_a_route() -> None:
    found = {ref: follows_route(ref) for ref in ("toy", "toy@production", "toy@candidate", "toy@2", "./toy", "/a/b")}
    assert found == {
        "toy": True, "toy@production": True, "toy@candidate": False, "toy@2": False, "./toy": False, "/a/b": False
    }  # fmt: skip


def test_mistakes_in_the_project_file_are_named() -> None:
    with pytest.raises(BadProject, match=r"gateway\.routes\.churm: there is no model 'churm'; did you mean 'churn'"):
        check_pinned({"churm": canary(5)}, ["churn"])
    with pytest.raises(BadProject, match=r"gateway\.routes\.churn: The weights add up to 5"):
        check_pinned({"churn": RouteOptions(weights={"a": 5})}, ["churn"])


# Shadows


def price(folder: Path, candidate: artifact.Artifact) -> Registry:
    registry = open_registry(folder / "registry")
    registry.push(toy("price", PRICE, {"x": 1.0}, folder), ["production"])
    registry.push(candidate, ["candidate"])
    routes.set_route(registry, "price", RouteOptions(weights={"production": 100}, shadow="candidate"))
    return registry


def answered(server: Server, count: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
        for i in range(count):
            found = client.post("/predict", json={"x": float(i)})
            assert (found.json()["value"], found.headers["x-model-variant"]) == (pytest.approx(i * 0.01), "production")


def outcomes(server: Server) -> dict[str, float]:
    name = 'estiba_shadow_rows_total{model="price",version="2",outcome="%s"}'
    return {each: server.metric(name % each) for each in ("answered", "failed", "dropped")}


def test_a_shadow_that_is_slow_or_dies_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))  # where the class of the slow model is
    registry = price(tmp_path, slow_artifact(tmp_path, 0.1))
    with served(registry, "--trust", models=["price"]) as server:
        answered(server, 200)
        assert (tmp_path / "seen").read_text().count("\n") < 200, "it takes 20 seconds, and nobody waited for it"
        large = {"records": [{"x": 1.0}] * 12_000}
        assert httpx.post(f"http://127.0.0.1:{server.port}/predict", json=large, timeout=20).status_code == 200
        server.wait(lambda: outcomes(server)["dropped"] > 0)
        (worker,) = server.workers()
        for engine in children(worker):
            os.kill(engine, signal.SIGKILL)
        answered(server, 20)
        server.wait(lambda: outcomes(server)["failed"] > 0)
        assert server.workers() == [worker]
        for engine in children(worker):  # or it would outlive the server, as it is busy
            os.kill(engine, signal.SIGKILL)


def test_a_shadow_that_fails_is_counted_and_answers_stay(tmp_path: Path) -> None:
    registry = price(tmp_path, toy("price", PRICE, {"x": 1.0}, tmp_path, unstable=True))
    with served(registry, "--log", "--state", f"sqlite:///{tmp_path}/state.db", models=["price"]) as server:
        answered(server, 20)
        server.wait(lambda: outcomes(server) == {"answered": 20, "failed": 0, "dropped": 0})
        broken = httpx.post(f"http://127.0.0.1:{server.port}/predict", json={"x": BROKEN_ROW})
        assert (broken.status_code, broken.json()["value"]) == (200, pytest.approx(BROKEN_ROW * 0.01))
        server.wait(lambda: outcomes(server) == {"answered": 20, "failed": 1, "dropped": 0})
        answered(server, 5)
        server.wait(lambda: outcomes(server) == {"answered": 25, "failed": 1, "dropped": 0})
        assert "the shadow cannot answer" in server.log.read_text()
        assert server.metric('estiba_requests_total{model="price",version="2"') == 0
        server.wait(lambda: server.metric('estiba_log_rows_total{outcome="written"}') == 51)
        logged = _logged(tmp_path)
    assert Counter((each["variant"], each["version"]) for each in logged) == {
        ("production", "1"): 26,
        ("shadow", "2"): 25,
    }
    pairs: dict[str, list[Any]] = {}
    for each in logged:
        pairs.setdefault(each["id"], []).append((each["input"], each["output"]))
    assert sorted(map(len, pairs.values())) == [1] + [2] * 25
    assert all(pair[0] == pair[-1] for pair in pairs.values())


def _logged(folder: Path) -> list[dict[str, Any]]:
    database = open_log(f"sqlite:///{folder}/state.db")
    try:
        found: list[dict[str, Any]] = [msgspec.to_builtins(each) for each in find(database, Query("price"))]
    finally:
        database.close()
    return found


def test_answers_are_those_of_the_version_itself(registry: Registry) -> None:
    """No batch, shadow or route mixes what versions answer."""
    routes.set_route(registry, "toy", canary(50, shadow="3"))
    with served(registry) as server:
        expected = {number: ask_version(server, number)["predictions"] for number in ("1", "2", "3")}
        assert len({json.dumps(each) for each in expected.values()}) == 3
        for _ in range(60):
            found = answer(server).json()
            assert found["predictions"] == expected[found["version"]]
        assert ask(server).status == 200


def ask_version(server: Server, number: str) -> dict[str, Any]:
    found: dict[str, Any] = answer(server, path=f"/models/toy/versions/{number}/predict").json()
    return found
