"""estiba init, up, serve, healthcheck: real processes, real requests, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from command_line import Estiba
from toys import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Running:
    """A server started by a command line, its URL and what it printed until it answered."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.lines: list[str] = []
        assert child.stdout is not None
        for line in child.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("  curl "):
                break
        found = re.search(r"Serving .* at (http://\S+) ", "\n".join(self.lines))
        assert found, f"it never answered: {self.lines} {child.stderr.read() if child.stderr else ''}"
        self.url = found[1]

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """Sends a signal as a terminal or a supervisor does; the exit code and standard error."""
        self.child.send_signal(number)
        _, errors = self.child.communicate(timeout=60)
        return self.child.returncode, errors


@contextmanager
def running(*arguments: object, folder: Path, ignored: str = "") -> Iterator[Running]:
    """A server; `ignored` is a signal that its parent ignores, as nohup and shells do for what they start."""
    command = [sys.executable, "-m", "estiba", *(str(a) for a in arguments), "--port", "0", "--workers", "1"]
    if ignored:
        command = ["sh", "-c", f"trap '' {ignored}; exec \"$@\"", "sh", *command]
    child = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    guard = threading.Timer(200, child.kill)
    guard.start()
    try:
        yield Running(child)
    finally:
        guard.cancel()
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


@pytest.fixture(scope="module")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new project, made by `estiba init`."""
    folder = tmp_path_factory.mktemp("init") / "flowers"
    subprocess.run([sys.executable, "-m", "estiba", "init", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


def ask(url: str, body: object) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def test_what_init_makes_works_at_once_and_stops_cleanly(flowers: Path) -> None:
    with running("up", folder=flowers) as server:
        (curl,) = [line for line in server.lines if line.startswith("  curl ")]
        answer = json.loads(subprocess.run(curl, shell=True, capture_output=True, check=True).stdout)
        assert answer["predictions"][0]["species"] == "setosa"
        code, errors = server.stop()
    assert code == 0
    assert "iris: training (it is not trained yet)" in errors
    assert "Traceback" not in errors


def test_the_second_time_nothing_is_trained_and_sigterm_stops_too(flowers: Path) -> None:
    with running("up", "-C", flowers, folder=flowers.parent) as server:
        record = {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}
        answer = ask(f"{server.url}/models/iris/predict", {"records": [record]})
        assert "virginica" in str(answer["predictions"])
        code, errors = server.stop(signal.SIGTERM)
    assert code == 0
    assert "iris: unchanged iris@1" in errors
    assert "training" not in errors


def test_in_the_background_of_a_script_ctrl_c_stops_it(flowers: Path) -> None:
    with running("up", folder=flowers, ignored="INT") as server:
        assert server.stop()[0] == 0


def test_with_nohup_it_outlives_its_terminal(flowers: Path) -> None:
    with running("up", folder=flowers, ignored="HUP") as server:
        server.child.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert urllib.request.urlopen(f"{server.url}/health/ready", timeout=10).status == 200
        assert server.stop(signal.SIGTERM)[0] == 0


def test_a_model_server_that_dies_is_started_again(flowers: Path) -> None:
    with running("up", folder=flowers) as server:
        (model_server,) = Path(f"/proc/{server.child.pid}/task/{server.child.pid}/children").read_text().split()[-1:]
        os.kill(int(model_server), signal.SIGKILL)
        assert until(lambda: not Path(f"/proc/{model_server}").exists())
        assert until(lambda: answers(server.url), seconds=30)
        code, errors = server.stop()
    assert code == 0
    assert "ended by SIGKILL" in errors


def answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{url}/health/ready", timeout=5).status == 200)
    except OSError:
        return False


def test_it_serves_an_address_of_ipv6(flowers: Path) -> None:
    with running("up", "--host", "::1", folder=flowers) as server:
        assert server.url.startswith("http://[::1]:")
        assert answers(server.url)
        assert server.stop()[0] == 0


def test_serve_takes_references_and_folders(estiba: Estiba, registry: Path) -> None:
    folder = next(p for p in sorted(registry.glob("artifacts/*")) if '"flats"' in (p / "artifact.json").read_text())
    with running("serve", "churn@2", folder, "--registry", registry, folder=registry) as server:
        ready = estiba("healthcheck", server.url)
        assert (ready.code, ready.out) == (0, f"{server.url}/health/ready: ready (200)\n")
        answer = ask(f"{server.url}/models/churn/predict", {"records": [{"age": 70, "balance": 1.0}]})
        assert (answer["version"], len(server.lines)) == ("2", 3)
        assert ask(f"{server.url}/models/flats/predict", {"records": [{"age": 70}]})["model"] == "flats"
        assert server.stop()[0] == 0
    assert estiba("healthcheck", server.url).code == 1


def test_healthcheck_asks_the_path_that_is_given_and_tells_what_is_no_address(estiba: Estiba) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/livez"
        ran = estiba("healthcheck", url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"{url}: no answer (")
    assert estiba("healthcheck", "ftp://here").code == 2


def test_a_model_that_is_not_there_is_not_served(estiba: Estiba, registry: Path) -> None:
    ran = estiba("serve", "nobody", "--port", "0")
    assert ran.code == 4
    assert "There is no model 'nobody'" in ran.err


def test_serve_without_arguments_takes_those_of_the_environment(
    estiba: Estiba, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = estiba("serve")
    assert (ran.code, "Missing argument 'REF...'" in ran.err) == (2, True)
    monkeypatch.setenv("ESTIBA_SERVE", "nobody --port 0")
    assert "There is no model 'nobody'" in estiba("serve").err
    assert "There is no model 'flatz'" in estiba("serve", "flatz", "--port", "0").err


def test_the_port_that_sagemaker_chooses_goes_before_the_images(
    estiba: Estiba, registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESTIBA_SERVE", "churn --port 0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(port))
        ran = estiba("serve")
    assert ran.code == 1
    assert f"{port}" in ran.err
    assert "in use" in ran.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_are_served_only_on_purpose(estiba: Estiba, registry: Path, host: str) -> None:
    ran = estiba("serve", "churn", "--host", host, "--port", "0", "--keys", "off")
    assert ran.code == 1
    assert f"error: Serving on {host} without keys would let every machine" in ran.err
    assert "--insecure" in ran.err


@pytest.mark.slow
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_commands_name_no_address_that_nobody_can_connect_to(registry: Path, tmp_path: Path, host: str) -> None:
    options = ("--registry", registry, "--host", host, "--insecure")
    with running("serve", "churn", *options, folder=tmp_path) as server:
        port = server.url.rsplit(":", 1)[1]
        assert f"ADDRESS is a name of this machine with :{port}, or where its container is published." in server.lines
        assert "Forms and reference: http://ADDRESS/docs" in server.lines
        assert server.lines[-1].startswith("  curl -s http://ADDRESS/models/churn/predict ")
        answer = httpx.get(f"http://{'[::1]' if host == '::' else '127.0.0.1'}:{port}/health/ready")
        assert answer.status_code == 200


def test_up_looks_at_the_address_before_it_trains(estiba: Estiba, tmp_path: Path) -> None:
    assert estiba("init", tmp_path / "p").code == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = estiba("up", "-C", tmp_path / "p", "--port", port)
    assert ran.code == 1
    assert f"The model server cannot listen on 127.0.0.1:{port}" in ran.err
    assert "training" not in ran.err


def test_up_without_models_says_how_to_add_one(estiba: Estiba, tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text("")
    ran = estiba("up", "-C", tmp_path, "--port", "0")
    assert ran.code == 2
    assert "has no model." in ran.err


def test_init_replaces_nothing(estiba: Estiba, tmp_path: Path) -> None:
    (tmp_path / "iris.py").write_text("mine")
    ran = estiba("init", tmp_path)
    assert ran.code == 5
    assert (tmp_path / "iris.py").read_text() == "mine"
    assert not (tmp_path / "estiba.toml").exists()
    (tmp_path / "file").write_text("")
    assert estiba("init", tmp_path / "file").code == 2


PICKLED = """
import numpy as np
import pandas as pd
from scipy.spatial.distance import cityblock
from sklearn.neighbors import KNeighborsClassifier
import estiba

def fitted(shift):
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 2)), columns=["a", "b"])
    model = KNeighborsClassifier(metric=cityblock).fit(rows, (rows.a > shift).astype(int))
    model.kept = pd.Timedelta(1)  # of a type that skops does not write
    return model, rows

def train():
    return fitted(0.0)
"""


def test_what_is_trained_beside_a_server_is_trusted_and_what_is_packed_beside_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text('[models.near]\ntrain = "near:train"\n')
    (tmp_path / "near.py").write_text(PICKLED)

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def wait(key: str, value: str) -> None:
        until = time.monotonic() + 30
        while value not in str((model := ask_models())[0].get(key)):
            assert time.monotonic() < until, model
            time.sleep(0.1)

    def ask_models() -> list[dict[str, object]]:
        with urllib.request.urlopen(f"{server.url}/models", timeout=10) as answer:
            found: list[dict[str, object]] = json.load(answer)["models"]
            return found

    with running("up", folder=tmp_path) as server:
        wait("engine", "python")
        (tmp_path / "near.py").write_text(PICKLED.replace("fitted(0.0)", "fitted(0.1)"))
        run("-m", "estiba", "train")
        wait("version", "2")
        code = "estiba.pack(*near.fitted(0.2), name='near', registry='.estiba/registry', aliases=['production'])"
        run("-c", f"import estiba, near; {code}")
        wait("refused", "version 3: ")
        assert "`estiba up` trusts what `estiba train` makes" in str(ask_models()[0]["refused"])
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
            assert 'estiba_swap_failures_total{model="near"} 1' in answer.read().decode()


OWN_CODE = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from steps.double import Double

def train():
    rows = pd.DataFrame({"a": np.arange(40.0)})
    return make_pipeline(Double(), LinearRegression()).fit(rows, rows.a * 4), rows
"""

DOUBLE = """
from sklearn.base import BaseEstimator, TransformerMixin

class Double(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return X * 2
"""


def test_a_project_trusts_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text('[models.near]\ntrain = "near:train"\n')
    (tmp_path / "near.py").write_text(OWN_CODE)
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps/double.py").write_text(DOUBLE)
    with running("up", folder=tmp_path) as server:
        request = urllib.request.Request(f"{server.url}/predict", b'{"records": [{"a": 2.5}]}')
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["predictions"] == [{"value": pytest.approx(10.0)}]
    (artifact,) = (tmp_path / ".estiba/registry/artifacts").iterdir()
    assert [str(path.relative_to(artifact)) for path in artifact.rglob("*.py")] == ["code/steps/double.py"]
