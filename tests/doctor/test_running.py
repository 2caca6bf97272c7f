"""The rules find faults in recorded answers of Docker (recorded.json), and in real containers if Docker is there."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from estiba.cli.main import run
from estiba.core.errors import NotFound
from estiba.doctor import examine as files
from estiba.doctor.catalogue import check_running, ordered
from estiba.doctor.examine import Report
from estiba.doctor.finding import Finding
from estiba.doctor.read.inspected_container import InspectedContainer
from estiba.doctor.running import WORKING_FOLDER, examine

pytestmark = pytest.mark.slow

RECORDED: dict[str, dict[str, Any]] = msgspec.json.decode((Path(__file__).parent / "recorded.json").read_bytes())
IMAGE = "python:3.11-slim"


def seen(name: str, **changes: Any) -> InspectedContainer:
    return InspectedContainer(**{**RECORDED[name], **changes})


def found(what: InspectedContainer) -> list[Finding]:
    return ordered(check_running(what))


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("oom", ["out-of-memory"]),
        ("port", ["port-mismatch", "health-port", "no-restart", "no-limits"]),
        ("root", ["curl-missing", "root-user", "no-restart", "no-limits"]),
        ("denied", ["permission-denied"]),
        ("model", ["model-missing", "shell-form"]),
    ],
)
def test_what_docker_described(name: str, codes: list[str]) -> None:
    assert [one.code for one in found(seen(name))] == codes


def test_the_kernels_table_of_sockets_is_read() -> None:
    assert seen("port").listens == {8000: {"0.0.0.0"}}
    assert seen("root").listens == {8000: {"127.0.0.1"}}
    six = "  0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0"
    assert seen("port", sockets=six).listens == {8080: {"::"}}
    assert seen("port", sockets="  0: 0B00007F:A0B1 00000000:0000 0A 0").listens == {}, "Docker's own resolver"


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        ("ModuleNotFoundError: No module named 'xgboost.core'", "module-missing", "xgboost.core"),
        (
            "OSError: libgomp.so.1: cannot open shared object file",
            "system-library-missing",
            "libgomp.so.1",
        ),
        (
            "Warning: Trying to unpickle estimator Ridge from version 1.2.2 when using version 1.6.1",
            "pickle-version",
            "has scikit-learn 1.6.1",
        ),
        ("it just ended", "crashed", "the end of its log: it just ended."),
        ("", "crashed", "it printed nothing"),
    ],
)
def test_what_a_program_says_before_it_ends(log: str, code: str, words: str) -> None:
    first = found(seen("denied", log=log))[0]
    assert (first.code, words in first.message) == (code, True), first


def test_passwords_and_threads_of_what_runs() -> None:
    container = msgspec.json.decode(msgspec.json.encode(RECORDED["denied"]["container"]))
    container["Config"]["Env"] += ["DB_PASSWORD=postgres", "API_KEY=8f3a1c", "OMP_NUM_THREADS=16"]
    container["HostConfig"]["NanoCpus"] = 2_000_000_000
    container["State"]["ExitCode"] = 0
    baked = {"Config": {"Env": ["API_KEY=8f3a1c"]}, "Size": 2_100_000_000}
    codes = [one.code for one in found(seen("denied", container=container, image=baked, log=""))]
    assert codes == ["secret-in-layer", "default-password", "threads-over-cpus", "image-too-big"]


def test_nothing_known_is_no_fault() -> None:
    assert found(InspectedContainer({}, {})) == []
    assert (
        found(InspectedContainer({"Name": "/x", "State": None, "Config": None, "HostConfig": {}}, {"Config": None}))
        == []
    )


# With Docker


@pytest.fixture(scope="module")
def docker() -> str:
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers: scripts/lab/docker starts one")
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        pytest.skip(f"the image {IMAGE} is not here: scripts/lab/images makes a stand-in")
    return "docker"


Start = Callable[..., str]


@pytest.fixture
def start(docker: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a container of Python that is labelled as Compose labels those started from the test's folder."""
    names: list[str] = []

    def started(*options: str, program: str) -> str:
        names.append(f"estiba-doctor-{uuid.uuid4().hex[:8]}")
        label = f"{WORKING_FOLDER}={tmp_path.resolve()}"
        command = [docker, "run", "-d", "--name", names[-1], "--label", label, *options, IMAGE, "python", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return names[-1]

    yield started
    subprocess.run([docker, "rm", "-f", "-v", *names], capture_output=True)


def until(folder: Path, code: str) -> Report:
    """Examines until a fault shows, as a health check and an end take their time."""
    report = examine(folder)
    end = time.monotonic() + 30
    while code not in [one.code for one in report.findings] and time.monotonic() < end:
        time.sleep(0.3)
        report = examine(folder)
    return report


@pytest.mark.parametrize(
    ("text", "builds"),
    [
        ("FROM scratch\nCOPY a /a\nCOPY a* none* /b/", True),
        ("FROM scratch AS one\nCOPY a /w/\nFROM scratch\nCOPY --from=one /w /w", True),
        ("FROM scratch\nCOPY a /a # a remark", False),
        ("FROM scratch # a remark\nCOPY a /a", False),
        ("FROM scratch\nCOPY a /a\nEXPOSE 80 # a remark", False),
        ("FROM scratch\nCOPY a /a\nENV A=1 # a remark", False),
        ("ARG A=1 # a remark\nFROM scratch\nCOPY a /a", True),
        ("FROM scratch\nCOPY a /a\nLABEL a=1 # a remark", False),
        ("FROM scratch\nCOPY a \\  # a remark\n  /a", False),
        ("FROM scratch\nCOPY a /a\nHEALTHCHECK --interval=3s \\  # a remark\n  CMD a", False),
        ("FROM scratch\nCOPY a /a 2>/dev/null || true", False),
        ("FROM scratch\nCOPY nothing /a", False),
        ("FROM scratch\nCOPY hidden /a", False),
        ("FROM scratch\nCOPPY a /a", False),
        ("WORKDIR /a", False),
        ("FROM scratch AS one\nCOPY a /a\nFROM scratch\nCOPY --from=one /wheels /wheels", False),
    ],
)
def test_docker_agrees_on_what_can_be_built(docker: str, tmp_path: Path, text: str, builds: bool) -> None:
    for name, content in {"Dockerfile": text, "a": "", "hidden": "", ".dockerignore": "hidden\n"}.items():
        (tmp_path / name).write_text(content)
    done = subprocess.run(
        [docker, "build", "--quiet", "--output", "type=cacheonly", str(tmp_path)], capture_output=True
    )
    assert (done.returncode == 0) is builds, done.stderr.decode()
    assert files.examine(tmp_path, date(2026, 11, 21)).healthy is builds


SERVE = "from http.server import *; HTTPServer(('{host}', 8000), SimpleHTTPRequestHandler).serve_forever()"


def test_a_container_killed_for_its_memory(start: Start, tmp_path: Path) -> None:
    name = start("--memory", "32m", "--user", "10001", program="x = [b'x' * 10**7 for _ in range(50)]")
    report = until(tmp_path, "out-of-memory")
    assert (report.looked_at, report.healthy) == ([name], False)
    assert report.findings[0].code == "out-of-memory"
    assert "32 MB" in report.findings[0].message


def test_a_health_check_on_the_wrong_port(start: Start, tmp_path: Path) -> None:
    probe = """python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/')" """
    options = ("--user", "10001", "--publish", "127.0.0.1::8000", "--health-cmd", probe, "--health-interval", "500ms")
    start(*options, "--health-retries", "1", program=SERVE.format(host="0.0.0.0"))
    first = until(tmp_path, "health-port").findings[0]
    assert (first.code, first.message) == ("health-port", "Its health check asks port 8080, but it listens on 8000.")


def test_a_health_check_that_fails(start: Start, tmp_path: Path) -> None:
    options = ("--user", "10001", "--health-cmd", "echo no answer; exit 1", "--health-interval", "500ms")
    name = start(*options, "--health-retries", "1", program=SERVE.format(host="0.0.0.0"))
    first = until(tmp_path, "unhealthy").findings[0]
    assert (first.code, first.message) == ("unhealthy", "Its health check fails: no answer.")
    assert first.fix == f"Try it by hand: docker exec {name} echo no answer; exit 1"


def test_a_container_that_only_reaches_itself_as_root(start: Start, tmp_path: Path) -> None:
    start("--publish", "127.0.0.1::8000", program=SERVE.format(host="127.0.0.1"))
    codes = [one.code for one in until(tmp_path, "loopback-host").findings]
    assert codes == ["loopback-host", "root-user", "no-restart", "no-limits"]


def test_a_right_that_the_user_does_not_have(start: Start, tmp_path: Path) -> None:
    start("--user", "10001", program="open('/app.log', 'w')")
    first = until(tmp_path, "permission-denied").findings[0]
    assert (first.code, "user 10001" in first.message, "`/app.log`" in first.message) == (
        "permission-denied",
        True,
        True,
    )


def test_a_hardened_container_shows_nothing(start: Start, tmp_path: Path) -> None:
    hardened = ("--read-only", "--cap-drop", "ALL", "--user", "10001", "--memory", "64m", "--restart", "unless-stopped")
    name = start(*hardened, "--publish", "127.0.0.1::8000", program=SERVE.format(host="0.0.0.0"))
    time.sleep(1)
    assert examine(tmp_path).findings == []
    # `estiba compose` writes into a folder of the project.
    assert examine(tmp_path.parent).looked_at == [name]
    with pytest.raises(NotFound, match="no container that Compose started from"):
        examine(tmp_path / "elsewhere")


def test_no_container_of_that_folder(docker: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no container that Compose started from"):
        examine(tmp_path)


def test_docker_that_does_not_answer(
    docker: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert run(["doctor", "--running"]) == 6
    assert capsys.readouterr().err.startswith("error: Docker does not answer: ")


def test_no_docker_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(["doctor", "--running"]) == 4
    assert "docker is not installed, or not on PATH." in capsys.readouterr().err
