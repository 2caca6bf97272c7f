"""Every broken project shows its fault first, and healthy ones show nothing.

Each folder of `broken/` lists in expected.txt the codes of all findings, in order; most have one fault.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import joblib
import msgspec
import pytest

from estiba.cli.main import run
from estiba.doctor.catalogue import ordered
from estiba.doctor.examine import Report, examine
from estiba.doctor.finding import Location, listed
from estiba.doctor.rules.dockerfile import TrailingComment

HERE = Path(__file__).parent
BROKEN = sorted(path for path in (HERE / "broken").iterdir())
HEALTHY = sorted(path for path in (HERE / "healthy").iterdir())
TODAY = date(2026, 11, 21)


def codes(report: Report) -> list[str]:
    return [found.code for found in report.findings]


def expected(folder: Path) -> list[str]:
    return (folder / "expected.txt").read_text().split()


@pytest.mark.parametrize("folder", [f for f in BROKEN if f.name != "project-file"], ids=lambda folder: folder.name)
def test_a_broken_project_shows_its_fault_first(folder: Path) -> None:
    report = examine(folder, TODAY)
    assert codes(report) == expected(folder), [f"{f.where} {f.message}" for f in report.findings]


@pytest.mark.parametrize("folder", HEALTHY, ids=lambda folder: folder.name)
def test_a_healthy_project_shows_nothing(folder: Path) -> None:
    report = examine(folder, TODAY)
    assert report.findings == []
    assert report.looked_at


@pytest.mark.parametrize("folder", BROKEN, ids=lambda folder: folder.name)
def test_a_finding_has_evidence_and_a_remedy(folder: Path) -> None:
    for found in examine(folder, TODAY).findings:
        lines = (folder / found.file).read_text().splitlines()
        assert 0 <= found.line <= len(lines)
        assert found.message.endswith(".")
        assert found.fix.endswith((".", "?")) or "COPY" in found.fix or "HEALTHCHECK" in found.fix or '"]' in found.fix
        assert len(found.message) < 220


@pytest.mark.parametrize(
    ("project", "where", "words"),
    [
        ("comment-after-backslash", "Dockerfile:6", "ends the instruction"),
        ("copy-shell", "Dockerfile:10", "`2>/dev/null`"),
        ("build-tools", "Dockerfile:8", "build-essential stays"),
        ("model-ignored", "app/main.py:5", ".dockerignore:2 keeps `models/model.joblib` out"),
        ("model-elsewhere", "app/main.py:5", "`models/model.joblib` is at `/app/artifacts/model.joblib`"),
        ("secret-file-copied", "Dockerfile:10", "the DATABASE_PASSWORD in its line 2"),
        ("health-port", "Dockerfile:15", "asks port 8080, but uvicorn listens on 8000"),
        ("port-mismatch", "compose.yaml:5", "listens on 8000"),
        ("loopback-in-code", "app/main.py:15", "127.0.0.1"),
        ("threads-over-cpus", "compose.yaml:8", "8 threads"),
        ("cuda-torch", "requirements.txt:5", "2.5 GB"),
        ("dockerignore-gaps", ".dockerignore", "1 notebook"),
    ],
)
def test_the_evidence_is_the_right_line(project: str, where: str, words: str) -> None:
    first = examine(HERE / "broken" / project, TODAY).findings[0]
    assert (first.where, words in first.message) == (where, True), first


def test_a_file_alone_is_examined_with_the_folder_around_it() -> None:
    assert codes(examine(HERE / "broken" / "root-user" / "Dockerfile", TODAY)) == ["root-user"]
    assert codes(examine(HERE / "broken" / "no-restart" / "compose.yaml", TODAY)) == ["no-restart"]


def test_a_base_that_is_looked_after_today_is_not_in_ten_years() -> None:
    healthy = HERE / "healthy" / "api"
    assert codes(examine(healthy, date(2036, 1, 1))) == ["base-end-of-life"]


def changed(folder: Path, file: str, change: Callable[[str], str]) -> None:
    (folder / file).write_text(change((folder / file).read_text()))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of a healthy project, to be spoilt."""
    return Path(shutil.copytree(HERE / "healthy" / "api", tmp_path / "project"))


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("xz", 1), ("bz2", 1), ("lzma", 1)])
def test_a_model_of_another_scikit_learn(project: Path, compress: int | tuple[str, int]) -> None:
    import sklearn
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(3, random_state=0).fit([[0], [1]], [0, 1])
    joblib.dump(model, project / "models/model.joblib", compress=compress)
    first = examine(project, TODAY).findings[0]
    assert (first.code, first.where) == ("pickle-version", "requirements.txt:3")
    assert f"by scikit-learn {sklearn.__version__}" in first.message
    changed(project, "requirements.txt", lambda text: text.replace("1.6.1", sklearn.__version__))
    assert examine(project, TODAY).findings == []


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_of_any_protocol_and_a_range(project: Path, protocol: int) -> None:
    import pickle

    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit([[0], [1]], [0, 1])
    (project / "models/model.pkl").write_bytes(pickle.dumps(model, protocol=protocol))
    changed(project, "requirements.txt", lambda text: text.replace("scikit-learn==1.6.1", "scikit-learn~=1.2.0"))
    assert codes(examine(project, TODAY)) == ["pickle-version"]


def test_a_model_of_a_newer_numpy(project: Path) -> None:
    import numpy as np

    joblib.dump({"mean": np.float64(1.5)}, project / "models/model.joblib")
    changed(project, "requirements.txt", lambda text: text + "numpy==1.26.4\n")
    assert "NumPy 2" in examine(project, TODAY).findings[0].message


def test_a_model_that_needs_what_is_not_installed(project: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    joblib.dump(LogisticRegression().fit([[0], [1]], [0, 1]), project / "models/model.joblib")
    changed(project, "requirements.txt", lambda text: re.sub("scikit-learn.*\n", "", text))
    assert codes(examine(project, TODAY)) == ["module-missing"]


def test_reading_a_pickle_runs_nothing_of_it(project: Path, tmp_path: Path) -> None:
    import pickle

    class Bad:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (tmp_path / "it-ran",)

    (project / "models/model.joblib").write_bytes(pickle.dumps([Bad(), "_sklearn_version", "1.0.2"]))
    assert codes(examine(project, TODAY)) == ["pickle-version"]
    assert not (tmp_path / "it-ran").exists()


def test_a_file_that_only_root_may_read(project: Path) -> None:
    (project / "models/model.joblib").chmod(0o600)
    first = examine(project, TODAY).findings[0]
    assert (first.code, first.where) == ("permission-denied", "Dockerfile:10")
    assert "-rw-------" in first.message


def test_what_a_folder_without_a_dockerfile_holds(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("flask\n")
    assert codes(examine(tmp_path, TODAY)) == ["unpinned-requirements"]


def test_the_size_of_data_is_measured(project: Path) -> None:
    (project / "data").mkdir()
    (project / "data/rows.csv").write_bytes(b"1,2\n" * 3_000_000)
    (project / ".dockerignore").write_text(".git\n")
    changed(project, "Dockerfile", lambda text: text.replace("COPY app/ app/", "COPY . ."))
    assert "12 MB of data" in examine(project, TODAY).findings[0].message


def test_what_estiba_keeps_is_one_thing(project: Path) -> None:
    (project / ".estiba/registry").mkdir(parents=True)
    shutil.copy(project / "models/model.joblib", project / ".estiba/registry")
    (project / ".dockerignore").write_text(".git\n")
    changed(project, "Dockerfile", lambda text: text.replace("COPY app/ app/", "COPY . ."))
    found = examine(project, TODAY)
    assert "does not keep `.estiba` out" in found.findings[0].message
    assert not [name for name in found.looked_at if name.startswith(".estiba")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("RUN pip install --no-cache-dir mine@https://me:hunter2x@example.org/mine.whl", "secret-in-layer"),
        ("COPY --chmod=0400 server.pem /etc/", "secret-in-layer"),
        ("COPY id_ed25519 /root/.ssh/", "secret-in-layer"),
        ("COPY --from=biuld /opt/venv /opt/venv", "copy-missing"),
        ("RUN pip install --no-cache-dir torch==2.5.1 pandas", "unpinned-requirements"),
        ("USER root", "root-user"),
        ("ENV FLASK_DEBUG=1 SECRET_KEY=''", ""),
        ("ENV API_KEY=$SOMETHING TOKEN_URL=https://example.org/token", ""),
        ("ENV DB_PASSWORD_FILE=/run/secrets/db MAX_TOKENS=512", ""),
        ("RUN apt update && apt install -y gcc && make && apt purge -y gcc && rm -rf /var/lib/apt/lists/*", ""),
    ],
)
def test_a_line_more(project: Path, line: str, code: str) -> None:
    (project / "server.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (project / "id_ed25519").write_text("a key\n")
    changed(project, "Dockerfile", lambda text: text.replace("EXPOSE 8000", f"{line}\nEXPOSE 8000"))
    assert [one for one in codes(examine(project, TODAY)) if one == (code or one)] == ([code] if code else [])


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("command: jupyter lab --ip=0.0.0.0 --ServerApp.token=''", "default-password"),
        ("environment: {POSTGRES_HOST_AUTH_METHOD: trust}", "default-password"),
        ("environment: {DATABASE_URL: 'postgresql://app:${SECRET}@db/app'}", ""),
        ("environment: {ADMIN_PASSWORD: '${ADMIN_PASSWORD:-admin}'}", "default-password"),
        ("gpus: all", ""),
        ("network_mode: host", ""),
    ],
)
def test_a_line_more_in_the_compose_file(tmp_path: Path, lines: str, code: str) -> None:
    stack = f"services:\n  one:\n    image: a/b:1\n    restart: always\n    mem_limit: 1g\n    {lines}\n"
    (tmp_path / "compose.yaml").write_text(stack)
    assert codes(examine(tmp_path, TODAY)) == ([code] if code else [])


def test_a_file_that_something_makes_before_the_build(project: Path) -> None:
    (project / ".gitignore").write_text("models/\n")
    shutil.rmtree(project / "models")
    first = examine(project, TODAY).findings[0]
    assert (first.code, ".gitignore:1 expects that" in first.message) == ("model-missing", True)


def test_a_dockerfile_kept_apart_from_the_code(project: Path) -> None:
    (project / "docker").mkdir()
    (project / "Dockerfile").rename(project / "docker/Dockerfile")
    assert examine(project, TODAY).findings == []


def test_what_is_said_of_several_lines_is_said_once() -> None:
    alike = [
        TrailingComment.finding(Location("Dockerfile", line), "This is wrong.", "Correct it.") for line in (9, 2, 5, 2)
    ]
    (only,) = ordered(alike)
    assert (only.line, only.message) == (2, "This is wrong; also on lines 5 and 9.")
    assert listed("abcdef") == "a, b, c and 3 more"


# The command


def test_the_command_shows_the_main_fault_first_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(HERE / "broken" / "course-level-3")]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("error: Dockerfile:3: The comment after `\\` ends the instruction here")
    assert shown[0].endswith("[comment-after-backslash]")
    assert shown[1] == "  fix: Put the comment on a line of its own."
    assert re.fullmatch(r"4 errors in \d files: .*", shown[-1])


def test_warnings_alone_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(HERE / "broken" / "root-user")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 warning in ")
    assert run(["doctor", str(HERE / "healthy" / "api")]) == 0
    assert capsys.readouterr().out.startswith("No fault found in 3 files: Dockerfile")


def test_the_command_tells_it_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(HERE / "broken" / "health-port"), "--json"]) == 1
    told = msgspec.json.decode(capsys.readouterr().out)
    assert told["healthy"] is False
    assert told["looked_at"] == ["Dockerfile", "models/model.joblib", "requirements.txt"]
    (found,) = told["findings"]
    assert {key: found[key] for key in ("code", "severity", "file", "line")} == {
        "code": "health-port",
        "severity": "error",
        "file": "Dockerfile",
        "line": 15,
    }


def test_a_mistake_in_the_project_file_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(HERE / "broken" / "project-file")]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("error: estiba.toml: server.prot: unknown key; did you mean 'port'? [project-file]")


def test_nothing_to_examine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(tmp_path)]) == 4
    assert "nothing to examine" in capsys.readouterr().err
    assert run(["doctor", str(tmp_path / "absent")]) == 4
    assert run(["doctor", "--fix"]) == 2


# What Estiba renders itself


@pytest.mark.parametrize("style", ["slim", "scratch"])
def test_the_dockerfiles_that_estiba_renders_are_healthy(style: str, tmp_path: Path, toy_registry: Path) -> None:
    from estiba import project as project_file
    from estiba.deploy.image import dockerfile, spec
    from estiba.planning import lower

    source = tmp_path / "source"
    (source / "site").mkdir(parents=True)
    (source / "estiba.toml").write_text(
        f'[project]\nname = "toys"\nregistry = "{toy_registry}"\n[models.churn]\ntrain = "a:b"\n'
        '[services.web]\ncommand = ["streamlit", "run", "site/app.py", "--server.port", "${port}"]\n'
        'include = ["site"]\n'
        'packages = ["libpq5"]\nport = 8501\nhealth = "/_stcore/health"\n'
    )
    plan = lower(project_file.load(source))
    assert {service.name for service in plan.services} == {"models", "web"}
    for service in plan.services:
        made = spec.image_spec(plan, service, style)
        folder = tmp_path / f"{service.name}-{style}"
        for path in ("tools/trim.py", "wheels/a.whl", "code/b.whl", "models/churn/model.onnx", "app/site/app.py"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
        (folder / "requirements.txt").write_text("numpy==2.3.1 \\\n    --hash=sha256:00\n")
        (folder / "Dockerfile").write_text(dockerfile.render(made))
        (folder / ".dockerignore").write_text(dockerfile.ignore(made))
        assert [f"{found.code} {found.where}" for found in examine(folder, TODAY).findings] == []


def test_the_compose_file_that_estiba_renders_is_healthy() -> None:
    assert examine(HERE.parent / "deploy" / "golden" / "compose.yaml", TODAY).findings == []


def test_without_pyyaml_the_rest_is_examined_and_nothing_called_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    folder = Path(shutil.copytree(HERE / "broken" / "root-user", tmp_path / "project"))
    (folder / "compose.yaml").write_text("services:\n  api:\n    build: .\n")
    assert run(["doctor", str(folder)]) == 1
    shown = capsys.readouterr()
    assert "[root-user]" in shown.out
    assert "Not examined: compose.yaml." in shown.err
    assert "[deploy]'" in shown.err
