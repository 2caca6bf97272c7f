"""The portfolio's other applications, each started by the command that its service has and asked over HTTP."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from applications import PORTFOLIO, ROOT, Served, clean, copied, environment, registry, running
from toys import SUPPORT

from estiba.core.ports import free

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CUSTOMER = {
    "CreditScore": 650,
    "Geography": "France",
    "Gender": "Female",
    "Age": 40,
    "Tenure": 3,
    "Balance": 60000,
    "NumOfProducts": 2,
    "HasCrCard": 1,
    "IsActiveMember": 1,
    "EstimatedSalary": 50000,
}
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
TOKEN = "a-long-random-word"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("applications")


@pytest.fixture(scope="module")
def bank(serve: Served, folder: Path) -> Iterator[httpx.Client]:
    """The Flask API in front of the served bankchurn model."""
    address = f"127.0.0.1:{free('127.0.0.1')}"
    command = [environment("flask_api") / "waitress-serve", f"--listen={address}", "--call", "flask_api.app:create_app"]
    more = {"BANKCHURN_URL": serve("bankchurn"), "CUSTOMERS_DB": str(folder / "customers.db")}
    with (
        running(command, f"http://{address}/health", log=folder / "flask.log", more=more),
        httpx.Client(base_url=f"http://{address}") as client,
    ):
        yield client


def test_the_flask_api_predicts_with_the_original_body(bank: httpx.Client) -> None:
    assert bank.get("/ready").json() == {"model": "ready"}
    answer = bank.post("/predict", json=CUSTOMER)
    assert answer.status_code == 200
    assert {"churn_probability", "churn_prediction", "risk_level", "model_version"} == answer.json().keys()


def test_the_flask_api_lists_its_routes_at_its_address(bank: httpx.Client) -> None:
    routes = bank.get("/").json()["routes"]
    assert {"GET /customers/<int:number>/churn", "POST /predict", "GET /ready"} < set(routes)
    readme = (PORTFOLIO / "README.md").read_text()
    assert [route for route in routes if f"`{route.replace('<int:number>', 'NUMBER')}`" not in readme] == []


def test_the_flask_api_predicts_for_customers_that_it_knows(bank: httpx.Client) -> None:
    assert len(bank.get("/customers").json()["customers"]) == 5
    new = bank.post("/customers", json={"name": "Eva Stein", **CUSTOMER, "Tenure": None})
    assert new.status_code == 201
    number = new.json()["id"]
    assert bank.get(f"/customers/{number}").json()["name"] == "Eva Stein"
    known = bank.get(f"/customers/{number}/churn").json()
    assert known == bank.post("/predict", json={**CUSTOMER, "Tenure": None}).json()
    assert bank.get("/customers/999/churn").status_code == 404


def test_the_flask_api_passes_on_what_is_wrong_with_a_customer(bank: httpx.Client) -> None:
    answer = bank.post("/predict", json={**CUSTOMER, "Age": 3})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "#/Age", "detail": "must be at least 18, got 3"}]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/predict", [1], "The body must be a JSON object."),
        ("/customers", {"name": "x"}, "missing: Age, Balance"),
        ("/customers", {"name": ["x"], **CUSTOMER}, "a value cannot be stored"),
    ],
)
def test_the_flask_api_refuses_what_is_no_customer(bank: httpx.Client, path: str, body: Any, said: str) -> None:
    answer = bank.post(path, json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_the_flask_api_lives_without_the_model(folder: Path) -> None:
    address = f"127.0.0.1:{free('127.0.0.1')}"
    command = [environment("flask_api") / "waitress-serve", f"--listen={address}", "--call", "flask_api.app:create_app"]
    more = {"BANKCHURN_URL": "http://127.0.0.1:1", "CUSTOMERS_DB": str(folder / "alone.db")}
    with running(command, f"http://{address}/health", log=folder / "alone.log", more=more):
        assert httpx.get(f"http://{address}/ready").status_code == 503
        assert len(httpx.get(f"http://{address}/customers").json()["customers"]) == 5
        answer = httpx.post(f"http://{address}/predict", json=CUSTOMER)
    assert answer.status_code == 503
    assert answer.json()["error"] == "The model server at http://127.0.0.1:1 does not answer: MaxRetryError."


def test_the_iris_app_of_the_course_answers_as_it_always_did(folder: Path) -> None:
    port = free("127.0.0.1")
    command = [environment("iris_fastapi") / "uvicorn", "main:app", "--app-dir", "iris_fastapi", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/openapi.json", log=folder / "iris.log", more={}):
        answer = httpx.get(f"{url}/predict", params=FLOWER)
        assert answer.json() == {"prediction": 0}
        assert httpx.get(f"{url}/predict").status_code == 422
        assert httpx.get(url + httpx.get(f"{url}/").json()["predict"]).json() == {"prediction": 0}


def test_the_iris_app_does_not_know_estiba() -> None:
    assert "estiba" not in (PORTFOLIO / "iris_fastapi" / "main.py").read_text().partition('"""')[2].partition('"""')[2]
    assert "estiba" not in (PORTFOLIO / "iris_fastapi" / "requirements.txt").read_text()


def test_the_notebook_runs_clean_and_its_candidate_is_in_the_registry(serve: Served, tmp_path: Path) -> None:
    shutil.copytree(registry("iris"), tmp_path / "registry")
    run = ["execute", "--inplace", "--timeout=100", str(tmp_path / "iris.ipynb")]
    for name in ("notebook/iris.ipynb", "estiba.toml"):
        shutil.copy(PORTFOLIO / name, tmp_path)
    more = {"ESTIBA_REGISTRY": str(tmp_path / "registry"), "ESTIBA_URL": serve("iris"), "PYTHONPATH": str(ROOT / "src")}
    command = [environment("notebook") / "jupyter", *run]
    done = subprocess.run(command, cwd=tmp_path, env=clean(**more), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "iris.ipynb").read_text()
    assert "iris@2 sha256:" in text
    assert "production" in text.partition("accuracy")[2]
    listed = [
        sys.executable,
        "-m",
        "estiba",
        "models",
        "show",
        "iris@candidate",
        "--registry",
        str(tmp_path / "registry"),
    ]
    assert subprocess.run(listed, capture_output=True, env=clean()).returncode == 0


@pytest.fixture
def lab(folder: Path) -> Iterator[str]:
    """JupyterLab, with its token in a file."""
    (folder / "token").write_text(f"{TOKEN}\n")
    port = free("127.0.0.1")
    command = [environment("notebook") / "jupyter", "lab", "--config", "notebook/jupyter_server_config.py"]
    more = {"JUPYTER_TOKEN_FILE": str(folder / "token"), "HOME": str(folder)}
    url = f"http://127.0.0.1:{port}"
    with running([*command, f"--port={port}"], f"{url}/api", log=folder / "lab.log", more=more):
        yield url


def test_jupyterlab_is_closed_without_the_token_and_its_kernels_know_estiba(lab: str) -> None:
    assert httpx.get(f"{lab}/api/contents").status_code == 403
    found = httpx.get(f"{lab}/api/contents", headers={"Authorization": f"token {TOKEN}"}).json()
    assert "iris.ipynb" in [one["name"] for one in found["content"]]
    line = "import estiba; print(estiba.__version__)"
    command = [environment("notebook") / "python", SUPPORT / "kernel_visit.py", lab, TOKEN, line]
    done = subprocess.run(command, capture_output=True, text=True, env=clean())
    assert done.stdout.strip() == "0.1.0", done.stderr + done.stdout


@pytest.mark.parametrize(("content", "said"), [("", "is empty"), (None, "No such file")])
def test_jupyterlab_does_not_start_open(tmp_path: Path, content: str | None, said: str) -> None:
    token = tmp_path / "token"
    if content is not None:
        token.write_text(content)
    command = [environment("notebook") / "jupyter", "lab", "--config", "notebook/jupyter_server_config.py", "--port=0"]
    env = clean(JUPYTER_TOKEN_FILE=str(token), HOME=str(tmp_path))
    done = subprocess.run(command, cwd=PORTFOLIO, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[str]:
    """An MLflow server, with its database and its artifacts in the test's folder."""
    port = free("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    database, artifacts = f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts")
    stores = ["--backend-store-uri", database, "--artifacts-destination", artifacts]
    command = [environment("mlflow_server") / "mlflow", "server", "--port", str(port), "--workers", "1", *stores]
    # Its job runner is eight processes more, which need half a minute to end.
    more = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with running(command, f"{url}/health", log=tmp_path / "log", more=more):
        yield url


def test_a_training_is_a_run_of_the_mlflow_server(tracking: str, tmp_path: Path) -> None:
    train = [sys.executable, "-m", "estiba", "train", "-C", copied(tmp_path / "portfolio"), "iris"]
    done = subprocess.run(train, env=clean(MLFLOW_TRACKING_URI=tracking), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    experiments = httpx.get(f"{tracking}/api/2.0/mlflow/experiments/get-by-name?experiment_name=portfolio").json()
    asked = {"experiment_ids": [experiments["experiment"]["experiment_id"]]}
    run = httpx.post(f"{tracking}/api/2.0/mlflow/runs/search", json=asked).json()["runs"][0]
    assert run["info"]["run_name"] == "iris@1"
    assert run["info"]["status"] == "FINISHED"
    assert "cv_accuracy_mean" in [metric["key"] for metric in run["data"]["metrics"]]
    assert list((tmp_path / "artifacts").rglob("model.onnx"))
