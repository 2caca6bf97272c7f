"""Dockerfiles, compose files, command lines and Python code are read as Docker, Compose and Python read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from estiba.doctor.finding import Location
from estiba.doctor.read import command_lines, compose_file, python_sources
from estiba.doctor.read.build_context import BuildContext, parse_ignore_file
from estiba.doctor.read.containers import Image
from estiba.doctor.read.dockerfile_stages import pairs, resolve_path, stages, substitute
from estiba.doctor.read.dockerfile_syntax import parse, split
from estiba.doctor.read.image_names import parse_image_name
from estiba.doctor.read.python_sources import CodeEnvironment
from estiba.doctor.read.requirement_files import read_requirements, requirement
from estiba.doctor.read.yaml_nodes import BadCompose

# Dockerfiles


def test_instructions_over_several_lines() -> None:
    text = 'FROM a\nRUN one && \\  \n  # a comment\n\n  two\nCMD ["x", \\\n "y"]\n'
    run, command = parse(text)[1:]
    assert (run.name, run.line, run.text.split()) == ("RUN", 2, ["one", "&&", "two"])
    assert run.line_of("two") == 5
    assert (command.argv, command.line) == (("x", "y"), 6)


def test_flags_heredocs_and_the_escape_directive() -> None:
    text = "# escape=`\nFROM a\nCOPY --chown=1:2 --from=b x `\n y\nRUN <<EOF\nFROM not\nEOF\nUSER c\n"
    _, copy, run, user = parse(text)
    assert (copy.flags, copy.arguments) == ({"chown": "1:2", "from": "b"}, ("x", "y"))
    assert run.heredocs == {"EOF": "FROM not"}
    assert (user.name, user.line) == ("USER", 8)


@pytest.mark.parametrize(
    ("text", "argv"),
    [('["a", "b"]', ("a", "b")), ("['a']", None), ("a b", None), ('["a", 1]', None), ("[" * 5000, None)],
)
def test_the_exec_form(text: str, argv: tuple[str, ...] | None) -> None:
    assert parse(f"CMD {text}")[0].argv == argv


def test_variables_and_stages() -> None:
    text = """ARG TAG=3.12
ARG BASE=python:${TAG}-slim
FROM $BASE AS one
ARG TAG
ENV HOME=/srv A="x y" B=$TAG
WORKDIR $HOME
WORKDIR app
FROM one
USER app
COPY . ${NOWHERE:-here}
FROM scratch
"""
    first, second, last = stages(parse(text))
    assert (first.base, second.base, last.base) == ("python:3.12-slim", "python:3.12-slim", "scratch")
    assert (second.folder, second.user, second.environment["A"], second.environment["B"]) == (
        "/srv/app",
        "app",
        "x y",
        "3.12",
    )
    assert second.steps[-1].arguments == (".", "here")
    assert [step.instruction.name for step in second.all_steps][:2] == ["ARG", "ENV"]
    assert stages(parse(text), {"TAG": "3.13"})[0].base == "python:3.13-slim"


def test_small_parts() -> None:
    values = {"A": "1", "E": ""}
    assert substitute("$A ${A} ${E:-x} ${E-x} ${A:+y} ${B:+y} $B \\$A", values) == "1 1 x  y  $B $A"
    assert pairs("a=1 b='2 3' c=\\ d") == {"a": "1", "b": "2 3", "c": " d"}
    assert pairs("old form of it") == {"old": "form of it"}
    assert (resolve_path("/app", "./x/../y/"), resolve_path("/app", "/z"), resolve_path("/", ".")) == (
        "/app/y",
        "/z",
        "/",
    )
    assert parse_image_name("docker.io/library/python:3.12@sha256:1") == ("python", "3.12", "sha256:1")
    assert parse_image_name("localhost:5000/team/api") == ("localhost:5000/team/api", "", "")


# The build context


@pytest.mark.parametrize(
    ("rules", "path", "kept_out"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "data/a.csv", False),
        ("**/*.csv", "data/a.csv", True),
        ("data", "data/a/b.csv", True),
        ("/data/", "data/a", True),
        ("data/*\n!data/keep", "data/keep", False),
        ("data/*\n!data/keep", "data/other", True),
        ("*\n!app", "app/main.py", False),
        ("*\n!app", "models/m", True),
        ("# data", "data", False),
        ("temp?", "tempa", True),
        ("[ab].txt", "b.txt", True),
        ("[z-a].txt", "b.txt", False),
        ("a/**/z", "a/b/c/z", True),
    ],
)
def test_dockerignore(rules: str, path: str, kept_out: bool) -> None:
    assert (parse_ignore_file(rules, ".dockerignore").excluding_pattern(path) is not None) is kept_out


def context(folder: Path, **files: str) -> BuildContext:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return BuildContext(folder, "", parse_ignore_file("", ""))


@pytest.mark.parametrize(
    ("copy", "paths"),
    [
        ("COPY app /srv/app", {"/srv/app/main.py", "/srv/app/sub/x"}),
        ("COPY app/main.py /srv/", {"/srv/main.py"}),
        ("COPY app/main.py /srv/start.py", {"/srv/start.py"}),
        ("COPY app/main.py .", {"/w/main.py"}),
        ("COPY app .", {"/w/main.py", "/w/sub/x"}),
        ("COPY app/*.py ./", {"/w/main.py"}),
        ("COPY . .", {"/w/app/main.py", "/w/app/sub/x", "/w/m"}),
        ("COPY m app/main.py /srv/", {"/srv/m", "/srv/main.py"}),
    ],
)
def test_where_copy_puts_files(tmp_path: Path, copy: str, paths: set[str]) -> None:
    inside = context(tmp_path, app__main="", m="")
    (tmp_path / "app/main").rename(tmp_path / "app/main.py")
    (tmp_path / "app/sub").mkdir()
    (tmp_path / "app/sub/x").write_text("")
    image = Image("Dockerfile", parse(f"FROM python:3.12-slim\nWORKDIR /w\n{copy}\n"), inside)
    assert set(image.contents.files) == paths


def test_docker_itself_puts_them_there(tmp_path: Path) -> None:
    """The builder is asked too, where there is one."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode
    ):
        pytest.skip("no Docker with BuildKit answers")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers: scripts/lab/docker starts one")
    folder = tmp_path / "context"
    inside = context(folder, app__main="", app__sub__x="", m="", data__a="", data__keep="")
    rules = "data/*\n!data/keep\n"
    (folder / ".dockerignore").write_text(f"{rules}Dockerfile\n.dockerignore\n")
    text = "FROM scratch\nWORKDIR /w\nCOPY app /one/\nCOPY app/* /two/\nCOPY . .\nCOPY m app/main /three/\n"
    (folder / "Dockerfile").write_text(text)
    command = ["docker", "buildx", "build", "--quiet", "--output", f"type=local,dest={tmp_path / 'out'}", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = {
        f"/{path.relative_to(tmp_path / 'out').as_posix()}" for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    ours = Image(
        "Dockerfile",
        parse(text),
        BuildContext(folder, "", parse_ignore_file(f"{rules}Dockerfile\n.dockerignore\n", "x")),
    )
    assert set(ours.contents.files) == built
    assert inside.complete


# Compose files

STACK = """x-common: &common
  restart: always
  environment: {A: "1"}
services:
  api:
    <<: *common
    image: me/api:${TAG:-1}
    ports: ["127.0.0.1:8001:80", "9000", {target: 70, published: "7000"}, "53:53/udp"]
    volumes: [./a:/b:ro, named:/c, /anonymous, {type: bind, source: x, target: /d, read_only: true}]
    tmpfs: /tmp:size=1m
    command: run --port 80 "two words"
    depends_on:
      db: {condition: service_healthy}
    deploy: {resources: {limits: {cpus: "0.5", memory: 512M}}}
  db:
    image: postgres:17
    environment:
      - PASSWORD=x=y
    depends_on: [other]
"""


def test_a_compose_file_with_its_lines() -> None:
    services = compose_file.read(STACK, "compose.yaml", {}).services
    api, db = services["api"], services["db"]
    assert (api.image, api.node.get("restart").text, api.node.get("image").line) == ("me/api:1", "always", 7)
    assert [(port.published, port.target) for port in api.ports] == [(8001, 80), (0, 9000), (7000, 70)]
    assert [(m.kind, m.source, m.target, m.read_only) for m in api.mounts] == [
        ("bind", "./a", "/b", True),
        ("volume", "named", "/c", False),
        ("volume", "", "/anonymous", False),
        ("bind", "x", "/d", True),
        ("tmpfs", "", "/tmp", False),
    ]
    assert api.command == ["run", "--port", "80", "two words"]
    assert api.dependencies == [("db", "service_healthy", Location("compose.yaml", 13))]
    assert db.dependencies == [("other", "", Location("compose.yaml", 19))]
    assert (api.cpus, api.memory) == (0.5, 512 << 20)
    assert (api.environment["A"].value, db.environment["PASSWORD"]) == (
        "1",
        ("x=y", "x=y", Location("compose.yaml", 18)),
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [("services:\n  a: [\n", 3), ("- a\n", 1), ("services: [a]\n", 1), ("a: *b\n", 1), ("\x00", 0), ("", 0)],
)
def test_a_compose_file_that_cannot_be_read(text: str, line: int) -> None:
    with pytest.raises(BadCompose) as caught:
        compose_file.read(text, "compose.yaml", {})
    assert caught.value.at.line == line


def test_a_compose_file_that_refers_to_itself_ends() -> None:
    compose = compose_file.read("services: &s\n  a: &a\n    <<: *a\n    image: x\n    build: *s\n", "c", {})
    assert compose.services["a"].image == "x"


def test_durations_and_sizes() -> None:
    assert [compose_file.parse_duration(text) for text in ("1m30s", "500ms", "5", "")] == [90, 0.5, None, None]
    assert [compose_file.size(text) for text in ("512m", "1.5g", "1024", "much")] == [512 << 20, 3 << 29, 1024, 0]


# Commands and code


@pytest.mark.parametrize(
    ("command", "host", "port"),
    [
        ("uvicorn a:app", "127.0.0.1", 8000),
        ("python -m uvicorn a:app --host=0.0.0.0 --port 80", "0.0.0.0", 80),
        ("gunicorn -w 4 -b :9000 a:app", "0.0.0.0", 9000),
        ("gunicorn -b0.0.0.0:81 a:app", "0.0.0.0", 81),
        ("gunicorn --bind unix:/run/x.sock a:app", "", 0),
        ("gunicorn -c conf.py a:app", "", 0),
        ("flask --app a run -h 0.0.0.0 -p 5001", "0.0.0.0", 5001),
        ("streamlit run a.py --server.port=1", "0.0.0.0", 1),
        ("mlflow server --host 0.0.0.0", "0.0.0.0", 5000),
        ("jupyter lab --ip 0.0.0.0", "0.0.0.0", 8888),
        ("jupyter-lab", "127.0.0.1", 8888),
        ("fastapi run a.py", "0.0.0.0", 8000),
        ("tini -- uv run --frozen uvicorn a:app --port 1", "127.0.0.1", 1),
        ("sh -c 'sleep 1 && exec uvicorn a:app --host 0.0.0.0 --port $PORT'", "0.0.0.0", 1234),
        ("waitress-serve --listen=*:80 a:app", "*", 80),
    ],
)
def test_where_a_server_listens(command: str, host: str, port: int) -> None:
    environment = {"PORT": "1234"} if "$PORT" in command else {}
    words = command_lines.unwrap(split(command), environment)
    found = command_lines.detect_server(words, environment)
    assert found is not None
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize("command", ["", "python work.py", "./start.sh", "flask routes", "estiba models", "sh -c"])
def test_what_is_no_known_server(command: str) -> None:
    assert command_lines.detect_server(command_lines.unwrap(split(command), {}), {}) is None


def test_a_variable_that_names_itself_ends() -> None:
    endless = {"X": 'sh -c "$X"'}
    assert command_lines.unwrap(["sh", "-c", "$X"], endless)[:1] != ["uvicorn"]


CODE = """import os
from pathlib import Path
import joblib
from . import beside
HERE = Path(__file__).resolve().parent
MODEL_FILE = os.getenv("MODEL_PATH", str(HERE.parent / "models" / "m.joblib"))
LOGS = "logs"
a = joblib.load(MODEL_FILE)
b = joblib.load(HERE / "b.pkl")
with open(os.path.join("data", f"c.onnx"), "rb") as f: f.read()
try:
    d = joblib.load("/d.pkl")
except FileNotFoundError:
    d = None
e = joblib.load(unknown / "e.pkl")
open(f"{LOGS}/x.log", "a")
(HERE / "out.json").write_text("")
Path("made").mkdir()
"""


def test_what_code_loads_and_writes(tmp_path: Path) -> None:
    inside = context(tmp_path)
    (tmp_path / "app").mkdir()
    (tmp_path / "app/main.py").write_text(CODE)
    (tmp_path / "app/beside.py").write_text("import json\n")
    found = python_sources.program_modules(inside, "app.main:app")
    assert [read.path for read in found] == ["app/main.py", "app/beside.py"]
    setting = CodeEnvironment("/srv", {}, {"app/main.py": "/srv/app/main.py"})
    loaded = [(place.path, place.line, place.sure) for place in python_sources.loaded_files(found[0], setting)]
    assert sorted(loaded, key=lambda one: one[1]) == [
        ("/srv/models/m.joblib", 8, True),
        ("/srv/app/b.pkl", 9, True),
        ("/srv/data/c.onnx", 10, True),
        ("/d.pkl", 12, False),
    ]
    written = {place.path for place in python_sources.written_files(found[0], setting)}
    assert written == {"/srv/logs/x.log", "/srv/app/out.json", "/srv/made"}
    told = CodeEnvironment("/srv", {"MODEL_PATH": "/m/x.pkl"}, {})
    assert next(place.path for place in python_sources.loaded_files(found[0], told) if place.line == 8) == "/m/x.pkl"


# Requirements


def test_a_requirements_file_with_all_that_may_be_in_it(tmp_path: Path) -> None:
    inside = context(tmp_path, base="numpy==2.1\n")
    (tmp_path / "requirements.txt").write_text(
        "-r base\n--extra-index-url https://example.org/simple\nFlask[async] >= 2.0 ; python_version > '3.8'  # web\n"
        "scikit_learn==1.6.1 \\\n  --hash=sha256:00\n./local\nhttps://example.org/x.whl\nmine @ git+https://example.org/m\n"
    )
    found = read_requirements("requirements.txt", inside)
    assert [(one.name, one.version, one.pinned, str(one.at)) for one in found.lines] == [
        ("numpy", "2.1", True, "base:1"),
        ("flask", "", False, "requirements.txt:3"),
        ("scikit-learn", "1.6.1", True, "requirements.txt:4"),
        ("mine", "", True, "requirements.txt:8"),
    ]
    assert requirement("", Location("x")) is None
