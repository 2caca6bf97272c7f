"""Services run as real programs here: they start in order, crash, hang, fork and ignore signals."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from estiba import project
from estiba.core import ports
from estiba.core.errors import BadProject, EstibaError, NotFound
from estiba.core.process_group import Guard
from estiba.local import orchestrate
from estiba.local.host_gateway import HostGateway
from estiba.local.run_plan import RunPlan, UpRequest, plan
from estiba.local.service_runner import ServiceRunner
from estiba.local.status import RestartPolicy, RunContext, Status
from estiba.local.target import LOOPBACK

pytestmark = pytest.mark.slow

POLICY = RestartPolicy(first_seconds=0.1, longest_seconds=0.4, reset_seconds=1.0, probe_seconds=0.1)

SERVER = """
import http.server, os, sys, time
began = time.monotonic()
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = time.monotonic() > began + float(os.environ.get("SLOW", 0))
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(" ".join(sys.argv[1:]).encode())
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
"""Listens on the port that it is told, and is healthy after SLOW seconds."""


@dataclass
class RunEvents:
    """Events of a run, in order."""

    start: RunPlan
    statuses: list[Status] = field(default_factory=list)
    lines: list[tuple[str, str]] = field(default_factory=list)
    well: bool = False

    def states(self, name: str) -> list[str]:
        return [status.state for status in self.statuses if status.service == name]

    def last(self, name: str) -> Status:
        return [status for status in self.statuses if status.service == name][-1]

    def find(self, name: str, state: str) -> Status:
        return next(status for status in self.statuses if (status.service, status.state) == (name, state))

    def when(self, name: str, state: str) -> int:
        return self.statuses.index(self.find(name, state))

    def said(self, name: str) -> list[str]:
        return [text for service, text in self.lines if service == name]


def planned(folder: Path, text: str, *names: str, profiles: tuple[str, ...] = ()) -> RunPlan:
    (folder / "estiba.toml").write_text(text)
    (folder / "server.py").write_text(SERVER)
    return plan(UpRequest(lambda: project.load(folder), names, profiles, containers="none"))


def play(start: RunPlan, until: Callable[[RunEvents], bool], *, kill: bool = False, seconds: float = 20) -> RunEvents:
    """Runs services until something is true of them, or all are over; then stops them, or kills them."""
    return asyncio.run(_play(RunEvents(start), until, kill, seconds))


async def _play(shown: RunEvents, until: Callable[[RunEvents], bool], kill: bool, seconds: float) -> RunEvents:
    guard = Guard()
    context = RunContext(guard, shown.statuses.append, lambda name, text: shown.lines.append((name, text)), POLICY)
    target, stop, dead = shown.start.target, asyncio.Event(), asyncio.Event()
    running = set(shown.start.selection.services)
    runners = [
        ServiceRunner(
            service,
            LOOPBACK,
            target.url(service),
            lambda runner: orchestrate.prepare(target, runner, running, guard.mark, HostGateway({})),
            context,
        )
        for service in shown.start.applications
    ]

    async def look() -> None:
        deadline = time.monotonic() + seconds
        while not until(shown) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        (dead.set() if kill else None, stop.set())

    looking = asyncio.create_task(look())
    shown.well = await orchestrate.run(runners, stop, dead)
    looking.cancel()
    guard.close()
    return shown


def python(code: str) -> str:
    """A command that runs code, as a list of TOML."""
    return json.dumps([sys.executable, "-uc", code])


def healthy(*names: str) -> Callable[[RunEvents], bool]:
    return lambda shown: all("healthy" in shown.states(name) for name in names)


def test_each_starts_once_what_it_needs_is_so_and_they_stop_in_reverse(tmp_path: Path) -> None:
    one, two = ports.free("127.0.0.1"), ports.free("127.0.0.1")
    text = f"""
[services.web]
command = "python server.py ${{port}} ${{services.db.url}}"
port = {one}
health = "/"
needs = {{ db = "healthy", setup = "completed" }}
[services.db]
command = "python server.py ${{port}}"
port = {two}
environment = {{ SLOW = "0.6" }}
health = "/"
[services.setup]
command = "sh -c 'sleep 0.2; echo done'"
restart = false
"""
    shown = play(planned(tmp_path, text), healthy("web"))
    assert shown.well
    assert shown.when("web", "starting") > max(shown.when("db", "healthy"), shown.when("setup", "done"))
    assert shown.when("web", "stopped") < shown.when("db", "stopping")
    assert 0.6 <= (shown.find("db", "healthy").seconds or 0) < 5
    assert shown.find("web", "healthy").url == f"http://127.0.0.1:{one}"
    assert shown.find("web", "healthy").pid
    assert shown.last("setup").state == "done"
    assert shown.said("setup") == ["done"]


def test_references_the_environment_and_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_SHELL", "shell")
    monkeypatch.delenv("ESTIBA_SECRETS", raising=False)
    (tmp_path / ".env").write_text("FROM_SHELL=file\nFROM_FILE=file\n")
    code = (
        "import os; [print(os.environ[k]) for k in 'ABCDEF']; print(open(os.environ['KEY']).read()); print(os.getcwd())"
    )
    text = f"""
[models.iris]
train = "iris:train"
[services.one]
command = {python(code)}
folder = "inner"
restart = false
secrets = ["key"]
volumes.data = "/data"
files.conf = "conf.ini:/etc/conf.ini"
[services.one.environment]
A = "${{env.FROM_SHELL}}"
B = "${{env.FROM_FILE}}"
C = "${{env.NOWHERE:-default}}"
D = "${{models.iris.url}}"
E = "${{volumes.data}}"
F = "${{files.conf}} $$"
KEY = "${{secrets.key}}"
"""
    (tmp_path / "inner").mkdir()
    (tmp_path / "conf.ini").write_text("")
    start = planned(tmp_path, text, "one")
    assert not start.selection.models
    *found, key, folder = play(start, lambda shown: False).said("one")
    data = tmp_path / ".estiba/volumes/one/data"
    assert found == [
        "shell",
        "file",
        "default",
        "http://127.0.0.1:8000/models/iris",
        str(data),
        f"{tmp_path}/conf.ini $",
    ]
    assert len(key) == 43
    assert folder == str(tmp_path / "inner")
    assert data.is_dir()


def test_a_variable_that_is_not_set_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match=r"services\.one: the variable NOWHERE_AT_ALL is not set"):
        planned(tmp_path, '[services.one]\ncommand = "echo ${env.NOWHERE_AT_ALL}"\n')


def test_what_dies_is_started_again_ever_later_and_others_live_on(tmp_path: Path) -> None:
    text = f"""
[services.dying]
command = {python("import sys; [print(i) for i in range(30)]; sys.exit(3)")}
[services.living]
command = "sleep 60"
"""
    shown = play(planned(tmp_path, text), lambda shown: shown.states("dying").count("restarting") >= 5)
    endings = [status for status in shown.statuses if status.state == "restarting"]
    pauses = [status.detail.rpartition("in ")[2] for status in endings]
    assert pauses[:5] == ["0.1 s", "0.2 s", "0.4 s", "0.4 s", "0.4 s"]
    assert [status.restarts for status in endings[:3]] == [1, 2, 3]
    assert endings[0].detail.startswith("ended with exit code 3; starting again")
    assert endings[0].output == tuple(str(i) for i in range(10, 30))
    assert "To try it by hand: cd " in endings[0].hint
    assert endings[1].output == ()
    assert shown.states("living") == ["starting", "running", "stopping", "stopped"]


def test_who_lived_long_enough_begins_anew(tmp_path: Path) -> None:
    text = '[services.dying]\ncommand = "sleep 1.1"\n'
    shown = play(planned(tmp_path, text), lambda shown: shown.states("dying").count("restarting") >= 2)
    details = [status.detail for status in shown.statuses if status.state == "restarting"]
    assert details == ["ended with exit code 0; starting again in 0.1 s"] * 2


def test_a_signal_is_named(tmp_path: Path) -> None:
    text = f"[services.one]\ncommand = {python('import os; os.kill(os.getpid(), 9)')}\nrestart = false\n"
    shown = play(planned(tmp_path, text), lambda shown: False)
    assert not shown.well
    assert (shown.last("one").detail, shown.last("one").pid) == ("ended by SIGKILL", None)
    assert "ran out of memory" in shown.last("one").hint


def test_a_task_that_fails_keeps_back_what_needs_it(tmp_path: Path) -> None:
    text = """
[services.web]
command = "sleep 60"
needs = { setup = "completed" }
[services.setup]
command = "false"
restart = false
"""
    shown = play(planned(tmp_path, text), lambda shown: False)
    assert not shown.well
    assert shown.last("setup").detail == "ended with exit code 1"
    assert shown.last("web").detail == "it needs setup, which will not be completed"


def test_one_that_does_not_become_healthy_says_why_and_where_it_listens(tmp_path: Path) -> None:
    port, other = ports.free("127.0.0.1"), ports.free("127.0.0.1")
    text = f"""
[services.web]
command = "python server.py {other}"
port = {port}
health = "/"
start_timeout = 0.8
"""
    shown = play(planned(tmp_path, text), lambda shown: "restarting" in shown.states("web"))
    found = shown.find("web", "restarting")
    assert (
        f"not healthy within 0.8 s: GET http://127.0.0.1:{port}/: connection refused: nothing listens there"
        in found.detail
    )
    assert f"It listens on {other}: let it listen on {port}" in found.hint


def test_an_answer_other_than_200_is_not_healthy(tmp_path: Path) -> None:
    port = ports.free("127.0.0.1")
    text = f"""
[services.web]
command = "python server.py {port}"
port = {port}
health = "/"
start_timeout = 0.8
environment.SLOW = "60"
"""
    shown = play(planned(tmp_path, text), lambda shown: "restarting" in shown.states("web"))
    assert "answered 503, not 200" in shown.find("web", "restarting").detail
    assert "start_timeout in [services.web]" in shown.find("web", "restarting").hint


def test_health_may_be_a_command_or_a_connection(tmp_path: Path) -> None:
    port = ports.free("127.0.0.1")
    text = f"""
[services.flag]
command = "sh -c 'sleep 0.4; touch flag; sleep 60'"
health = ["test", "-e", "flag"]
[services.tcp]
command = "python server.py {port}"
port = {port}
"""
    shown = play(planned(tmp_path, text), healthy("flag", "tcp"))
    assert (shown.find("flag", "healthy").seconds or 0) >= 0.4
    assert shown.find("tcp", "healthy").url == f"tcp://127.0.0.1:{port}"


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("no"))
inner = subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 60"])
print(inner.pid)
time.sleep(1000)
"""


@pytest.mark.parametrize("kill", [False, True])
def test_who_ignores_sigterm_is_killed_after_its_grace_or_at_once(tmp_path: Path, kill: bool) -> None:
    grace = 60 if kill else 0.4
    text = f"[services.one]\ncommand = {python(STUBBORN)}\nstop_grace = {grace}\n"
    began = time.monotonic()
    shown = play(planned(tmp_path, text), lambda shown: bool(shown.said("one")), kill=kill)
    assert time.monotonic() - began < 30
    assert shown.states("one")[-2:] == ["stopping", "stopped"]
    if not kill:
        assert shown.last("one").detail == "SIGTERM did not end it within 0.4 s, so it was killed"
        assert "no" in shown.said("one")
    status = Path(f"/proc/{shown.said('one')[0]}/status")
    assert not status.exists() or "\nState:\tZ" in status.read_text()


def test_its_own_signal_asks_it_to_stop(tmp_path: Path) -> None:
    code = "import time\ntry:\n    print('up'); time.sleep(60)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    text = f'[services.one]\ncommand = {python(code)}\nstop_signal = "SIGINT"\n'
    shown = play(planned(tmp_path, text), lambda shown: bool(shown.said("one")))
    assert shown.said("one") == ["up", "interrupted"]


def test_packages_are_installed_first_and_its_programs_come_first(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    text = """
[services.one]
command = "python -c 'import sys; print(sys.prefix)'"
requirements = "requirements.txt"
restart = false
[services.two]
command = "absent-program"
requirements = "requirements.txt"
restart = false
"""
    shown = play(planned(tmp_path, text), lambda shown: False, seconds=60)
    assert shown.states("one")[0] == "installing"
    assert shown.last("one").state == "done"
    assert str(tmp_path / ".estiba/environments") in shown.said("one")[-1]
    assert "absent-program is not on PATH or in the environment of its requirements" in shown.last("two").detail


# What takes part

OFF = "containers are off (--containers none)"

CHOICES = """
[services.plain]
command = "sleep 1"
[services.dashboard]
command = "sleep 1"
profile = "dashboard"
needs = ["cache"]
[services.cache]
command = "sleep 1"
profile = "storage"
[services.postgres]
image = "postgres:17"
[services.redis]
command = "no-such-program --port 1"
profile = "storage"
"""


@pytest.mark.parametrize(
    ("names", "profiles", "services", "left_out"),
    [
        ((), (), ["plain"], ["postgres"]),
        ((), ("dashboard",), ["cache", "dashboard", "plain"], ["postgres"]),
        ((), ("storage",), ["cache", "plain"], ["postgres", "redis"]),
        (("dashboard",), (), ["cache", "dashboard"], []),
        (("plain",), ("storage",), ["cache", "plain"], ["redis"]),
    ],
)
def test_what_takes_part(
    tmp_path: Path, names: tuple[str, ...], profiles: tuple[str, ...], services: list[str], left_out: list[str]
) -> None:
    choice = planned(tmp_path, CHOICES, *names, profiles=profiles).selection
    assert sorted(choice.services) == services
    assert sorted(choice.left_out) == left_out


def test_why_a_service_is_left_out(tmp_path: Path) -> None:
    choice = planned(tmp_path, CHOICES, profiles=("storage",)).selection
    assert choice.left_out == {
        "postgres": f"it is only the image postgres:17, and has no command, and {OFF}",
        "redis": "no-such-program is not on PATH",
    }


def test_the_program_of_an_image_runs_with_the_command_as_its_arguments(tmp_path: Path) -> None:
    text = '[services.sleeper]\nimage = "sleeper"\nprogram = "sleep"\ncommand = ["60"]\n'
    choice = planned(tmp_path, text).selection
    assert (sorted(choice.services), choice.left_out) == (["sleeper"], {})


def test_an_image_whose_program_is_behind_a_shell_or_an_entry_point_is_left_out(tmp_path: Path) -> None:
    text = """
[services.grafana]
image = "grafana"
command = ["--config=x"]
[services.redis]
image = "redis"
command = ["sh", "-c", "echo | exec no-such-program -"]
"""
    assert planned(tmp_path, text).selection.left_out == {
        "grafana": f"only the image grafana has its program, and {OFF}",
        "redis": f"no-such-program is not on PATH, and {OFF}",
    }


@pytest.mark.parametrize(
    ("names", "profiles", "message"),
    [
        (("redis",), (), "The service redis cannot run here: no-such-program is not on PATH."),
        (("dashbord",), (), "There is no service 'dashbord'; did you mean 'dashboard'?"),
        ((), ("dashbord",), "There is no profile 'dashbord'; did you mean 'dashboard'?"),
        (("models",), (), "There is no service 'models'."),
    ],
)
def test_what_cannot_take_part(tmp_path: Path, names: tuple[str, ...], profiles: tuple[str, ...], message: str) -> None:
    with pytest.raises(NotFound) as error:
        planned(tmp_path, CHOICES, *names, profiles=profiles)
    assert message in error.value.message


def test_what_is_needed_must_be_here(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"postgres cannot run here: .*, and web needs it"):
        planned(tmp_path, CHOICES + '[services.web]\ncommand = "sleep 1"\nneeds = ["postgres"]\n')


def test_a_model_that_is_needed_brings_the_server(tmp_path: Path) -> None:
    text = '[models.iris]\ntrain = "a:b"\n[services.web]\ncommand = "sleep 1"\nneeds = ["iris"]\n'
    assert planned(tmp_path, text, "web").selection.models
    assert planned(tmp_path, text, "iris").selection.services == ()


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EstibaError) as error:
            planned(tmp_path, f'[services.web]\ncommand = "sleep 1"\nport = {port}\n')
    expected = f"The service web cannot listen on 127.0.0.1:{port}: Address already in use, by process {os.getpid()} ("
    assert error.value.message.startswith(expected)


def test_generated_files_lie_as_in_the_container(tmp_path: Path) -> None:
    text = f"""
[services.web]
command = "sleep 1"
port = {ports.free("127.0.0.1")}
metrics = "/metrics"
[services.prometheus]
command = "sh -c 'cat ${{files.config}}'"
files.config = "estiba:prometheus:/etc/prometheus/prometheus.yml"
restart = false
"""
    start = planned(tmp_path, text)
    shown = play(start, lambda shown: "done" in shown.states("prometheus"))
    assert (tmp_path / ".estiba/files/prometheus/etc/prometheus/prometheus.yml").exists()
    assert f"127.0.0.1:{start.target.plan['web'].port}" in "\n".join(shown.said("prometheus"))


def test_the_command_to_try_by_hand_is_one_for_a_shell(tmp_path: Path) -> None:
    text = f"[services.one]\ncommand = {python('raise SystemExit(2)')}\nrestart = false\n"
    shown = play(planned(tmp_path, text), lambda shown: False)
    words = shlex.split(shown.last("one").hint.partition("&& ")[2])
    assert words == [sys.executable, "-uc", "raise SystemExit(2)"]


FLAKY = """
import http.server, pathlib, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if pathlib.Path("ill").exists() else 200)
        self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
"""Is healthy as long as there is no file `ill`."""


def test_who_becomes_unhealthy_later_is_shown_so_and_again_when_it_is_well(tmp_path: Path) -> None:
    port = ports.free("127.0.0.1")
    (tmp_path / "flaky.py").write_text(FLAKY)
    text = f'[services.one]\ncommand = "python flaky.py ${{port}}"\nport = {port}\nhealth = "/"\n'

    def until(shown: RunEvents) -> bool:
        states = shown.states("one")
        if states.count("healthy") == 1 and "unhealthy" not in states:
            (tmp_path / "ill").touch()
        if "unhealthy" in states:
            (tmp_path / "ill").unlink(missing_ok=True)
        return states.count("healthy") == 2

    shown = play(planned(tmp_path, text), until)
    assert shown.states("one") == ["starting", "healthy", "unhealthy", "healthy", "stopping", "stopped"]
    assert shown.find("one", "unhealthy").detail == f"GET http://127.0.0.1:{port}/ answered 503, not 200"
    assert len({status.pid for status in shown.statuses if status.state in ("healthy", "unhealthy")}) == 1
    assert shown.well


def test_a_wish_to_start_again_while_it_waits_skips_no_pause_later(tmp_path: Path) -> None:
    text = f"""
[services.one]
command = {python("raise SystemExit(3)")}
needs = {{ two = "completed" }}
[services.two]
command = {python("import time; time.sleep(0.5)")}
restart = false
"""
    start = planned(tmp_path, text)

    async def run() -> list[float]:
        guard, times = Guard(), list[float]()
        loop = asyncio.get_running_loop()

        def on_status(status: Status) -> None:
            if status.service == "one" and status.state == "starting":
                times.append(loop.time())

        context = RunContext(guard, on_status, lambda name, text: None, RestartPolicy(first_seconds=1.0))
        runners = {
            service.name: ServiceRunner(
                service,
                LOOPBACK,
                "",
                lambda runner: orchestrate.prepare(start.target, runner, (), guard.mark, HostGateway({})),
                context,
            )
            for service in start.applications
        }
        for runner in runners.values():
            runner.start(runners)
        await asyncio.sleep(0.2)
        await runners["one"].restart()
        while len(times) < 2:
            await asyncio.sleep(0.02)
        for runner in runners.values():
            await runner.stop()
        guard.close()
        return times

    first, second = asyncio.run(asyncio.wait_for(run(), 20))
    assert second - first > 0.9
