"""The wheel as a user installs it: in an empty environment without the clone, from `estiba init` to an answer."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(folder: Path, *command: object) -> str:
    """The output of a command that knows nothing of this environment."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def estiba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command `estiba` of an environment with the wheel alone, and what packing needs."""
    folder = tmp_path_factory.mktemp("wheel")
    run(ROOT, UV, "build", "--wheel", "--quiet", "--out-dir", folder)
    (wheel,) = folder.glob("estiba-*.whl")
    run(folder, UV, "venv", "--quiet", "--python", sys.executable, "env")
    run(folder, UV, "pip", "install", "--quiet", "--python", "env/bin/python", f"estiba[train] @ {wheel.as_uri()}")
    return folder / "env/bin/estiba"


def test_from_init_to_an_answer(estiba: Path, tmp_path: Path) -> None:
    where = run(tmp_path, estiba.parent / "python", "-c", "import estiba; print(estiba.__file__)")
    assert Path(where.strip()).is_relative_to(estiba.parents[1])
    run(tmp_path, estiba, "init", "p")
    project = tmp_path / "p"
    assert re.search(r"^iris +1 ", run(project, estiba, "train"), re.MULTILINE)
    described = json.loads(run(project, estiba, "models", "show", "iris", "--json"))
    names = [field["name"] for field in described["manifest"]["signature"]["fields"]]
    with (project / "rows.csv").open("w") as file:
        csv.writer(file).writerows([names, [5.1, 3.5, 1.4, 0.2]])
    run(project, estiba, "predict", "iris", "rows.csv", "--output", "answers.csv")
    (scored,) = csv.DictReader((project / "answers.csv").read_text().splitlines())
    assert scored["species"] == "setosa"
    assert run(project, estiba, "keys", "create", "ada").startswith("est_")  # the tables of its store are in the wheel
    assert "ada" in run(project, estiba, "keys", "list")
    command = [estiba, "serve", "iris", "--port", "0", "--workers", "1"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = next(found[0] for line in server.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            body = json.dumps({"records": [dict(zip(names, (5.1, 3.5, 1.4, 0.2), strict=True))]}).encode()
            request = urllib.request.Request(f"{url}/models/iris/predict", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert json.load(answer)["predictions"][0]["species"] == "setosa"
        finally:
            server.terminate()
    assert server.returncode == 0
