"""Compose files over each other, and Dockerfiles that are built from another folder than their own."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from estiba.doctor.examine import examine
from estiba.doctor.read.compose_file import Compose
from estiba.doctor.read.compose_projects import ComposeReader, group_files

HEALTHY = Path(__file__).parent / "healthy"
TODAY = date(2026, 11, 21)
WHOLE = "    restart: always\n    mem_limit: 1g\n"


def found(folder: Path) -> list[str]:
    return [f"{one.code} {one.where}" for one in examine(folder, TODAY).findings]


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def stack(names: list[str], **files: str) -> tuple[Compose, ComposeReader]:
    texts = {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    read = ComposeReader(texts.get, {})
    compose = read.compose(names)
    assert compose is not None
    return compose, read


BASE = """services:
  api:
    image: acme/api:1
    command: [serve, --quiet]
    environment: [A=1, B=2]
    ports: ["8001:8000"]
    volumes: [./a:/data, kept:/kept]
    build: {context: api, args: {X: 1}}
    healthcheck: {test: [CMD, one], interval: 5s}
  db:
    image: acme/db:1
    depends_on: [api]
"""
OVER = """services:
  api:
    command: serve --loud
    environment: {B: 3, C: 4}
    ports: ["9001:9000"]
    volumes: [./b:/data]
    build: {target: last, args: {Y: 2}}
    healthcheck: {test: [CMD, two]}
  db:
    depends_on: {other: {condition: service_healthy}}
    image: !reset null
volumes: {kept: {}}
"""


def test_a_file_over_another_as_compose_lays_it() -> None:
    compose, _ = stack(["compose.yaml", "over.yaml"], compose_yaml=BASE, over_yaml=OVER)
    api, db = compose.services["api"], compose.services["db"]
    assert api.command == ["serve", "--loud"]
    assert {name: one.value for name, one in api.environment.items()} == {"A": "1", "B": "3", "C": "4"}
    assert [(one.published, one.target) for one in api.ports] == [(8001, 8000), (9001, 9000)]
    assert [(one.source, one.target) for one in api.mounts] == [("kept", "/kept"), ("./b", "/data")]
    assert (api.build, api.arguments) == (("api", "", "last"), {"X": "1", "Y": "2"})
    assert api.node.get("healthcheck", "test").arguments == ["CMD", "two"]
    assert api.text("healthcheck", "interval") == "5s"
    assert [name for name, _, _ in db.dependencies] == ["api", "other"]
    assert (db.image, list(compose.volumes)) == ("", ["kept"])


def test_each_value_still_knows_its_file_and_line() -> None:
    compose, _ = stack(["compose.yaml", "over.yaml"], compose_yaml=BASE, over_yaml=OVER)
    api = compose.services["api"]
    assert [str(api.environment[name].at) for name in "ABC"] == ["compose.yaml:5", "over.yaml:4", "over.yaml:4"]
    assert [str(port.at) for port in api.ports] == ["compose.yaml:6", "over.yaml:5"]
    assert str(api.node.get("command").at) == "over.yaml:3"
    assert str(api.node.at) == "compose.yaml:2"


def test_what_is_included_and_extended_keeps_its_paths() -> None:
    main = (
        "include: [db/compose.yaml]\nservices:\n  api: {extends: {file: common/base.yaml, service: web}, user: '7'}\n"
    )
    database = "services:\n  db: {build: ., volumes: ['./data:/data', named:/named]}\nvolumes: {named: {}}\n"
    common = "services:\n  root: {build: {dockerfile: D}, mem_limit: 1g}\n  web: {extends: root, user: '8'}\n"
    compose, read = stack(["compose.yaml"], compose_yaml=main, db__compose_yaml=database, common__base_yaml=common)
    api, db = compose.services["api"], compose.services["db"]
    assert (api.build, api.text("user"), api.memory) == (("common", "D", ""), "7", 1 << 30)
    assert (db.build, [one.source for one in db.mounts]) == (("db", "", ""), ["./db/data", "named"])
    assert list(compose.volumes) == ["named"]
    assert read.problems == []


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("include: [nowhere.yaml]\n", "compose.yaml:1", "cannot be read"),
        ("services:\n  a: {extends: {file: no.yaml, service: b}}\n", "compose.yaml:2", "cannot be read"),
        ("services:\n  a:\n    extends: b\n", "compose.yaml:3", "`b`, which is not a service of compose.yaml"),
        ("include: [compose.yaml]\nservices: {a: {extends: a}}\n", "", ""),
    ],
)
def test_what_leads_nowhere_is_named_and_circles_end(text: str, where: str, words: str) -> None:
    _, read = stack(["compose.yaml"], compose_yaml=text)
    assert [(str(one.at), words in one.message) for one in read.problems] == ([(where, True)] if where else [])


def test_a_file_is_included_once() -> None:
    """Files that include each other more than once were read two to the power of twenty times."""
    both = "include: [compose.yaml, b.yaml]\nservices: {NAME: {image: a}}\n"
    texts = {"compose_yaml": both.replace("NAME", "a"), "b_yaml": both.replace("NAME", "b")}
    compose, read = stack(["compose.yaml"], **texts)
    assert (sorted(compose.services), read.files) == (["a", "b"], ["compose.yaml", "b.yaml"])


def test_which_files_belong_together() -> None:
    names = ["compose.prod.yaml", "docker-compose.override.yml", "docker-compose.yml"]
    first = ("docker-compose.yml", "docker-compose.override.yml")
    assert group_files(names, {}) == [first, ("compose.prod.yaml",)]
    chosen = {"COMPOSE_FILE": "docker-compose.yml:compose.prod.yaml"}
    assert group_files(names, chosen)[0] == ("docker-compose.yml", "compose.prod.yaml")


def test_an_override_mends_what_the_file_below_lacks(tmp_path: Path) -> None:
    below = f"services:\n  api:\n    image: a/b:1\n{WHOLE}    depends_on: {{db: {{condition: service_healthy}}}}\n"
    above = f"services:\n  db:\n    image: postgres:16\n{WHOLE}    healthcheck: {{test: [CMD, pg_isready]}}\n"
    written(tmp_path, compose_yaml=below)
    assert found(tmp_path) == ["compose-invalid compose.yaml:6"]
    written(tmp_path, compose_override_yaml=above)
    assert found(tmp_path) == []


def test_a_fault_of_an_override_is_named_there(tmp_path: Path) -> None:
    shutil.copytree(HEALTHY / "stack", tmp_path, dirs_exist_ok=True)
    name = next(iter(examine(tmp_path, TODAY).findings), None)
    assert name is None
    above = "services:\n  api:\n    environment:\n      OMP_NUM_THREADS: '16'\n    cpus: 1\n"
    (tmp_path / "compose.override.yaml").write_text(above)
    assert found(tmp_path) == ["threads-over-cpus compose.override.yaml:4"]


def test_what_an_override_for_development_hides_is_still_named(project: Path) -> None:
    changed = (project / "Dockerfile").read_text().partition('CMD ["uvicorn"')[
        0
    ] + "CMD uvicorn app.main:app --host 0.0.0.0\n"
    (project / "Dockerfile").write_text(changed)
    (project / "compose.yaml").write_text(f"services:\n  api:\n    build: .\n{WHOLE}")
    above = "services:\n  api:\n    command: uvicorn app.main:app --host 0.0.0.0 --reload\n"
    (project / "compose.override.yaml").write_text(above)
    assert found(project) == ["shell-form Dockerfile:16"]


def test_a_file_that_only_makes_sense_over_the_first_is_read_so(tmp_path: Path) -> None:
    below = f"services:\n  api:\n    image: a/b:1\n{WHOLE}"
    above = "services:\n  api:\n    depends_on: [db]\n"
    written(tmp_path, compose_yaml=below, compose_prod_yaml=above)
    assert found(tmp_path) == [
        "compose-invalid compose.prod.yaml:3",
        "depends-on-order compose.prod.yaml:3",
    ]


# Dockerfiles


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HEALTHY / "api", tmp_path / "project"))


@pytest.mark.parametrize("place", ["docker", "ci/images/api", ".github/docker"])
def test_a_dockerfile_built_from_the_top_of_the_project(project: Path, place: str) -> None:
    (project / ".git").mkdir()
    (project / place).mkdir(parents=True)
    (project / "Dockerfile").rename(project / place / "Dockerfile")
    assert examine(project / place / "Dockerfile", TODAY).findings == []
    assert examine(project / place, TODAY).findings == []


def test_a_dockerfile_built_from_a_folder_beside_it(project: Path) -> None:
    (project / "docker").mkdir()
    (project / "services").mkdir()
    (project / "Dockerfile").rename(project / "docker/api.Dockerfile")
    for name in ("app", "models", "requirements.txt"):
        (project / name).rename(project / "services" / name)
    assert found(project) == []


def test_a_dockerfile_whose_folder_something_else_puts_together(project: Path) -> None:
    (project / "ci").mkdir()
    (project / "ci/Dockerfile").write_text(
        (project / "Dockerfile")
        .read_text()
        .replace("COPY requirements", "COPY build/requirements")
        .replace("COPY app", "COPY build/app")
        .replace("COPY models", "COPY build/models")
    )
    assert found(project) == []
    (project / ".estiba/images/api").mkdir(parents=True)
    (project / "Dockerfile").rename(project / ".estiba/images/api/Dockerfile")
    assert found(project / ".estiba/images/api") == []


def test_a_file_that_is_missing_in_the_right_folder_is_still_missing(project: Path) -> None:
    (project / "docker").mkdir()
    (project / "Dockerfile").rename(project / "docker/Dockerfile")
    (project / "requirements.txt").unlink()
    assert "copy-missing" in {one.code for one in examine(project, TODAY).findings}
