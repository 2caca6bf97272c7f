"""The portfolio's dashboard, notebook, MLflow and training in containers, used as people use them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import httpx
import pytest
from applications import clean, environment
from lab import Docker
from stacks import Stack, portfolio
from toys import SUPPORT, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROFILES = ("dashboard", "mlflow", "notebook", "stores")
LONG_RUNNING = ("dashboard", "mlflow", "notebook")
FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}

ASK = f"import estiba, os; print(estiba.Client(os.environ['ESTIBA_URL']).predict({FLOWER}, model='iris'))"
THERE = "return document.evaluate(arguments[0], document).iterateNext() !== null"
PRICED = """
const shown = [...document.querySelectorAll('[data-testid="stMetricValue"]')].map(one => one.innerText);
return shown.some(text => /^\\$[\\d,]+$/.test(text.trim())) &&
  document.querySelector('main, .stMain, body').innerText.includes('by model version 1');
"""


@pytest.fixture(scope="module")
def stack(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """These services of the portfolio, each as a user that its image does not know; two models trained in one."""
    docker.need("python:3.11-slim", "debian:bookworm-slim", "postgres:17")
    with portfolio(docker, tmp_path_factory.mktemp("stack") / "portfolio", PROFILES) as found:
        for user, name in enumerate((*LONG_RUNNING, "training"), 23_456):
            found.change(f"[services.{name}]\n", f"[services.{name}]\nuser = {user}\n")
        found.change('"estiba train --force"', '"estiba train --force iris carvision"')  # the others take as long again
        found.build("models", "training", *LONG_RUNNING)
        assert found.estiba("compose").returncode == 0
        found.compose("up", "--detach", "--wait", *LONG_RUNNING)
        found.compose("up", "--detach", "--no-deps", "training")
        task = found.container("training")
        assert docker("wait", task, seconds=600) == "0", docker("logs", task)
        yield found


def test_every_container_is_hardened(stack: Stack) -> None:
    rows = stack.containers()
    assert {row["Service"] for row in rows} == {"models", "training", "postgres", *LONG_RUNNING}
    for row in rows:
        seen = json.loads(stack.docker("inspect", row["ID"]))[0]
        limits = seen["HostConfig"]
        assert limits["ReadonlyRootfs"], row["Service"]
        assert limits["CapDrop"] == ["ALL"], row["Service"]
        assert limits["SecurityOpt"] == ["no-new-privileges:true"], row["Service"]
        assert min(limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) > 0, row["Service"]
        assert int(seen["Config"]["User"].partition(":")[0]) > 0, row["Service"]
        assert not seen["State"]["OOMKilled"], row["Service"]


def test_the_dashboard_shows_a_price_of_the_model_s_container(stack: Stack, tmp_path: Path) -> None:
    if missing := browser.missing():
        pytest.skip(f"{missing} is not installed: apt-get install chromium chromium-driver")
    tab, button = "//*[@role='tab'][contains(., 'Price a car')]", "//button[contains(., 'Price this car')]"
    with browser.browsing(tmp_path) as page:
        assert until(lambda: loaded(page, stack.url(8501)), 60)
        page.wait(THERE, tab, seconds=60)
        assert until(lambda: shows(page, tab, button), 60)
        before = predictions(stack)
        page.click(button)
        page.wait(PRICED, seconds=60)
    assert predictions(stack) > before


def loaded(page: browser.Browser, url: str) -> bool:
    """Opens a page. A browser breaks off where another container comes up meanwhile; a person then loads it again."""
    page.open(url, wait="")
    page.wait("return document.readyState === 'complete'")
    return not any("ERR_NETWORK_CHANGED" in line for line in page.console())


def shows(page: browser.Browser, tab: str, button: str) -> bool:
    """Click a tab, and tell if its button comes. Streamlit loses a click while the page connects."""
    page.click(tab)
    return until(lambda: page.run(THERE, button), 5)


def predictions(stack: Stack) -> float:
    """The number of CarVision rows that the container of all models has answered."""
    text = httpx.get(f"{stack.url(8000)}/metrics", trust_env=False).text
    found = re.findall(r'^estiba_rows_total\{[^}]*model="carvision"[^}]*\} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


def token(stack: Stack) -> str:
    return (stack.folder / "deploy" / "compose" / "secrets" / "jupyter-token").read_text().strip()


def lab(stack: Stack) -> httpx.Client:
    """JupyterLab, for whoever has the token."""
    headers = {"Authorization": f"token {token(stack)}"}
    return httpx.Client(base_url=stack.url(8888), headers=headers, timeout=20, trust_env=False)


def test_the_notebook_is_closed_without_its_token(stack: Stack) -> None:
    for path in ("/api/contents", "/api/kernels", "/api/contents?token=guess"):
        assert httpx.get(stack.url(8888) + path, trust_env=False).status_code == 403
    with lab(stack) as client:
        assert "iris.ipynb" in [one["name"] for one in client.get("/api/contents").json()["content"]]


def test_a_kernel_asks_a_model(stack: Stack) -> None:
    visit = [environment("notebook") / "python", SUPPORT / "kernel_visit.py"]
    done = subprocess.run([*visit, stack.url(8888), token(stack), ASK], capture_output=True, text=True, env=clean())
    assert "'prediction': 'setosa'" in done.stdout, done.stdout + done.stderr


def runs(stack: Stack) -> dict[str, Any]:
    """The runs of the portfolio that MLflow knows, by name."""
    with httpx.Client(base_url=f"{stack.url(5000)}/api/2.0/mlflow", timeout=20, trust_env=False) as client:
        known = client.get("/experiments/get-by-name", params={"experiment_name": stack.docker.name}).json()
        asked = {"experiment_ids": [known["experiment"]["experiment_id"]]}
        return {run["info"]["run_name"]: run for run in client.post("/runs/search", json=asked).json()["runs"]}


def test_the_training_packed_its_models_and_told_mlflow(stack: Stack) -> None:
    listed = stack.compose("run", "--rm", "--no-deps", "training", "estiba", "models", "list", "--json")
    versions = [one for model in json.loads(listed) for one in model["versions"]]
    registered = {f"{one['name']}@{one['version']}": one["digest"] for one in versions}
    assert registered.keys() == {"iris@1", "carvision@1"}
    told = runs(stack)
    assert told.keys() == registered.keys()
    for name, run in told.items():
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        assert run["info"]["status"] == "FINISHED"
        assert tags["estiba.digest"] == f"sha256:{registered[name]}"
        assert run["data"]["metrics"]


def test_what_dies_comes_back(stack: Stack) -> None:
    for service in LONG_RUNNING:
        stack.crash(stack.container(service))
    assert until(lambda: not stack.ill(), 180), stack.ill()
    for service in LONG_RUNNING:
        assert stack.docker("inspect", "--format={{.RestartCount}}", stack.container(service)) != "0"


def test_all_end_when_they_are_told_to_and_what_they_kept_is_there_again(stack: Stack) -> None:
    """The whole project taken down, its volumes aside, and brought up again; with PostgreSQL, of another profile."""
    stack.compose("up", "--detach", "--wait", "postgres")
    query(stack, "create table kept (word text); insert into kept values ('still here')")
    cell = {"cell_type": "code", "source": "1 + 1", "metadata": {}, "outputs": [], "execution_count": None}
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{**cell, "id": "one"}]}
    with lab(stack) as client:
        saved = client.put("/api/contents/mine.ipynb", json={"type": "notebook", "content": book})
        assert saved.is_success, saved.text
    told = runs(stack)
    stack.compose("stop")
    codes = {row["Service"]: row["ExitCode"] for row in stack.containers()}
    assert 137 not in codes.values(), f"killed, as it did not end in time: {codes}"
    stack.compose("down")
    assert stack.containers() == []
    stack.compose("up", "--detach", "--wait", "postgres", "mlflow", "notebook")
    assert query(stack, "select word from kept") == "still here"
    assert runs(stack).keys() == told.keys()
    with lab(stack) as client:
        assert client.get("/api/contents/mine.ipynb").json()["content"]["cells"][0]["source"] == "1 + 1"


def query(stack: Stack, text: str) -> str:
    return stack.compose("exec", "--no-TTY", "postgres", "psql", "--username=estiba", "-tAc", text)
