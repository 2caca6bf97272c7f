"""Drift of a real server: counted by two workers, kept over a restart, in its API, metrics, command and file check."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest
from postgres import postgres_server
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from toys import CHURN_ROW, Live, until

import estiba
from estiba.cli.main import run
from estiba.core.errors import BadProject
from estiba.model.inference.load import load
from estiba.monitoring import store
from estiba.monitoring.keeper import DriftKeeper
from estiba.monitoring.layout import Layout
from estiba.monitoring.options import DriftOptions, ModelDriftOptions, check_drift
from estiba.monitoring.report import DriftReport, report
from estiba.monitoring.silence import WEEK_HOURS, is_silent
from estiba.monitoring.store import HOUR_MICROSECONDS, Slices, Version
from estiba.monitoring.windows import reference_of
from estiba.serving.api.openapi_drift import schemas
from estiba.state.database import Database
from estiba.state.store import open_monitoring

Start = Callable[..., Live]

DRIFT = {"enabled": True, "minutes": 0}


def people(count: int, draw: random.Random, older: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "age": max(18, round(draw.gauss(45 + older, 8))),
            "balance": draw.gauss(0, 50),
            "country": draw.choice(("ES", "FR", "DE")),
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry with a model that was packed with held-out rows."""
    folder = tmp_path_factory.mktemp("watched")
    frame = pd.DataFrame(people(3_000, random.Random(1)))
    frame["country"] = frame["country"].astype("category")
    columns = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["country"])], remainder="passthrough")
    model = make_pipeline(columns, LogisticRegression(max_iter=2000))
    train, held = frame[:1_500], frame[1_500:]
    model.fit(train, (train["age"] + train["balance"] / 5 > 45).map({True: "leaves", False: "stays"}))
    estiba.pack(model, train, name="watched", holdout=held, registry=folder)
    return str(folder)


def send(live: Live, rows: list[dict[str, Any]]) -> None:
    with httpx.Client(base_url=live.url) as client:
        for start in range(0, len(rows), 25):
            assert client.post("/predict", json={"records": rows[start : start + 25]}).status_code == 200


def drift_of(live: Live, model: str = "watched") -> Any:
    return httpx.get(f"{live.url}/models/{model}/drift").json()


def closed(live: Live, windows: int) -> bool:
    return until(lambda: sum(len(version["history"]) for version in drift_of(live)["versions"]) >= windows, 15)


@pytest.mark.slow
def test_drift_of_a_server_with_two_workers_that_restarts(
    registry: str, start_server: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, state = random.Random(2), f"sqlite:///{tmp_path}/state.db"
    settings: dict[str, Any] = {"default": "watched", "workers": 2, "gateway": {"state": state}, "drift": DRIFT}
    live = start_server("watched", registry=registry, **settings)
    send(live, people(1_100, draw))
    assert closed(live, 1)
    first = drift_of(live)["versions"][0]
    assert (first["state"], first["reference"]["source"], first["window"]["rows"]) == ("ok", "holdout", 1_100)
    assert first["reference"]["rows"] == 1_500
    send(live, people(1_100, draw, older=7))
    assert closed(live, 2)
    assert drift_of(live)["versions"][0]["state"] == "suspected"
    live.stop()

    live = start_server("watched", registry=registry, **settings)
    send(live, people(1_100, draw, older=7))
    assert closed(live, 3)
    found = drift_of(live)["versions"][0]
    age = found["fields"][0]
    assert (found["state"], age["name"], age["state"], age["severity"]) == ("drift", "age", "drift", "warning")
    assert age["since"] == found["history"][1]["begin"]
    assert age["sentences"]["en"].startswith("age: mean 4"), age["sentences"]
    assert "media" in age["sentences"]["es"]
    assert sum(age["window"]["bins"]) == pytest.approx(1, abs=1e-4)
    assert len(age["edges"]) == len(age["reference"]["bins"]) - 1
    assert {"country", "balance"} <= {field["name"] for field in found["fields"] if field["state"] == "ok"}
    assert {"output:stays", "output:label"} <= {field["name"] for field in found["fields"]}

    def metric(line: str) -> bool:
        return until(lambda: line in httpx.get(f"{live.url}/metrics").text.splitlines(), 15)

    assert metric('estiba_drift_detected{model="watched",field="age"} 1')
    assert metric('estiba_drift_detected{model="watched",field="country"} 0')
    assert metric('estiba_drift_rows_total{model="watched",outcome="counted"} 1100')
    assert metric('estiba_drift_silent{model="watched"} 0')
    assert httpx.get(f"{live.url}/models/watched/drift?since=soon").status_code == 400
    assert run(["drift", "--state", state]) == 0
    assert "age" in capsys.readouterr().out
    assert run(["drift", "watched", "--state", state]) == 0
    assert "mean" in capsys.readouterr().out
    assert run(["drift", "watched", "--state", state, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"][0]["state"] == "drift"


@pytest.mark.slow
def test_a_model_without_a_profile_is_compared_with_the_first_rows_that_it_got(
    start_server: Start, tmp_path: Path
) -> None:
    draw, gateway = random.Random(3), {"state": f"sqlite:///{tmp_path}/state.db"}
    live = start_server("churn", default="churn", gateway=gateway, drift=DRIFT)
    rows = [{**CHURN_ROW, **each} for each in people(1_200, draw)]
    send(live, rows)
    assert until(lambda: bool(drift_of(live, "churn")["versions"]), 10)
    assert until(lambda: drift_of(live, "churn")["versions"][0]["state"] == "ok", 10)
    reference = drift_of(live, "churn")["versions"][0]["reference"]
    assert reference["source"] == "live"
    assert 1_000 <= reference["rows"] <= 1_200


def test_a_server_that_does_not_measure_drift_says_so(http: Any) -> None:
    answer = http.get("/models/churn/drift")
    assert answer.status_code == 404
    assert "[monitoring.drift]" in answer.text


def test_a_file_is_checked_against_the_profile(
    registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(4)
    for name, rows in {
        "same": people(800, draw),
        "older": people(800, draw, older=6),
        "few": people(60, draw),
        "wrong": [{"age": 30, "balance": 1.0}],
    }.items():
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)

    def check(name: str, *more: str) -> int:
        return run(["drift", "watched", str(tmp_path / f"{name}.csv"), "--registry", registry, *more])

    assert check("same") == 0
    assert "are as those in the profile" in capsys.readouterr().out
    assert check("older") == 1
    assert "differ from the profile of watched@1: age" in capsys.readouterr().out
    assert check("older", "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["state"] == "drift"
    assert "output:stays" in {field["name"] for field in shown["fields"]}
    pd.DataFrame(sorted(people(800, draw), key=lambda row: row["age"])).to_csv(tmp_path / "sorted.csv", index=False)
    assert check("sorted") == 0
    assert "If the file is sorted, shuffle it" in capsys.readouterr().err
    assert check("few") == 1
    assert "60 rows, too few" in capsys.readouterr().err
    assert check("wrong") == 1
    assert "country" in capsys.readouterr().err


def test_counts_are_those_of_the_values(registry: str) -> None:
    model = load("watched", registry=registry)
    assert model.profile is not None
    reference = reference_of(model.profile, model.signature, 0)
    rows = people(500, random.Random(5))
    coded = model.coder.check(rows)
    counted = Layout(reference.parts, model.signature).count(coded, model.answer(coded), np.arange(500) // 250, 2)
    part = next(part for part in reference.parts if part.name == "age")
    ages = [row["age"] for row in rows]
    expected, _ = np.histogram(ages, [-np.inf, *part.edges, np.inf])
    total = counted.cells.sum(axis=0)
    assert total[part.start : part.start + part.bins].tolist() == expected.tolist()
    assert counted.sums.sum(axis=0)[reference.parts.index(part)] == sum(ages)
    outside = sum(not model.profile.fields["age"].minimum <= age <= model.profile.fields["age"].maximum for age in ages)  # type: ignore[union-attr]
    assert total[part.start + part.bins + 2] == outside
    label = next(part for part in reference.parts if part.kind == "label")
    said = [each["label"] for each in model.predict(rows)]
    assert total[label.start : label.start + 2].tolist() == [said.count(name) for name in label.labels]


def keep(database: Database, registry: str, at: int, rows: int, older: float = 0.0) -> Version:
    """Add the counts of rows at a time, as a worker does."""
    model = load("watched", registry=registry)
    assert model.profile is not None
    version = Version(model.digest, model.version, model.name)
    reference = reference_of(model.profile, model.signature, at)
    with database.transaction() as writing:
        store.write_reference(writing, version, reference)
    coded = model.coder.check(people(rows, random.Random(at), older))
    group = np.arange(rows) // 50
    counted = Layout(reference.parts, model.signature).count(coded, model.answer(coded), group, rows // 50)
    store.write_slices(database, [Slices(version, at, rows, 0, counted)])
    return version


def keep_and_close(database: Database, url: str, registry: str) -> None:
    """Windows by count and by time, one server that closes them, and windows that are kept no longer."""
    options = DriftOptions(enabled=True, keep=10, minutes=0)
    one, other = DriftKeeper(url, options), DriftKeeper(url, options)
    other._holder = "another-server"
    hour = HOUR_MICROSECONDS // 10**6
    now = 1_000_000 * hour
    keep(database, registry, now * 10**6, 600)
    one.tick(now + 10)
    assert report(database, "watched", since=1e9, now=now).versions[0].window is None
    assert report(database, "watched", since=1e9, now=now).versions[0].waiting_rows == 600
    one.tick(now + 25 * hour)
    window = report(database, "watched", since=1e9, now=now + 25 * hour).versions[0].window
    assert window is not None
    assert (window.rows, window.compared) == (600, True)
    for step in range(26, 40):
        keep(database, registry, (now + step * hour) * 10**6, 1_000)
        other.tick(now + step * hour + 5)  # the lease of the first has ended by then
        one.tick(now + step * hour + 6)
    versions = report(database, "watched", since=1e9, now=now + 41 * hour).versions
    assert len(versions[0].history) == 10
    assert versions[0].state in ("ok", "suspected")
    keep(database, registry, (now + 50 * hour) * 10**6, 100)
    other.tick(now + 100 * hour)
    assert report(database, "watched", since=1e9, now=now + 100 * hour).versions[0].waiting_rows == 100
    other.tick(now + 230 * hour)
    last = report(database, "watched", since=1e9, now=now + 230 * hour).versions[0]
    assert last.state == "too few rows"
    for keeper in (one, other):
        keeper.close()


def test_windows_are_kept_in_sqlite(registry: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    database = open_monitoring(url)
    keep_and_close(database, url, registry)
    database.close()


@pytest.mark.slow
def test_windows_are_kept_in_postgresql(registry: str) -> None:
    with postgres_server() as server:
        database = open_monitoring(server.url)
        keep_and_close(database, server.url, registry)
        database.close()


def test_silence_is_an_hour_without_rows_that_had_100_a_week_ago() -> None:
    hour = 10_000
    assert is_silent({hour - 1 - WEEK_HOURS: 100}, hour)
    assert not is_silent({hour - 1 - WEEK_HOURS: 99}, hour)
    assert not is_silent({hour - 1 - WEEK_HOURS: 500, hour - 1: 1}, hour)
    assert not is_silent({hour - 1 - WEEK_HOURS: 500, hour: 1}, hour)


def test_the_api_document_describes_what_a_report_has() -> None:
    _, components = msgspec.json.schema_components([DriftReport])
    described = schemas()
    names = {"DriftReport": "Drift", "VersionReport": "DriftVersion", "PartReport": "DriftField"}
    names |= {"WindowReport": "DriftWindow", "Distribution": "DriftDistribution"}
    for own, name in names.items():
        assert set(components[own]["properties"]) == set(described[name]["properties"])
        assert set(components[own]["required"]) == set(described[name]["required"])
    version = described["DriftVersion"]["properties"]
    assert set(components["VersionReport"]["properties"]["state"]["enum"]) == set(version["state"]["enum"])
    assert set(components["ReferenceReport"]["properties"]) == set(version["reference"]["properties"])
    statistic = described["DriftField"]["properties"]["statistics"]["items"]["properties"]
    assert set(components["Statistic"]["properties"]) == set(statistic)


def test_mistakes_in_the_project_file_are_named() -> None:
    with pytest.raises(BadProject, match=r"monitoring.drift.models.chrun: .* did you mean 'churn'"):
        check_drift(DriftOptions(models={"chrun": ModelDriftOptions()}), ("churn",))
    with pytest.raises(BadProject, match="fewer than min_rows"):
        check_drift(DriftOptions(rows=150), ())


def test_a_version_that_cannot_be_compared_holds_up_no_other(registry: str, tmp_path: Path) -> None:
    """Slices of another Estiba may have counts of another form."""
    url = f"sqlite:///{tmp_path}/state.db"
    database = open_monitoring(url)
    keeper = DriftKeeper(url, DriftOptions(enabled=True, minutes=0))
    at = 1_000_000 * HOUR_MICROSECONDS
    good = keep(database, registry, at, 1_000)
    with database.transaction() as writing:
        reference = store.read_reference(writing, good)
        assert reference is not None
        store.write_reference(writing, good._replace(digest="0" * 64), reference)
        writing.execute(
            "INSERT INTO drift_slice (digest, version, model, at, count, dropped, counts) VALUES (?, ?, ?, ?, ?, ?, ?)",
            ("0" * 64, good.version, good.model, at - 1, 1_000, 0, b"counts"),
        )
    for later in (10, 20):
        keeper.tick(at / 1e6 + later)
    with database.transaction(write=False) as reading:
        assert {version.digest for version in store.newest(reading)} == {good.digest}
    keeper.close()
    database.close()
