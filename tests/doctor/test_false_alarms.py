"""Healthy projects with a few files that look faulty and are not: the doctor reports nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from estiba.doctor.examine import examine

HEALTHY = Path(__file__).parent / "healthy"
TODAY = date(2026, 11, 21)

API = (HEALTHY / "api/Dockerfile").read_text()
COMMAND = 'CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000"]\n'
REQUIREMENTS = (HEALTHY / "api/requirements.txt").read_text()
HEALTH = "HEALTHCHECK --interval=10s"
SKLEARN_1_6_1 = b"\x80\x04\x8c\x0fsklearn.linear\x94\x8c\x10_sklearn_version\x94\x8c\x051.6.1\x94u."
WHOLE = "    restart: always\n    mem_limit: 1g\n"

assert COMMAND in API


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HEALTHY / "api", tmp_path / "project"))


def write(project: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def found(folder: Path) -> list[str]:
    return [f"{one.code} {one.where}: {one.message}" for one in examine(folder, TODAY).findings]


def started_by(command: str) -> str:
    return API.replace(COMMAND, command)


CASES: dict[str, dict[str, str | bytes]] = {
    "a module whose name ends like a model": {
        "Dockerfile": started_by('ENTRYPOINT ["python", "-m", "app.model"]\nCMD ["--port", "8000"]\n'),
        "app/model.py": "",
    },
    "a module of a task queue": {
        "Dockerfile": started_by('CMD ["celery", "-A", "app.model", "worker"]\n'),
        "app/model.py": "",
    },
    "notes and templates beside the Dockerfile": {
        "Dockerfile.md": "# Notes about the image\n\nThis file explains it.\n",
        "Dockerfile.j2": "FROM {{ base }}\n",
        "{{cookiecutter.name}}/Dockerfile": "FROM python:3.12-slim\n{% if a.worker %}\nUSER app\n{% endif %}\n",
    },
    "a comment behind ARG": {"Dockerfile": f"ARG A=1 # a note\n{API}"},
    "an entry point that waits for its arguments": {
        "Dockerfile": started_by('ENTRYPOINT ["uvicorn", "app.main:app"]\n')
    },
    "arguments of a script that expands them": {
        "Dockerfile": started_by('ENTRYPOINT ["/app/start.sh"]\nCMD ["--port ${PORT} --host 0.0.0.0"]\n'),
    },
    "curl in an image on Alpine of others": {
        "compose.yaml": f"services:\n  web:\n    image: nginx:1.29-alpine\n{WHOLE}"
        "    healthcheck: {test: [CMD, curl, -f, 'http://localhost:8081/']}\n",
    },
    "a pickle that nothing copies or loads": {
        "notebooks/old.pkl": SKLEARN_1_6_1.replace(b"1.6.1", b"1.2.2"),
    },
    "a template beside another image's folder": {
        "docs/templates/Dockerfile": "FROM python:3.12-slim\nCOPY src/ src/\nCOPY data/ data/\nUSER 10001\n"
        'CMD ["python", "-m", "http.server"]\n',
        "other/Dockerfile": 'FROM python:3.12-slim\nUSER 10001\nCMD ["python", "-m", "http.server"]\n',
        "other/src/a.py": "",
        "other/data/a.csv": "",
        "other/.dockerignore": "data\n",
    },
    "values of options of uv": {
        "Dockerfile": API.replace(
            "WORKDIR /app\n",
            "RUN uv pip install --index-strategy unsafe-best-match --python-preference system numpy==2.1.0\n"
            "RUN uv pip install -r <(uv export --frozen)\nWORKDIR /app\n",
        ),
    },
    "a pickle of the version that is pinned by a range": {
        "models/model.joblib": SKLEARN_1_6_1,
        "requirements.txt": REQUIREMENTS.replace("scikit-learn==1.6.1", "scikit-learn~=1.6.1"),
    },
}


@pytest.mark.parametrize("case", CASES)
def test_a_healthy_project_shows_nothing(project: Path, case: str) -> None:
    write(project, CASES[case])
    assert found(project) == []


def test_a_link_to_a_dockerfile_is_the_same_file(project: Path) -> None:
    (project / "Dockerfile").write_text(API.replace("USER 10001\n", ""))
    (project / "Containerfile").symlink_to("Dockerfile")
    assert len(found(project)) == 1


def test_a_file_that_the_gitignore_of_its_folder_names_is_made_before_the_build(project: Path) -> None:
    write(project, {"agent/.gitignore": "# built\n*.jar\n", "Dockerfile": f"{API}COPY agent/agent.jar /agent/\n"})
    (message,) = found(project)
    assert "agent/.gitignore:2 expects that" in message
    (project / "agent/.gitignore").unlink()
    (project / ".git").mkdir()
    (project.parent / ".gitignore").write_text("agent.jar\n")  # above the repository
    assert "expects that" not in found(project)[0]
    (project / ".git").rename(project.parent / ".git")
    assert "../.gitignore:1 expects that" in found(project)[0]
