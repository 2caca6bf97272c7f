"""The version of scikit-learn that wrote a pickle, against that which an image installs."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from estiba.doctor.examine import examine
from estiba.doctor.finding import Finding

HEALTHY = Path(__file__).parents[1] / "healthy"
TODAY = date(2026, 11, 21)
SKLEARN_1_6_1 = b"\x80\x04\x8c\x0fsklearn.linear\x94\x8c\x10_sklearn_version\x94\x8c\x051.6.1\x94u."


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = Path(shutil.copytree(HEALTHY / "api", tmp_path / "project"))
    (project / "models/model.joblib").write_bytes(SKLEARN_1_6_1)
    return project


def versions(project: Path) -> list[Finding]:
    return [one for one in examine(project, TODAY).findings if one.code == "pickle-version"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("scikit-learn", "`scikit-learn` probably installs another version"),
        ("scikit-learn>=1.2", "`scikit-learn>=1.2` probably installs another version"),
        ("scikit-learn<2", "probably installs another version"),
        ("scikit-learn>=1.7", "does not allow"),
        ("scikit-learn==1.5.0", "1.5.0 is installed to read it"),
        ("scikit-learn==1.6.0", ""),
        ("scikit-learn>=1.6,<1.7", ""),
        ("scikit-learn\n-c constraints.txt", ""),
    ],
)
def test_the_version_of_a_requirements_file(project: Path, line: str, words: str) -> None:
    text = (project / "requirements.txt").read_text().replace("scikit-learn==1.6.1", line)
    (project / "requirements.txt").write_text(text)
    findings = versions(project)
    assert [words in one.message for one in findings] == ([True] if words else [])
    assert all((one.where, "scikit-learn==1.6.1" in one.fix) == ("requirements.txt:3", True) for one in findings)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("pip install --no-cache-dir fastapi uvicorn scikit-learn", "probably installs another version"),
        ("uv pip install --system scikit-learn", "probably installs another version"),
        ("pip install --no-cache-dir 'scikit-learn==1.5.0'", "1.5.0 is installed to read it"),
        ("pip install --no-cache-dir scikit-learn==1.6.1", ""),
        ("pip install --no-cache-dir -c constraints.txt scikit-learn", ""),
    ],
)
def test_the_version_of_a_command(project: Path, command: str, words: str) -> None:
    (project / "requirements.txt").unlink()
    (project / "Dockerfile").write_text(
        f"FROM python:3.12-slim\nWORKDIR /app\nCOPY app/ app/\nCOPY models/ models/\nRUN {command}\nUSER 10001\n"
        'CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0"]\n'
    )
    findings = versions(project)
    assert [words in one.message for one in findings] == ([True] if words else [])
    assert all(one.where == "Dockerfile:5" for one in findings)


def test_a_model_in_a_mounted_folder_is_read_too(project: Path) -> None:
    dockerfile = (project / "Dockerfile").read_text().replace("COPY models/ models/\n", "")
    (project / "Dockerfile").write_text(dockerfile)
    (project / "app/main.py").write_text("from fastapi import FastAPI\n\napp = FastAPI()\n")
    requirements = (project / "requirements.txt").read_text().replace("1.6.1", "1.5.0")
    (project / "requirements.txt").write_text(requirements)
    assert versions(project) == []
    (project / "compose.yaml").write_text("services:\n  api:\n    build: .\n    volumes: ['./models:/models:ro']\n")
    assert len(versions(project)) == 1
