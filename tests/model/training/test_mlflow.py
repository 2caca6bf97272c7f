"""Results of a training are recorded in the MLflow tracking server; one that cannot be reached is only a warning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from estiba import project
from estiba.core.errors import Unavailable
from estiba.core.ports import free
from estiba.model.artifact.artifact import Artifact
from estiba.model.packing.pack import Packed
from estiba.model.registry.registry import open_registry
from estiba.model.training import mlflow
from estiba.model.training.mlflow import MlflowOptions
from estiba.model.training.runner import Event, train

pytest.importorskip("mlflow", reason="mlflow is not installed: nothing to log to")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.timeout(240)]

MODULE = """
import pandas as pd
from sklearn.linear_model import LinearRegression

import estiba


def train():
    sample = pd.DataFrame({"x": [float(i) for i in range(20)]})
    return estiba.Trained(
        model=LinearRegression().fit(sample, sample["x"]),
        sample=sample,
        metrics={"r2": 1.0, "rmse": 0.5},
        params={"estimator": "LinearRegression", "rows": 20},
        source=estiba.Source(name="A straight line", rows=20, simulated=True),
    )
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ESTIBA_REGISTRY", "ESTIBA_DATA", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """A model that a training without MLflow gave."""
    folder = tmp_path_factory.mktemp("project")
    (outcome,) = train(make(folder).workshop)
    store = open_registry(folder / ".estiba/registry")
    return Packed(store.fetch(outcome.version), outcome.version.version)


def make(folder: Path, uri: str = "") -> project.Project:
    (folder / "line.py").write_text(MODULE)
    (folder / "estiba.toml").write_text(
        f'[project]\nname = "lines"\n[models.line]\ntrain = "line:train"\n[mlflow]\ntracking_uri = "{uri}"\n'
    )
    return project.load(folder)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a real MLflow server over SQLite."""
    url = f"http://127.0.0.1:{(port := free('127.0.0.1'))}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/kept"]
    with (tmp_path / "server.log").open("wb") as log:
        child = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            assert child.poll() is None, (tmp_path / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=1):
                    break
            except OSError:
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(30)


def runs(uri: str, experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def test_a_run_holds_metrics_parameters_tags_and_the_artifact(packed: Packed, server: str) -> None:
    from mlflow import MlflowClient

    run_id = mlflow.log(MlflowOptions(tracking_uri=server, experiment="lines"), packed)
    (run,) = runs(server, "lines")
    assert (run.info.run_id, run.info.status, run.info.run_name) == (run_id, "FINISHED", "line@1")
    assert run.data.metrics == {"r2": 1.0, "rmse": 0.5}
    assert run.data.params == {"estimator": "LinearRegression", "rows": "20"}
    assert run.data.tags["estiba.digest"] == f"sha256:{packed.artifact.digest}"
    assert run.data.tags["estiba.simulated"] == "true"
    assert {"estiba.version", "estiba.engine", "estiba.parity.max_abs_error"} <= run.data.tags.keys()
    kept = MlflowClient(tracking_uri=server).list_artifacts(run_id, "artifact")
    assert sorted(Path(file.path).name for file in kept) == sorted(names(packed.artifact))


def names(artifact: Artifact) -> list[str]:
    return ["artifact.json", *(entry.path for entry in artifact.manifest.files)]


def test_a_training_logs_to_sqlite_in_the_project_and_unchanged_models_do_not(tmp_path: Path) -> None:
    found = make(tmp_path, "sqlite:///runs.db")
    events: list[Event] = []
    train(found.workshop, on_event=events.append)
    assert [event.stage for event in events] == ["training", "packing", "logging", "done"]
    train(found.workshop)
    (run,) = runs(f"sqlite:///{tmp_path}/runs.db", "lines")
    assert run.data.tags["estiba.model"] == "line"


def test_a_server_that_is_down_costs_a_warning_and_the_model_is_registered(tmp_path: Path) -> None:
    found = make(tmp_path, f"http://127.0.0.1:{free('127.0.0.1')}")
    events: list[Event] = []
    (outcome,) = train(found.workshop, on_event=events.append)
    (warning,) = [event.detail for event in events if event.stage == "warning"]
    assert warning.startswith("line@1 is registered, but it could not be logged to MLflow at http://127.0.0.1:")
    assert outcome.notes[0] in warning
    assert open_registry(found.registry).resolve("line@production").version == 1


def test_an_address_of_no_kind_that_mlflow_knows_is_a_sentence(packed: Packed) -> None:
    with pytest.raises(Unavailable, match="could not be logged to MLflow at gopher://runs"):
        mlflow.log(MlflowOptions(tracking_uri="gopher://runs", experiment="lines"), packed)
