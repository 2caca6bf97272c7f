"""The cache of answers, in memory: what it knows is what the model says, and equal rows are computed once."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier
from slow_server import seen, slow_server
from toys import BROKEN_ROW, CHURN, CHURN_ROW, SLOW_ROW, Live, until

import estiba
from estiba.gateway.cache_key import Keys
from estiba.gateway.cache_memory import MemoryStore
from estiba.gateway.log_query import Query, find
from estiba.model.coding.coder import Coder
from estiba.model.inference.load import Model
from estiba.model.registry.registry import open_registry
from estiba.model.schema.signature_checks import validated
from estiba.serving.telemetry.metrics import Metrics
from estiba.state.store import open_log

CODER = Coder(validated(CHURN))


def keys(rows: list[dict[str, Any]], digest: str = "sha256:" + "ab" * 32) -> list[bytes]:
    model = SimpleNamespace(digest=digest, signature=CODER.signature)
    return list(Keys(cast(Model, model)).of(CODER.check(rows)))


ROWS = st.fixed_dictionaries(
    {
        "age": st.integers(18, 100),
        "balance": st.floats(-1e6, 1e6) | st.sampled_from([0.0, -0.0]) | st.integers(-5, 5),
        "country": st.sampled_from(["ES", "FR", "DE"]),
        "channel": st.sampled_from(["web", "shop", "fax", "ship"]),
        "a/b~c d": st.none() | st.floats(-10, 10) | st.just(float("nan")),
        "active": st.booleans(),
    }
)


def meaning(row: dict[str, Any]) -> list[object]:
    """The values of a row as the model gets them: it never saw another channel than two."""
    channel = row["channel"] if row["channel"] in ("web", "shop") else None
    odd = row["a/b~c d"]
    return [
        row["age"], row["balance"] + 0.0, row["country"], channel, None if odd is None or odd != odd else odd + 0.0,
        row["active"],
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(ROWS, ROWS, st.randoms(use_true_random=False))
def test_equal_rows_have_one_key_and_others_another(one: dict[str, Any], other: dict[str, Any], chance: Any) -> None:
    names = list(one)
    chance.shuffle(names)
    written = {name: one[name] for name in names}
    if float(one["balance"]).is_integer():
        written["balance"] = chance.choice([int(one["balance"]), float(one["balance"])])
    if one["a/b~c d"] is None:
        written.pop("a/b~c d")
    assert keys([written]) == keys([one])
    assert (keys([one]) == keys([other])) == (meaning(one) == meaning(other))
    assert keys([one, other]) == keys([one]) + keys([other])
    assert keys([one]) != keys([one], "sha256:" + "cd" * 32)


def test_a_nan_of_another_payload_is_the_same() -> None:
    coded = CODER.check([CHURN_ROW])
    coded.matrix[0, 4] = np.array([0xFFF8_0000_0000_1234], np.uint64).view(np.float64)[0]
    model = SimpleNamespace(digest="sha256:" + "ab" * 32, signature=CODER.signature)
    assert list(Keys(cast(Model, model)).of(coded)) == keys([CHURN_ROW])


def test_an_answer_is_used_until_it_is_too_old() -> None:
    now = [100.0]
    store = MemoryStore(30, 10_000, Metrics(), clock=lambda: now[0])
    assert store.put(b"k", b"12345678")
    for at, age in ((100.0, 0.0), (129.5, 29.5)):
        now[0] = at
        (found,) = store.known([b"k"])
        assert found is not None
        assert (found.raw, found.age) == (b"12345678", age)
    now[0] = 130.0
    assert (store.known([b"k"]), len(store), store.size) == ([None], 0, 0)
    assert not store.put(b"k" * 20_000, b"12345678")


def test_memory_stays_below_its_bound_and_the_unused_leave_first() -> None:
    chance, most = random.Random(1), 2 * 2**20
    store = MemoryStore(60, most, Metrics())
    kept = chance.randbytes(112)
    tracemalloc.start()
    try:
        store.put(kept, b"kept....")
        for number in range(30_000):
            store.put(chance.randbytes(chance.choice([40, 112, 352])), chance.randbytes(16))
            if number % 100 == 0:
                assert store.known([kept])[0] is not None
                assert store.size <= most
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert most * 0.9 < store.size <= most
    assert held < most * 1.05
    assert len(store) > 3_000


# A server of a model of scikit-learn


class Bank:
    """A trained model, its server, and rows to ask it with."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(5)
        ages, balances = rng.integers(18, 90, 300), rng.normal(50_000, 30_000, 300)
        self.rows = pd.DataFrame({"age": ages, "balance": balances, "land": rng.choice(["ES", "FR"], 300)})
        self.registry = folder / "registry"
        self.log = f"sqlite:///{folder}/state.db"
        self.models = [self._pack(limit) for limit in (40, 60)]
        open_registry(self.registry).set_alias("bank", "production", 1)

    def _pack(self, limit: int) -> Any:
        from sklearn.compose import make_column_transformer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder

        steps = make_column_transformer((OneHotEncoder(), ["land"]), remainder="passthrough")
        model = make_pipeline(steps, GradientBoostingClassifier(n_estimators=8, random_state=0))
        model.fit(self.rows, (self.rows["age"] > limit) ^ (self.rows["land"] == "ES"))
        estiba.pack(model, self.rows, name="bank", registry=self.registry, quiet=True)
        return model

    def records(self, start: int, stop: int) -> list[dict[str, Any]]:
        return cast("list[dict[str, Any]]", self.rows[start:stop].to_dict("records"))

    def expected(self, version: int, start: int, stop: int) -> Any:
        """The probabilities that the model itself gives."""
        return self.models[version - 1].predict_proba(self.rows[start:stop])[:, 1].tolist()


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return Bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def live(bank: Bank, start_server: Callable[..., Live]) -> Live:
    policies = {"cache": {"enabled": True, "ttl": 600}, "state": bank.log, "log": {"enabled": True}}
    policies |= {"limits": {"rows_per_day": 100_000}}
    return start_server("bank@production", registry=str(bank.registry), gateway=policies, poll=0.1)


def ask(live: Live, records: list[dict[str, Any]], method: str = "POST", **headers: str) -> httpx.Response:
    answer = httpx.request(method, f"{live.url}/predict", json={"records": records}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def probabilities(answer: httpx.Response) -> list[float]:
    return [list(each["probabilities"].values())[1] for each in answer.json()["predictions"]]


def status(answer: httpx.Response) -> str:
    assert answer.headers["cache-control"] == "private, no-store"
    return answer.headers["cache-status"].removeprefix("estiba; ")


def metric(live: Live, name: str) -> float:
    lines = httpx.get(f"{live.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@pytest.mark.slow
def test_answers_are_those_of_the_model(bank: Bank, live: Live) -> None:
    for start, stop in ((0, 1), (1, 9)):
        first, again = ask(live, bank.records(start, stop)), ask(live, bank.records(start, stop), "QUERY")
        assert probabilities(first) == pytest.approx(bank.expected(1, start, stop), abs=1e-12)
        assert again.json()["predictions"] == first.json()["predictions"]
        assert (status(first), first.headers.get("age")) == ("fwd=uri-miss; stored", None)
        assert status(again).startswith("hit; ttl=59")
        assert again.headers["age"] == "0"
        assert again.json()["id"] != first.json()["id"]


@pytest.mark.slow
def test_a_request_of_which_some_rows_are_known(bank: Bank, live: Live) -> None:
    ask(live, bank.records(20, 27))
    before = metric(live, "estiba_rows_total")
    mixed = [*bank.records(20, 24), *bank.records(27, 30), *bank.records(24, 27)]
    answer = ask(live, mixed)
    assert status(answer) == 'fwd=partial; stored; detail="7 of 10 rows"'
    assert metric(live, "estiba_rows_total") == before + 3
    expected = [*bank.expected(1, 20, 24), *bank.expected(1, 27, 30), *bank.expected(1, 24, 27)]
    assert probabilities(answer) == pytest.approx(expected, abs=1e-12)
    twice = ask(live, bank.records(30, 31) * 5)
    assert status(twice) == "fwd=uri-miss; stored"
    assert metric(live, "estiba_rows_total") == before + 4
    assert probabilities(twice) == pytest.approx(bank.expected(1, 30, 31) * 5, abs=1e-12)


@pytest.mark.slow
def test_the_caller_may_want_the_model_itself(bank: Bank, live: Live) -> None:
    row = bank.records(40, 41)
    assert status(ask(live, row, **{"cache-control": "no-store"})) == "fwd=request"
    assert status(ask(live, row)) == "fwd=uri-miss; stored"
    before = metric(live, "estiba_rows_total")
    assert status(ask(live, row, **{"cache-control": "max-age=0"})) == "fwd=request; stored"
    assert status(ask(live, row, **{"Cache-Control": "foo, No-Cache"})) == "fwd=request; stored"
    assert metric(live, "estiba_rows_total") == before + 2
    assert status(ask(live, bank.records(0, 300) * 6)) == "fwd=bypass"


@pytest.mark.slow
def test_every_row_is_in_the_log_once_and_known_ones_are_marked(bank: Bank, live: Live) -> None:
    ask(live, bank.records(50, 52))
    answer = ask(live, [*bank.records(50, 51), *bank.records(53, 54), *bank.records(51, 52)])

    def logged() -> list[Any]:
        database = open_log(bank.log)
        try:
            return [each for each in find(database, Query()) if each.id == answer.json()["id"]]
        finally:
            database.close()

    assert until(lambda: len(logged()) == 3, 5)
    found = sorted(logged(), key=lambda each: each.row)
    assert [(each.row, each.cached, each.version) for each in found] == [
        (0, True, "1"),
        (1, False, "1"),
        (2, True, "1"),
    ]
    assert [each.input["age"] for each in found] == [bank.records(at, at + 1)[0]["age"] for at in (50, 53, 51)]
    shown = answer.json()["predictions"]
    assert [each.output for each in found] == shown


@pytest.mark.slow
def test_a_new_version_answers_for_itself(bank: Bank, live: Live) -> None:
    row = bank.records(60, 61)
    ask(live, row)
    registry = open_registry(bank.registry)
    registry.set_alias("bank", "production", 2)
    assert until(lambda: ask(live, bank.records(0, 1)).headers["x-model-version"] == "2", 10)
    answer = ask(live, row)
    assert status(answer) == "fwd=uri-miss; stored"
    assert probabilities(answer) == pytest.approx(bank.expected(2, 60, 61), abs=1e-12)
    registry.set_alias("bank", "production", 1)
    assert until(lambda: ask(live, bank.records(0, 1)).headers["x-model-version"] == "1", 10)
    back = ask(live, row)
    assert status(back).startswith("hit")
    assert probabilities(back) == pytest.approx(bank.expected(1, 60, 61), abs=1e-12)


# Several at once


def together(live: Live, calls: list[tuple[float, dict[str, str]]]) -> list[httpx.Response]:
    """Ask for values of `price`, all at once."""
    barrier = threading.Barrier(len(calls))

    def one(call: tuple[float, dict[str, str]]) -> httpx.Response:
        barrier.wait()
        return client.post("/predict", json={"x": call[0]}, headers=call[1])

    with httpx.Client(base_url=live.url, timeout=30) as client, ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Path]]:
    folder = tmp_path_factory.mktemp("slow")
    with slow_server(folder, 0.5, gateway={"cache": {"enabled": True, "models": ["price"]}}) as server:
        yield server, folder


@pytest.mark.slow
def test_equal_requests_are_computed_once(slow: tuple[Live, Path]) -> None:
    live, folder = slow
    answers = together(live, [(7.0, {})] * 12)
    assert {(answer.status_code, answer.json()["value"]) for answer in answers} == {(200, 0.07)}
    assert seen(folder).count(7) == 1
    found = sorted(status(answer) for answer in answers)
    assert found == ["fwd=uri-miss; collapsed"] * 11 + ["fwd=uri-miss; stored"]


@pytest.mark.slow
def test_deadlines_of_those_that_wait_hold_and_a_late_leader_harms_nobody(slow: tuple[Live, Path]) -> None:
    live, folder = slow
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(httpx.post, f"{live.url}/predict", json={"x": 8.0}, timeout=30)
        assert until(lambda: 8 in seen(folder))
        hasty = httpx.post(f"{live.url}/predict", json={"x": 8.0}, headers={"x-request-timeout": "0.05"}, timeout=30)
        assert (hasty.status_code, busy.result().status_code) == (504, 200)
        busy = pool.submit(httpx.post, f"{live.url}/predict", json={"x": 9.0}, timeout=30)
        assert until(lambda: 9 in seen(folder))
        with ThreadPoolExecutor(1) as other:
            leader = other.submit(
                httpx.post, f"{live.url}/predict", json={"x": 10.0}, headers={"x-request-timeout": "0.2"}, timeout=30
            )
            assert until(lambda: metric(live, "estiba_queue_rows") == 1)
            follower = httpx.post(f"{live.url}/predict", json={"x": 10.0}, timeout=30)
        assert (leader.result().status_code, follower.status_code, follower.json()["value"]) == (504, 200, 0.1)
        assert seen(folder).count(10) == 1
        assert busy.result().status_code == 200


@pytest.mark.slow
def test_a_run_that_fails_is_no_answer_for_others(start_server: Callable[..., Live]) -> None:
    live = start_server("price", "churn", default="price", gateway={"cache": {"enabled": True, "ttl": 0.3}}, workers=2)
    assert {answer.status_code for answer in together(live, [(SLOW_ROW, {})] + [(BROKEN_ROW, {})] * 8)} == {200, 500}
    values = [(float(number % 5), {}) for number in range(40)]
    for _ in range(3):
        answers = together(live, values)
        assert [answer.json()["value"] for answer in answers] == pytest.approx([value / 100 for value, _ in values])
    assert metric(live, 'estiba_cache_requests_total{model="price",result="hit"}') > 40
    assert metric(live, 'estiba_cache_requests_total{model="churn"') == 0
    assert until(lambda: status(httpx.post(f"{live.url}/predict", json={"x": 3})).startswith("fwd"), 3)
    row = {**CHURN_ROW, "channel": "fax"}
    path = f"{live.url}/models/churn/predict"
    shown = [httpx.post(path, json=row).json() for _ in range(6)]
    assert all(each["warnings"] == shown[0]["warnings"] != [] for each in shown)
    assert metric(live, 'estiba_unseen_category_total{model="churn"') == 6
    assert metric(live, "estiba_requests_in_flight") == 0
