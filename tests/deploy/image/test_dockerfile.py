"""Dockerfiles are readable, put the layers that change least first, and pass linters."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from estiba import project
from estiba.core.errors import BadProject, EstibaError
from estiba.deploy.image import dockerfile, spec
from estiba.deploy.plan.plan import Build, Plan, PlannedModel, Service
from estiba.planning import lower

WEB = """
[services.web]
command = ["web", "--on", "${host}:${port}", "--say", "it's $$5"]
include = ["site"]
packages = ["libpq5"]
port = 5000
health = "/health"
"""


@pytest.fixture
def plan(tmp_path: Path, toy_registry: Path) -> Plan:
    (tmp_path / "site").mkdir()
    (tmp_path / "estiba.toml").write_text(
        f'[project]\nname = "toys"\nregistry = "{toy_registry}"\n[images]\npython = "3.11"\n'
        '[server]\ndrain = 3\n[models.churn]\ntrain = "a:b"\n[models.price]\ntrain = "a:b"\n' + WEB
    )
    return lower(project.load(tmp_path))


def render(plan: Plan, name: str, style: str | None = None) -> str:
    return dockerfile.render(spec.image_spec(plan, plan[name], style))


@pytest.mark.parametrize("style", ["slim", "scratch"])
def test_what_changes_least_comes_first(plan: Plan, style: str) -> None:
    text = render(plan, "models", style)
    places = [
        text.index(word) for word in ("-r /requirements.txt", "/code/*.whl", "--from=build /packages/", "models/ /")
    ]
    assert places == sorted(places)
    assert text.index("--from=build /packages/") < text.index("--from=build /server/") < text.index("COPY models/")


def test_an_image_of_models(plan: Plan) -> None:
    text = render(plan, "models")
    assert re.findall(r"^FROM .*", text, re.MULTILINE) == ["FROM python:3.11-slim AS build", "FROM scratch"]
    assert re.search(r"^USER 10001:0$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["estiba"]' in text
    assert 'CMD ["serve", "churn", "price", "--registry", "/models", "--settings", "/models/server.json"]' in text
    assert 'ESTIBA_SERVE="churn price --registry /models --settings /models/server.json --port 8080"' in text
    assert 'CMD ["estiba", "healthcheck", "--timeout", "4", "http://127.0.0.1:8000/health/ready"]' in text
    assert "STOPSIGNAL SIGTERM" in text
    assert "ENV ORT_DISABLE_TELEMETRY=1" in text
    digest = plan["models"].models[0].digest
    assert f"org.estiba.model.churn.digest=sha256:{digest}" in text


def test_the_settings_of_the_server_go_in(plan: Plan) -> None:
    settings = spec.image_spec(plan, plan["models"]).contents.settings
    said = {"host": "0.0.0.0", "workers": 1, "drain": 3.0, "log": "json", "insecure": True}
    assert settings.items() >= said.items()


def test_an_image_of_an_application(plan: Plan) -> None:
    text = render(plan, "web")
    assert text.count("apt-get install -y --no-install-recommends libpq5") == 2
    assert f"CMD {json.dumps(['web', '--on', '0.0.0.0:5000', '--say', 'it' + chr(39) + 's $5'])}" in text
    assert "COPY app/ /app/" in text
    assert "HTTPConnection('127.0.0.1', 5000, timeout=4); c.request('GET', '/health')" in text
    assert "/models" not in text
    assert "curl" not in text
    assert "ENTRYPOINT" not in text


def test_the_context_lets_nothing_else_in(plan: Plan) -> None:
    lines = dockerfile.ignore(spec.image_spec(plan, plan["web"])).splitlines()
    assert lines[1:] == ["*", "!requirements.txt", "!wheels", "!tools", "!app"]


def test_another_style_has_another_name(plan: Plan) -> None:
    assert spec.image_spec(plan, plan["models"], "slim").image == plan["models"].image + "-slim"
    assert spec.image_spec(plan, plan["models"], "scratch").image == plan["models"].image


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    somebodys = Service("db", "postgres:17")
    with pytest.raises(BadProject, match="postgres:17 is not built here"):
        spec.image_spec(Plan("p", tmp_path, (somebodys,)), somebodys)
    model = PlannedModel("slow", "1", "0" * 64, tmp_path, "python", {})
    slow = Service("models", "p/models:1", Build("models", "slim", "3.11", trust=True), models=(model,))
    with pytest.raises(EstibaError, match="cannot use the style scratch"):
        spec.image_spec(Plan("p", tmp_path, (slow,)), slow, "scratch")
    assert "--trust" in spec.image_spec(Plan("p", tmp_path, (slow,)), slow).process.command


@pytest.mark.parametrize("name", ["models", "web"])
@pytest.mark.parametrize("style", ["slim", "scratch"])
def test_linters_find_nothing(plan: Plan, tmp_path: Path, name: str, style: str) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(render(plan, name, style))
    for command in (["hadolint", str(path)], ["trivy", "config", "--skip-check-update", "--exit-code", "1", str(path)]):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not here; scripts/lab/tools brings it")
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
