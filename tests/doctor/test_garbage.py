"""The doctor answers any folder with findings or an error that has a hint, and never with a traceback."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from estiba.core.errors import EstibaError
from estiba.doctor.catalogue import check_running
from estiba.doctor.examine import examine
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.read.pickled_models import look

HERE = Path(__file__).parent
TODAY = date(2026, 11, 21)
SPLINTERS = (
    *(b"\\\n", b"\n", b"[", b"]", b'"', b"'", b"$", b"${", b"${A:-", b"}", b"<<EOF\n", b"--from=", b"#", b"\x00"),
    *(b"&a", b"*a", b"<<: *a", b"- ", b": ", b"\t", b"!!python/object:x ", b"0", b"-1", b"9" * 20, b"..", b"//", b"~"),
    *(b"FROM ", b"COPY ", b"HEALTHCHECK CMD ", b"null", b"{", b"ENV A=", b"(", b"**", b"|", b"> ", b"@", b"\xff\xfe"),
)

DOCKERFILES = (
    *("", "\n", "\\", "FROM", "FROM \\", "COPY", "CMD", "CMD [", "RUN <<EOF", "ARG", "ENV", "ENV a", "HEALTHCHECK"),
    *("ONBUILD", "FROM a AS", "COPY --from", "COPY --from=9 a b", "USER", "EXPOSE x", "WORKDIR ''", "FROM @:@"),
    *("FROM a\nFROM 0\nCOPY --from=0 / /", "FROM a AS a\nFROM a AS a\nCOPY --from=a . .", "FROM a\nHEALTHCHECK CMD []"),
    *("FROM ${A:-${B}}\nCOPY ${X} ${Y}", "FROM a\nCMD []", 'FROM a\nCMD [""]', 'FROM a\nENTRYPOINT ["sh", "-c"]'),
    "FROM a\nHEALTHCHECK CMD ;",
)
COMPOSE = (
    *("services:", "services: {a: }", "services: {a: []}", "services: {a: {ports: 80}}", "services: {a: {build: [1]}}"),
    *("services: {a: {build: '', command: [], user: ''}}", "services: {a: {volumes: [':', '::', {}], image: ''}}"),
    *("services: {a: {healthcheck: {test: []}, image: a}}", "services: {a: {healthcheck: {test: 1}, image: '@'}}"),
    *("services: {a: {environment: [a, =, '']}}", "services: {a: {depends_on: {a: 1}, image: x}}", "? [a]\n: b"),
    *(
        "services: {a: {cpus: x, mem_limit: y, image: z}}",
        "services: {? [b] : c}",
        "services: &a {b: *a}",
        "a: &a [*a]",
    ),
)
SEEDS = range(240)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Some pieces cut out, moved, doubled, or replaced by what means something to one of the readers."""
    for _ in range(draw.randint(1, 6)):
        start = draw.randint(0, len(content))
        end = min(len(content), start + draw.choice((0, 1, 5, 40, 400)))
        piece = draw.choice((b"", content[start:end] * 2, draw.choice(SPLINTERS), draw.randbytes(3)))
        content = content[:start] + piece + content[end:]
    return content


def examined(folder: Path) -> None:
    refused: list[EstibaError] = []
    try:
        findings = examine(folder, TODAY).findings
    except EstibaError as error:
        refused, findings = [error], []
    assert all(error.hint for error in refused)
    assert all(found.line >= 0 and found.message and found.fix for found in findings)


@pytest.mark.parametrize("first", range(0, len(SEEDS), 40))
def test_projects_that_were_mangled(first: int, tmp_path: Path) -> None:
    sources = [*sorted((HERE / "broken").iterdir()), *sorted((HERE / "healthy").iterdir())]
    for seed in SEEDS[first : first + 40]:
        draw = random.Random(seed)
        folder = Path(shutil.copytree(draw.choice(sources), tmp_path / str(seed)))
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != "expected.txt"]
        for path in draw.sample(files, min(len(files), 3)):
            path.write_bytes(mutated(path.read_bytes(), draw))
        examined(folder)


@pytest.mark.parametrize("text", DOCKERFILES)
def test_dockerfiles_that_are_hardly_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    examined(tmp_path)


@pytest.mark.parametrize("text", COMPOSE)
def test_compose_files_that_are_hardly_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    examined(tmp_path)


def test_code_that_is_hardly_code(tmp_path: Path) -> None:
    start = 'FROM python:3.12-slim\nCOPY . .\nCMD ["python", "main.py"]\n'
    (tmp_path / "Dockerfile").write_text(start)
    for code in (
        "(" * 5000,
        "a = a\nopen(a)",
        "import main",
        "x = " + "+".join(["1"] * 3000),
        "\x00",
        "open()",
        "open(*a)",
    ):
        (tmp_path / "main.py").write_text(code)
        examined(tmp_path)


def odd_pickles() -> Iterator[bytes]:
    yield from (
        b"",
        b"\x80",
        b"\x80\x04",
        b"\x80\x04_sklearn_version",
        b"\x1f\x8b",
        b"\x78\x9c" + b"\xff" * 90,
        b"BZh9x",
    )
    yield b"\x80\x04_sklearn_version" + b"\x8c\xff"
    yield b"\xfd7zXZ\x00" + b"\x00" * 40
    yield b"\x80\x05" + bytes(range(256)) * 20


@pytest.mark.parametrize("content", list(odd_pickles()))
def test_pickles_that_are_hardly_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(content)
    found = look(tmp_path / "model.pkl")
    assert found is None or found.sklearn == ""


@pytest.mark.parametrize("value", [None, {}, [], "", 0, {"a": 1}, ["a"], "a=b"])
def test_descriptions_of_containers_that_are_hardly_one(value: object) -> None:
    keys = ("State", "Config", "HostConfig", "NetworkSettings", "Args", "Name", "Id", "RestartCount")
    for key in keys:
        list(
            check_running(
                InspectedContainer({key: value}, {"Config": value}, log=str(value), processes="a\nb", sockets="0: 0")
            )
        )
        for inner in (
            "Health",
            "Env",
            "Healthcheck",
            "Ports",
            "Image",
            "Memory",
            "NanoCpus",
            "RestartPolicy",
            "ExitCode",
        ):
            list(check_running(InspectedContainer({key: {inner: value, "Running": True}}, {})))


def test_a_folder_that_cannot_be_walked(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").mkdir()
    (tmp_path / "compose.yaml").symlink_to(tmp_path / "compose.yaml")
    (tmp_path / "app").symlink_to(tmp_path)
    examined(tmp_path)
    (tmp_path / "requirements.txt").write_text("-r requirements.txt\nflask==1\n")
    examined(tmp_path)
