"""`estiba up` runs services that exist only as images with a real Docker engine, and with podman."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab import Docker, docker_engine

from estiba import project
from estiba.cli import main
from estiba.core import ports
from estiba.core.errors import NotFound
from estiba.core.guard import process_stat
from estiba.local import run_plan
from estiba.local.containers import FOLDER_LABEL, PID_LABEL, Containers
from estiba.local.run_plan import UpRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

IN_IMAGE = "exec 3>&1"
"""Makes a shell's command one of the image alone: no machine has a program of that name, but many have Redis."""

OPTIONS = "--port ${port} --dir ${volumes.data} --requirepass $$(cat ${secrets.pass})"
START_REDIS = f"sleep 1; {IN_IMAGE}; exec redis-server {OPTIONS}"

STORE = f"""
[project]
name = "clinic"

[services.redis]
image = "redis:8"
command = ["sh", "-c", "{START_REDIS}"]
secrets = ["pass"]
volumes = {{ data = "/data" }}
user = 999
port = @redis@
"""

CLIENTS = f"""
[services.web]
command = "{sys.executable} -m http.server ${{port}} --bind ${{host}}"
port = @web@
health = "/"
needs = ["redis"]

[services.peek]
image = "redis:8"
command = ["bash", "-c", "set -e; exec 3<>/dev/tcp/${{services.web.host}}/${{services.web.port}}; . ${{files.script}}"]
needs = ["web"]
restart = false
secrets = ["pass"]
files.script = "peek.sh:/peek.sh"

[services.peek.environment]
WHO = 'me, "x" $$ y'
DOCKER_HOST = "tcp://nowhere"
REDIS = "-h ${{services.redis.host}} -p ${{services.redis.port}}"
PASS_FILE = "${{secrets.pass}}"
"""

PEEK = r"""
printf 'GET / HTTP/1.0\r\n\r\n' >&3
head -1 <&3
REDISCLI_AUTH=$(cat $PASS_FILE) timeout 5 redis-cli $REDIS set a b
echo "$WHO $DOCKER_HOST"
id -u
"""


SEEN = ["HTTP/1.0 200 OK", "OK", 'me, "x" $ y tcp://nowhere', "0"]


class Up:
    """A running `estiba up --json`, and the events that it printed."""

    def __init__(self, folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._log = (folder / "events.log").open("w+")
        command = [sys.executable, "-m", "estiba", "up", "-C", str(folder), "--json", *arguments]
        self.child = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.path = folder / "events.log"

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("}\n")]

    def lines(self, name: str) -> list[str]:
        return [event["text"] for event in self.events() if event["event"] == "line" and event["service"] == name]

    def states(self, name: str) -> list[str]:
        return [event["state"] for event in self.statuses(name)]

    def statuses(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events() if event["event"] == "status" and event["service"] == name]

    def wait(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.child.poll() is None, self.path.read_text()
            assert time.monotonic() < deadline, self.path.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
            self.child.wait(60)
        self._log.close()


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    with docker_engine() as found:
        found.need("redis:8")
        yield found


@pytest.fixture
def folder(docker: Docker, tmp_path: Path) -> Iterator[Path]:
    """The folder of a project, without its containers and volumes afterwards."""
    (tmp_path / "estiba.toml").write_text(STORE.replace("@redis@", str(ports.free("127.0.0.1"))))
    (tmp_path / "peek.sh").write_text(PEEK)
    yield tmp_path
    for name in containers(docker, tmp_path):
        docker.attempt("rm", "--force", "--volumes", name)
    volumes = docker("volume", "ls", "--quiet", "--filter", "name=clinic-").split()
    docker.attempt("volume", "rm", "--force", *volumes)


@contextmanager
def up(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Up]:
    running = Up(folder, *arguments, environment=environment)
    try:
        yield running
    finally:
        running.stop()


def containers(docker: Docker, folder: Path) -> list[str]:
    return docker("ps", "--all", "--filter", f"label={FOLDER_LABEL}={folder}", "--format", "{{.Names}}").split()


def redis_port(folder: Path) -> int:
    return int((folder / "estiba.toml").read_text().split("\nport = ")[1].splitlines()[0])


def test_an_image_is_a_service_like_any_other(folder: Path, docker: Docker) -> None:
    """Its port is on the loopback, it reaches processes and other containers, and what dies is started again."""
    with (folder / "estiba.toml").open("a") as text:
        text.write(CLIENTS.replace("@web@", str(ports.free("127.0.0.1"))))
    with up(folder) as running:
        running.wait(lambda: "done" in running.states("peek") or "failed" in running.states("peek"))
        assert running.lines("peek") == SEEN
        healthy = next(status for status in running.statuses("redis") if status["state"] == "healthy")
        assert healthy["url"] == f"tcp://127.0.0.1:{redis_port(folder)}"
        assert healthy["seconds"] >= 1  # the engine takes connections before the program listens
        (name,) = containers(docker, folder)
        assert docker("port", name) == f"{redis_port(folder)}/tcp -> 127.0.0.1:{redis_port(folder)}"
        assert docker("exec", name, "id", "-u") == "999"
        docker("kill", name)
        running.wait(lambda: running.states("redis").count("healthy") == 2)
        ended = next(status for status in running.statuses("redis") if status["state"] == "restarting")
        assert ended["detail"].startswith("ended with exit code 137")
        assert ended["hint"] == "It was killed, mostly as it needs more memory: memory in [services.redis]."
        running.child.send_signal(signal.SIGINT)
        running.child.wait(60)
        assert any("User requested shutdown" in line for line in running.lines("redis"))
    assert containers(docker, folder) == []
    assert [name for name in docker("volume", "ls", "--quiet").split() if name.startswith("clinic-redis-data-")]


def test_nothing_is_left_of_a_run_that_was_killed(folder: Path, docker: Docker) -> None:
    with up(folder) as running:
        running.wait(lambda: "healthy" in running.states("redis"))
        os.killpg(running.child.pid, signal.SIGKILL)
        running.child.wait()
        deadline = time.monotonic() + 20
        while containers(docker, folder) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert containers(docker, folder) == []
    with up(folder) as running:  # and the guard was killed too
        running.wait(lambda: "healthy" in running.states("redis"))
        for pid in children(running.child.pid):
            os.kill(pid, signal.SIGKILL)
        os.kill(running.child.pid, signal.SIGKILL)
        running.child.wait()
        assert containers(docker, folder)
    with up(folder) as running:
        running.wait(lambda: "healthy" in running.states("redis"))
    assert containers(docker, folder) == []


def children(parent: int) -> list[int]:
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [pid for pid in map(int, text.split()) if process_stat(pid).state != "Z"]


def test_podman_does_as_well_with_moved_ports(folder: Path, docker: Docker) -> None:
    (folder / "containers.conf").write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n')
    environment = {"CONTAINERS_CONF": str(folder / "containers.conf")}

    def podman(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )

    try:
        found = podman("info").returncode == 0
    except FileNotFoundError:
        found = False
    if not found:
        pytest.skip("podman is not installed. scripts/lab/oci brings it.")
    if podman("image", "exists", "redis:8").returncode:
        docker("save", "--output", str(folder / "redis.tar"), "redis:8")
        assert podman("load", "--input", str(folder / "redis.tar")).returncode == 0
    with (folder / "estiba.toml").open("a") as text:
        text.write(CLIENTS.replace("@web@", str(ports.free("127.0.0.1"))))
    with up(folder, "--containers", "podman", "--port", "8100", environment=environment) as running:
        running.wait(lambda: "done" in running.states("peek") or "failed" in running.states("peek"))
        assert running.lines("peek") == SEEN
        moved = next(status for status in running.statuses("redis") if status["state"] == "healthy")["url"]
        assert moved == f"tcp://127.0.0.1:{redis_port(folder) + 100}"  # it listens on the other port in the container
    assert podman("ps", "--all", "--quiet", "--filter", f"label={FOLDER_LABEL}={folder}").stdout == ""


def test_an_image_that_cannot_be_pulled_says_so(folder: Path) -> None:
    (folder / "estiba.toml").write_text('[services.absent]\nimage = "localhost:1/absent:9"\n')
    with up(folder) as running:
        running.wait(lambda: "restarting" in running.states("absent"))
        status = running.statuses("absent")[-1]
        assert status["detail"].startswith("The image localhost:1/absent:9 could not be pulled (exit code 1)")
        assert "installing" in running.states("absent")


def test_without_an_engine_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "estiba.toml").write_text('[services.absent]\nimage = "localhost:1/absent:9"\n')
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFound) as caught:
        run_plan.plan(UpRequest(lambda: project.load(tmp_path), ["absent"]))
    assert "no container engine works here (docker: not installed; podman: not installed)." in caught.value.message
    assert "Start docker or podman, which run its image, or set `command`" in str(caught.value.hint)


def test_a_lost_secret_of_a_volume_is_not_made_again(
    folder: Path, docker: Docker, capsys: pytest.CaptureFixture[str]
) -> None:
    """The volume is the engine's and outlives .estiba, and what is in it was made with the old secret."""
    with up(folder) as running:
        running.wait(lambda: "healthy" in running.states("redis"))
    shutil.rmtree(folder / ".estiba")
    assert main.run(["up", "-C", str(folder)]) == 4
    said = capsys.readouterr().err
    (volume,) = docker("volume", "ls", "--quiet", "--filter", "name=clinic-redis-data-").split()
    assert f"The secret pass is not in {folder}/.estiba/secrets/pass, but its service has data in {volume}," in said
    assert f"docker volume rm {volume}" in said
    assert not (folder / ".estiba").exists()
    docker("volume", "rm", volume)
    with up(folder) as running:
        running.wait(lambda: "healthy" in running.states("redis"))


QUIET = f"""
[services.quiet]
image = "redis:8"
command = ["bash", "-c", '{IN_IMAGE}; echo "$$LDAP_PASSWORD" "$$HTTP_PROXY" "$$GO_KEY"; exit 3']
restart = false
secrets = ["pass"]

[services.quiet.environment]
LDAP_PASSWORD = "hushed-one"
HTTP_PROXY = "http://me:hushed-two@proxy:1"
GO_KEY = "hushed\\nthree"
"""


def test_no_value_of_a_variable_is_on_the_command_line(folder: Path) -> None:
    """Everybody on the machine sees the command line, and the advice for a service that ended prints it."""
    (folder / "estiba.toml").write_text(f'[project]\nname = "clinic"\n{QUIET}')
    with up(folder) as running:
        assert running.child.wait(60) == 1
    assert running.lines("quiet") == ["hushed-one http://me:hushed-two@proxy:1 hushed", "three"]
    hint = running.statuses("quiet")[-1]["hint"]
    assert "docker run" in hint
    assert "hushed" not in hint
    kept = folder / ".estiba/containers/quiet"
    assert (kept / ".env").stat().st_mode & 0o777 == 0o600
    assert kept.stat().st_mode & 0o777 == 0o700
    assert (kept / ".gitignore").read_text() == "*\n"
    (folder / "estiba.toml").write_text('[project]\nname = "clinic"\n' + QUIET.partition("[services.quiet.env")[0])
    with up(folder) as running:
        assert running.child.wait(60) == 1
    assert not (kept / ".env").exists()


def test_a_container_is_left_if_its_process_has_become_another(folder: Path, docker: Docker) -> None:
    own = process_stat(os.getpid()).start_ticks
    child = subprocess.Popen(["sleep", "60"])
    started = process_stat(child.pid).start_ticks
    labels = {
        "ours": f"{os.getpid()}:{own}",
        "lives": f"{child.pid}:{started}",
        "reused": f"{child.pid}:{started - 1}",
        "before": str(child.pid),
    }
    try:
        for name, label in labels.items():
            words = ("--label", f"{FOLDER_LABEL}={folder}", "--label", f"{PID_LABEL}={label}")
            docker("create", "--name", f"clinic-{name}", *words, "redis:8")
        assert sorted(Containers("docker").remove_left(folder)) == ["clinic-ours", "clinic-reused"]
        assert sorted(containers(docker, folder)) == ["clinic-before", "clinic-lives"]
    finally:
        child.kill()
        child.wait()


WEB = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True:
    server.accept()[0].sendall(sys.argv[1].encode() + b"\\n")
"""
READER = f"""
[services.reader]
image = "redis:8"
command = ["bash", "-c", "until exec 3<>/dev/tcp/$$AT; do sleep .2; done; head -1 <&3; sleep 600"]
environment = {{ AT = "${{services.web.host}}/${{services.web.port}}" }}
stop_grace = 0

[services.web]
command = "{sys.executable} web.py ${{port}}"
port = @web@
"""


def test_containers_do_not_hinder_a_program_on_all_addresses_and_follow_its_port(folder: Path) -> None:
    """The reader needs nothing, so it starts first; then the port of the project file changes."""
    before, now = ports.free("127.0.0.1"), ports.free("127.0.0.1")
    (folder / "web.py").write_text("import time; time.sleep(3)" + WEB)
    text = '[project]\nname = "clinic"\n' + READER
    (folder / "estiba.toml").write_text(text.replace("@web@", str(before)))
    with up(folder, "--watch") as running:
        running.wait(lambda: str(before) in running.lines("reader"))
        (folder / "web.py").write_text(WEB.replace("0.0.0.0", "127.0.0.1"))
        (folder / "estiba.toml").write_text(text.replace("@web@", str(now)))
        running.wait(lambda: str(now) in running.lines("reader"))
        assert "restarting" not in running.states("web")
