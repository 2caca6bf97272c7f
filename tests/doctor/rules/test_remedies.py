"""The remedy of a finding fits the image and the file that it is for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from estiba.doctor.examine import examine
from estiba.doctor.finding import Finding

HEALTHY = Path(__file__).parents[1] / "healthy"
TODAY = date(2026, 11, 21)
API = (HEALTHY / "api/Dockerfile").read_text()
COMMAND = 'CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8000"]\n'
WHOLE = "    restart: always\n    mem_limit: 1g\n"
SERVICE = f"services:\n  api:\n    build: .\n{WHOLE}"
PLAIN = 'USER 10001\nCMD ["python", "-m", "http.server"]\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HEALTHY / "api", tmp_path / "project"))


def only(project: Path, files: Mapping[str, str]) -> Finding:
    for name, text in files.items():
        (project / name).write_bytes(text.encode())
    findings = examine(project, TODAY).findings
    assert len(findings) == 1, [f"{one.code} {one.where} {one.message}" for one in findings]
    return findings[0]


@pytest.mark.parametrize(
    ("base", "fix"),
    [
        ("python:3.13-slim", "RUN useradd --system --uid 10001 app, and USER 10001."),
        ("python:3.13-alpine", "RUN adduser -S -D -H -u 10001 app, and USER 10001."),
        ("gcr.io/distroless/python3-debian12:debug", "Add before CMD: USER 10001."),
    ],
)
def test_a_user_that_the_base_image_can_make(project: Path, base: str, fix: str) -> None:
    finding = only(project, {"Dockerfile": f'FROM {base}\nCMD ["python", "-m", "http.server"]\n'})
    assert (finding.code, finding.fix.endswith(fix)) == ("root-user", True), finding.fix


def test_a_user_of_the_compose_file(project: Path) -> None:
    finding = only(project, {"compose.yaml": f"{SERVICE}    user: root\n"})
    assert (finding.code, finding.fix) == ("root-user", "Remove the line: the Dockerfile names USER 10001.")


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ("libpq-dev gcc", "the last stage still needs the library itself: libpq5."),
        ("git", "Fetch the sources in another stage"),
        ("gcc", "copy the virtual environment or the wheels from there."),
    ],
)
def test_headers_and_the_library_that_is_loaded(project: Path, packages: str, words: str) -> None:
    install = (
        f"RUN apt-get update && apt-get install -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*"
    )
    finding = only(project, {"Dockerfile": f"FROM python:3.12-slim\n{install}\n{PLAIN}"})
    assert (finding.code, words in finding.fix) == ("build-tools", True), finding


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("python:3.12-slim", "u.urlopen('http://localhost:8080/api/v2/heartbeat')"),
        ("debian:trixie-slim", "install it in the last stage"),
    ],
)
def test_a_health_check_keeps_its_address(project: Path, base: str, words: str) -> None:
    check = "HEALTHCHECK CMD curl -f http://localhost:8080/api/v2/heartbeat || exit 1"
    finding = only(project, {"Dockerfile": f'FROM {base}\n{check}\nUSER 10001\nCMD ["/opt/server"]\n'})
    assert (finding.code, words in finding.fix) == ("curl-missing", True), finding
    assert "/health'" not in finding.fix


def test_a_health_check_of_an_image_of_others(project: Path) -> None:
    check = "    healthcheck: {test: [CMD, curl, -f, 'http://localhost:5432']}\n"
    finding = only(project, {"compose.yaml": f"services:\n  db:\n    image: postgres:17\n{WHOLE}{check}"})
    assert "pg_isready" in finding.fix


def test_a_route_for_health_that_is_not_there_yet(project: Path) -> None:
    dockerfile = "".join(line for line in API.splitlines(True) if "HEALTHCHECK" not in line and "urlopen" not in line)
    assert only(project, {"Dockerfile": dockerfile}).fix.startswith("Add a HEALTHCHECK. Ask with Python")
    code = (project / "app/main.py").read_text()
    finding = only(project, {"app/main.py": code.replace("/health", "/predict")})
    assert finding.fix.startswith("Add a HEALTHCHECK, and a route for it to the program.")
    (project / "app/main.py").write_text(code.replace("/health", "/healthz"))
    assert ":8000/healthz'" in only(project, {}).fix


def test_a_shell_of_the_compose_file(project: Path) -> None:
    command = '    command: sh -c "python -m app.migrate && uvicorn app.main:app --host 0.0.0.0"\n'
    finding = only(project, {"compose.yaml": f"{SERVICE}{command}"})
    assert (finding.code, finding.where, finding.message.partition(" ")[0]) == (
        "shell-form",
        "compose.yaml:6",
        "`command`",
    )
    assert "init: true" in finding.fix
    assert "CMD" not in finding.fix


def test_a_build_argument_without_a_value(project: Path) -> None:
    finding = only(project, {"Dockerfile": API.replace("EXPOSE", "ARG AWS_SECRET_ACCESS_KEY\nEXPOSE")})
    assert finding.fix.endswith("if a build had it, replace it by a new one.")


def test_a_fault_of_an_anchor_is_told_once(project: Path) -> None:
    services = "".join(f"  {name}:\n    <<: *common\n    command: [{name}]\n" for name in ("web", "worker", "beat"))
    common = f"x-common: &common\n    image: acme/flow:1\n{WHOLE}    environment:\n      DB_PASSWORD: airflow\n"
    finding = only(
        project,
        {
            "compose.yaml": f"{common}      A_PASSWORD: admin\nservices:\n{services}".replace(
                "      DB_PASSWORD: airflow\n", ""
            )
        },
    )
    assert (
        finding.message
        == "web has the password `admin`, which an attacker tries first, in A_PASSWORD; also for worker and beat."
    )


def test_a_missing_model_is_told_once(project: Path) -> None:
    shutil.rmtree(project / "models")
    assert only(project, {}).where == "Dockerfile:10"


def test_an_entry_script_with_windows_line_ends(project: Path) -> None:
    script = "#!/bin/sh\r\nexec uvicorn app.main:app --host 0.0.0.0\r\n"
    dockerfile = API.replace(COMMAND, 'COPY run.sh ./\nENTRYPOINT ["./run.sh"]\n')
    finding = only(project, {"Dockerfile": dockerfile, "run.sh": script})
    assert (finding.code, finding.where) == ("windows-line-ends", "run.sh:1")
    assert "sed -i 's/\\r$//' run.sh" in finding.fix
    dockerfile = API.replace(COMMAND, 'COPY run.sh /usr/local/bin/\nENTRYPOINT ["tini", "--", "run.sh"]\n')
    assert only(project, {"Dockerfile": dockerfile}).code == "windows-line-ends"


def test_a_file_of_variables_that_is_missing(project: Path) -> None:
    finding = only(project, {"compose.yaml": f"{SERVICE}    env_file: [.env.app]\n"})
    assert (finding.code, finding.where) == ("compose-invalid", "compose.yaml:6")
    assert finding.message == "api reads `.env.app`, which does not exist, so Compose refuses it."
    assert "cp .env.app.example .env.app" in only(project, {".env.app.example": "A=\n"}).fix


def test_folders_of_any_depth_and_compose_files_below(project: Path) -> None:
    deep = project / "a/b/c/d/e"
    deep.mkdir(parents=True)
    (deep / "Dockerfile").write_text('FROM python:3.12-slim\nCMD ["python", "-m", "http.server"]\n')
    assert only(project, {}).where == "a/b/c/d/e/Dockerfile:1"
    (deep / "compose.yaml").write_text(SERVICE)
    report = examine(project, TODAY)
    assert (list(report.not_examined), report.findings[0].where) == (
        ["a/b/c/d/e/compose.yaml"],
        "a/b/c/d/e/Dockerfile:1",
    )


def test_the_password_of_a_database_is_told_once_with_its_copies(project: Path) -> None:
    stack = (
        f"services:\n  api:\n    image: acme/api:1\n{WHOLE}"
        "    environment: {DATABASE_URL: 'postgresql://app:postgres@db/app', AWS_ACCESS_KEY_ID: minio}\n"
        f"  db:\n    image: postgres:17\n{WHOLE}    environment: {{POSTGRES_PASSWORD: postgres}}\n"
    )
    finding = only(project, {"compose.yaml": stack})
    assert (finding.where, "; DATABASE_URL of api is the same." in finding.message) == ("compose.yaml:11", True), (
        finding
    )


def test_the_slim_image_of_a_release_of_debian(project: Path) -> None:
    finding = only(project, {"Dockerfile": f"FROM python:3.13-bookworm\n{PLAIN}"})
    assert "Run on python:3.13-slim-bookworm," in finding.fix


@pytest.mark.parametrize(
    ("command", "faulty"), [("yarn dev", True), ("npm run start", False), ("npx vite preview", False), ("vite", True)]
)
def test_a_server_for_development_of_node(project: Path, command: str, faulty: bool) -> None:
    stack = f"services:\n  web:\n    image: node:22-slim\n{WHOLE}    command: {command}\n"
    (project / "compose.yaml").write_text(stack)
    assert [one.code for one in examine(project, TODAY).findings] == ["development-server"] * faulty


def test_a_cache_of_apt_is_not_in_the_image(project: Path) -> None:
    install = "RUN --mount=type=cache,target=/var/lib/apt apt-get update && apt-get install -y libgomp1"
    (project / "Dockerfile").write_text(f"FROM python:3.12-slim\n{install}\n{PLAIN}")
    assert examine(project, TODAY).findings == []


@pytest.mark.parametrize(
    ("path", "words"),
    [("/wheels", "with pip wheel, --wheel-dir /wheels;"), ("/site.conf", "with a RUN or COPY of that")],
)
def test_a_file_that_no_stage_makes(project: Path, path: str, words: str) -> None:
    build = "FROM python:3.12-slim AS build\nWORKDIR /app\nRUN pip install numpy==2.1.0 --no-cache-dir\n\n"
    copy = f"COPY --from=build {path} /srv/copied\nUSER "
    finding = only(project, {"Dockerfile": build + API.replace("USER ", copy, 1)})
    assert finding.code == "copy-missing"
    assert words in finding.fix
