"""Pipelines for GitHub and GitLab: held to the schemas of their hosts, and to the real command line."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from estiba.cli.main import cli, run
from estiba.deploy.image import wheels
from estiba.deploy.image.slim import trim_packages
from estiba.deploy.output import ci_pipelines
from estiba.deploy.output.ci_pipelines import Pipeline

WHOLE = Pipeline("3.12", "0.1.0", ("iris",), "ghcr.io/acme/shop", "compose", "requirements.txt", "tests")
BARE = Pipeline("3.11", "0.1.0", (), "ghcr.io/acme/shop", "kubernetes")
HOSTS = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}

PROJECT = """
[project]
name = "shop"
[images]
repository = "ghcr.io/acme/shop"
"""


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("pipeline", [WHOLE, BARE], ids=["whole", "bare"])
def test_the_file_is_what_the_schema_of_its_host_says(pipeline: Pipeline, host: str, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yml"
    file.write_text(ci_pipelines.render(pipeline, host))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", HOSTS[host], str(file)]
    if host == "gitlab":
        check[3:3] = ["--data-transform", "gitlab-ci"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("host", HOSTS)
def test_a_template_is_yaml_by_itself_and_no_placeholder_is_left(host: str) -> None:
    template = (ci_pipelines.TEMPLATES / f"{host}.yml").read_text()
    assert yaml.safe_load(template)
    assert "__MODEL__" in template
    for pipeline in (WHOLE, BARE):
        assert not re.search("__[A-Z]+__", ci_pipelines.render(pipeline, host))


def test_a_line_is_repeated_for_each_value_of_its_placeholder() -> None:
    several = commands(replace(BARE, models=("iris", "churn")), "gitlab")
    assert [line for line in several if line.startswith("estiba verify")] == [
        "estiba verify iris",
        "estiba verify churn",
    ]
    assert not [line for line in commands(BARE, "gitlab") if line.startswith(("estiba verify", "pytest"))]


def test_estibas_own_wheel_has_the_templates_and_an_image_that_serves_leaves_them_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheels.own(tmp_path)) as wheel:
        templates = [name for name in wheel.namelist() if "ci_templates/" in name]
    assert sorted(Path(name).name for name in templates) == ["github.yml", "gitlab.yml"]
    assert all(trim_packages.reason(name, "server") for name in templates)


def commands(pipeline: Pipeline, host: str) -> list[str]:
    """Every command that a pipeline runs."""

    def inside(value: Any) -> list[str]:
        if isinstance(value, dict):
            runs = [value["run"]] if isinstance(value.get("run"), str) else []
            return runs + [found for inner in value.values() for found in inside(inner)]
        if isinstance(value, list):
            return [found for inner in value for found in ([inner] if isinstance(inner, str) else inside(inner))]
        return []

    return inside(yaml.safe_load(ci_pipelines.render(pipeline, host)))


@pytest.mark.parametrize("host", HOSTS)
def test_each_command_of_estiba_is_one_that_there_is(host: str) -> None:
    for pipeline in (WHOLE, BARE):
        for line in commands(pipeline, host):
            if not line.startswith("estiba "):
                continue
            words = re.sub(r" > \S+$", "", line).split()[1:]
            command = cli.get_command(click.Context(cli), words[0])  # type: ignore[attr-defined]
            assert command is not None, line
            command.make_context(words[0], words[1:])


@pytest.mark.parametrize("host", HOSTS)
def test_it_lints_tests_builds_scans_signs_and_deploys(host: str) -> None:
    text = "\n".join(commands(WHOLE, host))
    for each in (
        "ruff check",
        "pytest tests",
        "estiba verify iris",
        "estiba build --push",
        "estiba scan",
        "cosign sign",
    ):
        assert each in text
    assert "estiba deploy compose --yes" in text
    assert "estiba deploy kubernetes production --yes" in "\n".join(commands(BARE, host))


def test_nothing_but_the_job_that_signs_may_write(tmp_path: Path) -> None:
    workflow = yaml.safe_load(ci_pipelines.render(WHOLE, "github"))
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in workflow["jobs"].items() if "permissions" in job] == ["images"]


def test_it_is_written_once_and_then_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "estiba.toml").write_text(PROJECT)
    assert run(["ci", "github", "-C", str(tmp_path)]) == 0
    file = tmp_path / ".github" / "workflows" / "estiba.yml"
    file.write_text("mine")
    assert run(["ci", "github", "-C", str(tmp_path)]) != 0
    assert "exists already" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert run(["ci", "github", "-C", str(tmp_path), "--force"]) == 0
    assert yaml.safe_load(file.read_text())["name"] == "estiba"


@pytest.mark.parametrize("settings", ["", '[images]\nrepository = "acme/shop"\n'])
def test_without_a_registry_there_is_nowhere_to_push_to(
    settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "estiba.toml").write_text(f'[project]\nname = "shop"\n{settings}')
    assert run(["ci", "gitlab", "-C", str(tmp_path)]) == 2
    assert "images.repository" in capsys.readouterr().err
