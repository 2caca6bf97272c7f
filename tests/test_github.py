"""Workflows and issue forms of this repository are valid, and the commands that they run exist."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = {"bug.yml": "github-issue-forms", "feature.yml": "github-issue-forms", "config.yml": "github-issue-config"}
SCHEMAS = {path: "github-workflows" for path in WORKFLOWS} | {
    ROOT / ".github/ISSUE_TEMPLATE" / name: schema for name, schema in FORMS.items()
}


@pytest.mark.slow
@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_file_agrees_with_its_schema(path: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{SCHEMAS[path]}", str(path)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_form_has_a_schema() -> None:
    assert {path.name for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir()} == set(FORMS)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_with_its_version_beside_it(path: Path) -> None:
    uses = re.findall(r"uses: (.*)", path.read_text())
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


def test_workflows_run_what_people_run() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    assert "make PYTHON=python check" in text
    assert "run: .ci/run" in text
    assert re.search(r"^check:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_checks_run_on_every_python_that_is_promised() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    tested = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/check.yml").read_text())
    assert tested is not None
    assert re.findall(r'"([\d.]+)"', tested[1]) == promised


def test_only_jobs_that_run_no_code_of_the_project_have_an_identity() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["attest", "publish"]
    for name in ("attest", "publish"):
        assert not [step for step in jobs[name]["steps"] if "checkout" in step.get("uses", "")]


@pytest.mark.slow
def test_the_wheel_of_a_release_has_the_package_and_its_kernel(tmp_path: Path) -> None:
    """By the two commands of the workflow that build it."""
    uv = [str(Path(sys.executable).with_name("uv")), "build", "--quiet", "--out-dir", str(tmp_path)]
    subprocess.run([*uv, "--sdist"], cwd=ROOT, check=True)
    (source,) = tmp_path.glob("*.tar.gz")
    subprocess.run([*uv, "--wheel", str(source)], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "estiba/deploy/output/ci_templates/github.yml" in names
    assert "estiba/model/_kernel.abi3.so" in names
