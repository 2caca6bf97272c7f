"""`estiba up` runs services beside the model server, passes signals on, and reacts to changed files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import Estiba

from estiba.core import ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CLIENT = """
import http.server, os, sys, urllib.request
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with urllib.request.urlopen(os.environ["MODEL"]) as found:
            body = found.read()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(VERSION + b" " + body)
    def log_message(self, *args):
        print("asked for", self.path)
VERSION = b"one"
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class Up:
    """A running `estiba up`, and what it printed."""

    def __init__(self, *arguments: object, folder: Path) -> None:
        command = [sys.executable, "-m", "estiba", "up", "--containers", "none", *map(str, arguments)]
        self.child = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def wait(self, condition: Callable[[], bool], seconds: float = 90) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.child.poll() is None, f"it ended with {self.child.returncode}:\n{self.text}"
            assert time.monotonic() < until, f"that never happened:\n{self.text}"
            time.sleep(0.05)

    def saying(self, text: str, times: int = 1) -> None:
        self.wait(lambda: self.text.count(text) >= times)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.child.send_signal(number)
        code = self.child.wait(60)
        self._reader.join(10)
        return code


@contextmanager
def up(*arguments: object, folder: Path) -> Iterator[Up]:
    made = Up(*arguments, folder=folder)
    try:
        yield made
    finally:
        if made.child.poll() is None:
            made.child.send_signal(signal.SIGTERM)
            made.child.wait(60)
        assert made.child.stdout is not None
        made._reader.join(10)
        made.child.stdout.close()


def get(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new project, made by `estiba init` and trained."""
    folder = tmp_path_factory.mktemp("init") / "flowers"
    for command in (["init", str(folder)], ["train", "-C", str(folder), "--json"]):
        subprocess.run([sys.executable, "-m", "estiba", *command], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture
def flowers(trained: Path, tmp_path: Path) -> Path:
    """A project with a model, a client of it, and a service that keeps dying."""
    folder = tmp_path / "flowers"
    shutil.copytree(trained, folder)
    (folder / "client.py").write_text(CLIENT)
    with (folder / "estiba.toml").open("a") as file:
        file.write(f"""
[server]
port = {ports.free("127.0.0.1")}
workers = 1
[services.client]
command = "python client.py ${{port}}"
port = {ports.free("127.0.0.1")}
health = "/"
secrets = ["password"]
needs = ["iris"]
environment.MODEL = "${{models.iris.url}}"
watch = ["client.py"]
[services.dying]
command = "sh -c 'echo I die; exit 3'"
watch = ["nothing"]
[services.db]
image = "postgres:17"
""")
    return folder


def port(folder: Path, what: str = "client") -> int:
    import estiba.project

    project = estiba.project.load(folder)
    found = project.services["client"].port if what == "client" else project.server.port
    assert found
    return found


def test_services_and_models_come_up_together_and_go_together(flowers: Path) -> None:
    with up(folder=flowers) as running:
        running.saying("  curl -s")
        assert get(port(flowers)).startswith('one {"name":"iris"')
        running.saying("client | asked for /")
        code = running.end()
    lines = running.lines
    assert code == 0
    assert any(line.startswith("db: left out: ") and "postgres:17" in line for line in lines)
    assert "client asks for a secret: cat .estiba/secrets/password" in lines
    assert len((flowers / ".estiba/secrets/password").read_text()) == 43
    assert f"client   healthy     http://127.0.0.1:{port(flowers)}" in running.text
    assert "dying: restarting: ended with exit code 3; starting again in 1 s" in lines
    assert lines[lines.index("dying: its last lines were:") + 1] == "    I die"
    assert lines.index("client: stopped") < lines.index("models: stopping") < lines.index("models: stopped")
    assert "Traceback" not in running.text
    assert ports.conflict("127.0.0.1", port(flowers)) == ""


def test_a_port_of_a_model_is_named_and_not_measured_a_second_time(trained: Path, tmp_path: Path) -> None:
    server, own = ports.free("127.0.0.1"), ports.free("127.0.0.1")
    shutil.copytree(trained, tmp_path / "flowers")
    file = tmp_path / "flowers" / "estiba.toml"
    text = file.read_text().replace("[models.iris]", f"[models.iris]\nport = {own}")
    file.write_text(f"""{text}
[server]
port = {server}
workers = 1
[services.prometheus]
command = "sh -c 'cat ${{files.config}}; sleep 60'"
files.config = "estiba:prometheus:/etc/prometheus/prometheus.yml"
""")
    with up(folder=tmp_path / "flowers") as running:
        running.saying("  curl -s")
        running.saying("targets:")
        assert f"Also on their own ports, as POST /predict: iris {own}" in running.lines
        targets = [line.partition("targets: ")[2] for line in running.lines if "targets: " in line]
        assert targets == [f'["127.0.0.1:{server}"]']


def test_nothing_is_announced_that_was_stopped_before_it_came_up(tmp_path: Path) -> None:
    (tmp_path / "estiba.toml").write_text(f"""
[services.slow]
command = "sleep 60"
port = {ports.free("127.0.0.1")}
health = "/"
""")
    with up(folder=tmp_path) as running:
        running.saying("slow: starting")
        assert running.end() == 0
    assert running.lines[-1] == "slow: stopped"


def test_nothing_is_left_when_it_is_killed(flowers: Path) -> None:
    with up(folder=flowers) as running:
        running.saying("  curl -s")
        running.child.kill()
        running.child.wait()
    until = time.monotonic() + 20
    while any(map(_taken, (port(flowers), port(flowers, "server")))) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _taken(port(flowers))
    assert not _taken(port(flowers, "server"))
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(flowers) in _words(path)]
    assert left == []


def _taken(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _words(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_events_for_programs_and_a_named_service_alone(flowers: Path) -> None:
    with up("dying", "--json", folder=flowers) as running:
        running.saying("restarting", 2)
        assert running.end(signal.SIGTERM) == 0
    events = [json.loads(line) for line in running.lines]
    assert {event.get("service") for event in events} == {"dying"}
    assert {"event": "line", "service": "dying", "text": "I die"} in events
    (first, *_) = [event for event in events if event.get("state") == "restarting"]
    assert (first["restarts"], first["output"]) == (1, ["I die"])


def test_a_change_starts_a_service_again_and_trains_a_model_again(flowers: Path) -> None:
    project, service, server = flowers / "estiba.toml", flowers / "client.py", port(flowers, "server")
    with up("client", "--watch", folder=flowers) as running:
        running.saying("  curl -s")
        service.write_text(CLIENT.replace('b"one"', 'b"two"'))
        running.saying("client.py changed; starting client again")
        running.saying("client: healthy", 2)
        assert get(port(flowers)).startswith("two")

        training = flowers / "iris.py"
        training.write_text(training.read_text().replace("max_iter=1000", "max_iter=1000, C=0.5"))
        running.saying("iris.py changed; training what is made from it")
        running.saying("Trained iris@2.")
        running.wait(lambda: '"version":"2"' in _description(server))

        project.write_text(project.read_text().replace("health =", "helth ="))
        running.saying("services.client.helth: unknown key; did you mean 'health'?")
        project.write_text(project.read_text().replace("helth =", "cpus = 2.0\nhealth ="))
        running.saying("estiba.toml changed; started again: client")
        project.write_text(project.read_text().replace("workers = 1", "workers = 2"))
        running.saying("[server] changed in estiba.toml, which takes effect at the next start")
        assert running.end() == 0
    assert "Traceback" not in running.text


def _description(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/models/iris", timeout=10) as answer:
        return str(answer.read().decode())


def test_tasks_alone_end_by_themselves_with_how_they_went(estiba: Estiba, tmp_path: Path) -> None:
    text = '[services.one]\ncommand = "true"\nrestart = false\n'
    (tmp_path / "estiba.toml").write_text(text)
    ran = estiba("up", "-C", tmp_path)
    assert ran.code == 0
    assert "one: done" in ran.out
    (tmp_path / "estiba.toml").write_text(text.replace("true", "false", 1))
    ran = estiba("up", "-C", tmp_path)
    assert ran.code == 1
    assert "one: failed: ended with exit code 1" in ran.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("clent",), 4, "error: There is no service 'clent'; did you mean 'client'?"),
        (("--profile", "dev"), 4, "error: There is no profile 'dev'."),
        (("db", "--containers", "none"), 4, "error: The service db cannot run here: "),
        (("--env-file", "absent.env"), 4, "error: Cannot read absent.env: No such file or directory."),
    ],
)
def test_mistakes_are_sentences(estiba: Estiba, flowers: Path, arguments: object, code: int, message: str) -> None:
    assert isinstance(arguments, tuple)
    ran = estiba("up", "-C", flowers, *arguments)
    assert ran.code == code
    assert message in ran.err


def test_a_model_that_cannot_be_served_ends_it_all(flowers: Path) -> None:
    project = flowers / "estiba.toml"
    project.write_text(project.read_text().replace("workers = 1", "max_connections = 999999999"))
    with up("client", folder=flowers) as running:
        assert running.child.wait(60) == 1
    assert "error: server.max_connections is 999999999" in running.text
    assert "client: starting" not in running.text


def test_a_port_that_is_taken_is_said_before_anything_is_trained(flowers: Path) -> None:
    with socket.create_server(("127.0.0.1", port(flowers))), up(folder=flowers) as running:
        assert running.child.wait(60) == 1
    assert (
        f"cannot listen on 127.0.0.1:{port(flowers)}: Address already in use, by process {os.getpid()} ("
        in running.text
    )
    assert "iris" not in running.text
