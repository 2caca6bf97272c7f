"""Healthy projects with a few files that look faulty and are not: the doctor reports nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from estiba.doctor.examine import examine

HEALTHY = Path(__file__).parents[1] / "healthy"
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
    "a file that somebody's base image brings": {
        "Dockerfile": "FROM example/node-frontend:10 AS build\nWORKDIR /app\nCOPY requirements.txt .\n\n"
        + API.replace("USER ", "COPY --from=build /nginx.conf /srv/nginx.conf\nUSER ", 1),
    },
    "a module of a task queue": {
        "Dockerfile": started_by('CMD ["celery", "-A", "app.model", "worker"]\n'),
        "app/model.py": "",
    },
    "notes and templates beside the Dockerfile": {
        "Dockerfile.md": "# Notes about the image\n\nThis file explains it.\n",
        "app/dockerfile.py": "def render() -> str: ...\n",
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
        "docs/templates/Dockerfile": "FROM python:3.12-slim\nWORKDIR /app\nCOPY src/ data/ ./\nUSER 10001\n"
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
    "an image that is built beside its other user": {
        "compose.yaml": f"services:\n  api:\n    build: .\n    image: shop-api:latest\n{WHOLE}"
        f"  worker:\n    image: shop-api\n    command: [python, -m, app.work]\n{WHOLE}",
    },
    "a binding for the driver of a GPU": {"requirements.txt": f"{REQUIREMENTS}nvidia-ml-py==12.560.30\n"},
    "a tool that the base image runs": {
        "Dockerfile": "FROM locustio/locust:2.32.4\nCOPY requirements.txt .\n"
        "RUN pip install --no-cache-dir -r requirements.txt\nUSER locust\n",
        "requirements.txt": "locust==2.32.4\n",
    },
    "a tool that a script runs": {
        "Dockerfile": started_by('COPY start.sh ./\nCMD ["./start.sh"]\n'),
        "requirements.txt": f"{REQUIREMENTS}jupyterlab==4.3.4\n",
        "start.sh": "#!/bin/sh\nexec jupyter lab --ip 0.0.0.0\n",
    },
    "a folder of data over its copy": {
        "Dockerfile": API.replace("USER 10001", "COPY data/ data/\nUSER 10001"),
        "data/__init__.py": "",
        "data/x.csv": "a\n1\n",
        "compose.yaml": f"services:\n  api:\n    build: .\n{WHOLE}    volumes: ['./data:/app/data:ro']\n",
    },
    "a job that ends": {
        "compose.yaml": "services:\n  buckets:\n    image: minio/mc:RELEASE.2025-01-17T23-25-50Z\n    mem_limit: 64m\n"
        '    entrypoint: ["/bin/sh", "-c", "mc alias set s http://s:9000 a b; mc mb s/models; exit 0;"]\n'
        "  schema:\n    image: acme/api:1\n    mem_limit: 64m\n    command: alembic upgrade head\n",
    },
    "a function of Lambda": {
        "Dockerfile": "FROM public.ecr.aws/lambda/python:3.12\nCOPY app/ ${LAMBDA_TASK_ROOT}/app/\n"
        'CMD ["app.main.handler"]\n',
    },
    "placeholders of secrets": {
        "compose.yaml": f"services:\n  api:\n    build: .\n{WHOLE}"
        "    environment: {API_KEY: '<PUT_YOUR_KEY_HERE>', HF_TOKEN: your-token-here}\n",
        "Dockerfile": API.replace("EXPOSE", "ENV OTHER_TOKEN=<TOKEN>\nEXPOSE"),
    },
    "an image for Windows": {
        "Dockerfile.windows": "# escape=`\nFROM python:3.11.9-windowsservercore-ltsc2022\n"
        'SHELL ["powershell", "-Command"]\nWORKDIR C:/app\nCMD python -m http.server\n',
    },
    "an entry script that is converted in the build": {
        "Dockerfile": API.replace("USER 10001", "COPY run.sh ./\nRUN sed -i 's/\\r$//' run.sh\nUSER 10001").replace(
            COMMAND, 'CMD ["./run.sh"]\n'
        ),
        "run.sh": "#!/bin/sh\r\nexec true\r\n",
    },
    "files of variables that exist or may be missing": {
        "compose.yaml": f"services:\n  api:\n    build: .\n{WHOLE}"
        "    env_file: [settings.env, {path: local.env, required: false}]\n",
        "settings.env": "A=1\n",
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
