"""Pipelines for GitHub and GitLab: held to the schemas of their hosts, and to the real command line."""

from __future__ import annotations

import hashlib
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
from estiba.core.errors import BadProject
from estiba.deploy.image import wheels
from estiba.deploy.image.slim import trim_packages
from estiba.deploy.output import ci_pipelines
from estiba.deploy.output.ci_pipelines import CiOptions, Installed, Pipeline

WHEEL = ci_pipelines.vendored("vendor/estiba-0.1.0-py3-none-any.whl", b"wheel")
COMMIT = "git+https://github.com/acme/estiba@" + "0123456789" * 4
WHOLE = Pipeline("shop", "3.12", WHEEL, ("iris",), "ghcr.io/acme/shop", "compose", "requirements.txt", "tests")
GIT = Installed(f"estiba[train,deploy] @ {COMMIT}")
BARE = Pipeline("shop", "3.11", GIT, (), "ghcr.io/acme/shop", "kubernetes")
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


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_is_installed_by_the_name_of_estiba_alone(host: str) -> None:
    """The name is free on the public index, so whoever registers it would run code in the pipeline."""
    for pipeline in (WHOLE, BARE):
        named = [line for line in commands(pipeline, host) if re.search(r"pip install.*estiba", line)]
        assert named
        for line in named:
            assert re.search(
                r"'(\./vendor/\S+\.whl\[train,deploy\]|estiba\[train,deploy\] @ git\+https://\S+)'", line
            ), line
    digest = hashlib.sha256(b"wheel").hexdigest()
    check = f"echo '{digest}  vendor/estiba-0.1.0-py3-none-any.whl' | sha256sum --check --strict"
    assert check in commands(WHOLE, host)


@pytest.mark.parametrize("host", HOSTS)
def test_every_program_and_action_is_named_by_its_digest(host: str) -> None:
    text = ci_pipelines.render(WHOLE, host)
    assert "sudo" not in text
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) for name in re.findall(r"uses: (\S+)", text))
    downloads = re.findall(r"--output (\S+) https://", text)
    assert len(downloads) == 2
    for name in downloads:
        assert re.search(rf"[0-9a-f]{{64}}  {re.escape(name)}\b", text), name


@pytest.mark.parametrize("host", HOSTS)
def test_the_deployment_logs_in_and_keeps_what_a_checkout_removes_elsewhere(host: str) -> None:
    job = yaml.safe_load(ci_pipelines.render(WHOLE, host))["jobs" if host == "github" else "deploy"]
    steps = [step.get("run", "") for step in job["deploy"]["steps"]] if host == "github" else job["script"]
    login, kept, deploy = (
        next(n for n, line in enumerate(steps) if word in line)
        for word in ("docker login", "SECRETS=", "estiba deploy")
    )
    assert login < kept < deploy
    assert '--output "$HOME/estiba/shop/compose"' in steps[deploy]
    assert "$HOME/estiba/shop/secrets" in steps[kept]


def test_the_wheel_of_this_estiba_is_put_into_the_project_and_installs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "estiba.toml").write_text(PROJECT)
    assert run(["ci", "github", "-C", str(tmp_path)]) == 0
    (wheel,) = (tmp_path / "vendor").glob("estiba-*.whl")
    assert f"wrote {wheel}" in capsys.readouterr().out
    workflow = (tmp_path / ".github/workflows/estiba.yml").read_text()
    (line,) = set(re.findall(r"echo '([0-9a-f]{64}  vendor/\S+)'", workflow))
    assert subprocess.run(["sha256sum", "--check", "--strict"], input=line, cwd=tmp_path, text=True).returncode == 0
    assert f"pip install './vendor/{wheel.name}[train,deploy]'" in workflow
    assert run(["ci", "github", "-C", str(tmp_path), "--print"]) == 0
    assert capsys.readouterr().out == workflow  # equal files give an equal wheel


@pytest.mark.slow
def test_the_vendored_wheel_runs_in_an_empty_environment(tmp_path: Path) -> None:
    wheel = wheels.own(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    options = ["--quiet", "--no-deps", "--no-index"]
    subprocess.run([python, "-m", "pip", "install", *options, f"{wheel}[train]"], check=True)
    libraries = {"PYTHONPATH": ":".join(path for path in sys.path if path.endswith("site-packages"))}
    shown = [python.with_name("estiba"), "version", "--json"]
    done = subprocess.run(shown, capture_output=True, text=True, env=libraries)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "place",
    [
        "estiba",
        "estiba==0.1.0",
        "git+https://github.com/acme/estiba@main",
        "https://a.org/estiba-0.1.0-py3-none-any.whl",
    ],
)
def test_what_could_change_is_no_place_to_install_from(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "estiba.toml").write_text(f'{PROJECT}\n[ci]\nestiba = "{place}"\n')
    assert run(["ci", "github", "-C", str(tmp_path)]) == 2
    assert "ci.estiba" in capsys.readouterr().err


def test_a_wheel_or_a_commit_that_the_project_names_is_installed(tmp_path: Path) -> None:
    (tmp_path / "estiba.whl").write_bytes(b"wheel")
    found = ci_pipelines.installed(tmp_path, CiOptions(estiba="estiba.whl"))
    assert found == ci_pipelines.vendored("estiba.whl", b"wheel")
    assert ci_pipelines.installed(tmp_path, CiOptions(estiba=COMMIT)) == GIT
    with pytest.raises(BadProject, match=r"there is no other\.whl"):
        ci_pipelines.installed(tmp_path, CiOptions(estiba="other.whl"))


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("template", ["iris", "e2e"])
def test_a_fresh_project_passes_the_linter_of_its_pipeline(template: str, language: str, tmp_path: Path) -> None:
    assert run(["init", str(tmp_path / "fresh"), "--template", template, "--lang", language]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "."],
        cwd=tmp_path / "fresh",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_runner_that_deploys_needs_no_root_and_no_package_of_the_system() -> None:
    """It is the machine that is deployed to: its shell has no apt-get, and pip may not write outside of `.venv`."""
    for pipeline in (WHOLE, BARE):
        jobs = yaml.safe_load(ci_pipelines.render(pipeline, "gitlab"))
        assert "default" not in jobs
        for name in ("check", "images") if pipeline is BARE else ():
            assert any("apt-get" in line for line in jobs[jobs[name]["extends"]]["before_script"])
        deploy = jobs["deploy"]
        assert not {"image", "extends"} & set(deploy)
        lines = [*deploy["before_script"], *deploy["script"]]
        assert not [line for line in lines if "apt-get" in line]
        assert lines[:2] == [f"python{pipeline.python} -m venv .venv", ". .venv/bin/activate"]
        assert any(line.startswith("pip install '") and "estiba" in line for line in lines)
