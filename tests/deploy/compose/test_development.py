"""`estiba compose --dev`: in containers, the code of the project, which is reloaded and can be debugged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from editor import attached, value_at_the_breakpoint
from lab import Docker
from toys import until

from estiba.cli.main import run
from estiba.core.ports import free
from estiba.deploy.compose import development

PROGRAM = """\
import os
from http.server import BaseHTTPRequestHandler, HTTPServer


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = "one " + self.path
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())


HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Api).serve_forever()
"""
BREAK_LINE = PROGRAM.splitlines().index("        self.send_response(200)") + 1
PROJECT = """
[project]
name = "{name}"

[services.api]
command = "python -u api/main.py"
include = ["api"]
port = 8031
public = false
health = "/"
environment = {{ HOST = "${{host}}", PORT = "${{port}}" }}
stop_signal = "SIGINT"

[services.prepare]
command = "python -u api/prepare.py"
include = ["api"]
restart = false

[services.db]
image = "postgres:17"
user = 999
port = 5432
public = false
"""


def project(folder: Path, name: str) -> None:
    (folder / "api").mkdir()
    (folder / "api" / "main.py").write_text(PROGRAM)
    (folder / "estiba.toml").write_text(PROJECT.format(name=name))


def test_applications_get_the_code_a_reloader_and_a_debugger_on_loopback(tmp_path: Path) -> None:
    project(tmp_path, "shop")
    assert run(["compose", "--dev", "-C", str(tmp_path)]) == 0
    services = yaml.safe_load((tmp_path / "deploy/compose" / development.FILE).read_text())["services"]
    assert list(services) == ["api", "prepare"]
    assert services["api"]["entrypoint"] == ["python", "/dev-tools/reloader.py", "/app", "5678"]
    assert services["api"]["ports"] == [{"host_ip": "127.0.0.1", "published": "5678", "target": 5678}]
    mounts = {mount["target"]: mount for mount in services["api"]["volumes"]}
    assert mounts["/app/api"] == {"type": "bind", "source": "../../api", "target": "/app/api", "read_only": True}
    assert all(mount["read_only"] for mount in mounts.values())
    # A program that runs once would never end under the reloader, and what needs it would never start.
    assert services["prepare"] == {"volumes": [mounts["/app/api"]]}
    for path in ("reloader.py", "python_command.py"):
        assert (tmp_path / "deploy/compose" / mounts[f"/dev-tools/{path}"]["source"]).is_file()


def test_without_the_option_nothing_is_written_for_development(tmp_path: Path) -> None:
    project(tmp_path, "shop")
    assert run(["compose", "-C", str(tmp_path)]) == 0
    assert not (tmp_path / "deploy/compose" / development.FILE).exists()
    assert not (tmp_path / "deploy/compose" / development.TOOLS).exists()


def test_the_reloader_keeps_the_options_of_the_interpreter(tmp_path: Path) -> None:
    """debugpy stands between them and the program, and takes no options of Python."""
    (tmp_path / "debugpy").mkdir()
    (tmp_path / "reloader.py").write_text(development.SOURCE.read_text())
    shutil.copy(development.COMMAND_LINES, tmp_path)
    code = "import reloader; print(reloader.debugged(['python', '-Wignore', '-um', 'app', '-v'], 5678)[1:])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    debugpy = str(tmp_path / "debugpy")
    assert done.stdout.strip() == str(["-Wignore", "-u", debugpy, "--listen", "0.0.0.0:5678", "-m", "app", "-v"])


@pytest.mark.slow
def test_the_reloader_starts_the_program_again_and_ends_it(tmp_path: Path) -> None:
    program = tmp_path.with_name("reloader.py")
    program.write_text(development.SOURCE.read_text())
    shutil.copy(development.COMMAND_LINES, program.parent)
    (tmp_path / "app.py").write_text("import time; print('one', flush=True); time.sleep(100)")
    command = [sys.executable, str(program), str(tmp_path), "0", sys.executable, str(tmp_path / "app.py")]
    log = (tmp_path / "log.pyc").open("w")
    running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        assert until(lambda: "one" in (tmp_path / "log.pyc").read_text(), 20)
        time.sleep(1)
        (tmp_path / "app.py").write_text("import time; print('two', flush=True); time.sleep(100)")
        assert until(lambda: "two" in (tmp_path / "log.pyc").read_text(), 20)
    finally:
        running.terminate()
        assert running.wait(20) == 0
        log.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_container_runs_changed_code_and_stops_at_a_breakpoint(docker: Docker, tmp_path: Path) -> None:
    docker.need("python:3.11-slim", "debian:bookworm-slim")
    project(tmp_path, docker.name)
    assert run(["build", "api", "--no-verify", "-C", str(tmp_path)]) == 0
    assert run(["compose", "--dev", "-C", str(tmp_path)]) == 0
    folder, port = tmp_path / "deploy/compose", free("127.0.0.1")
    override = folder / development.FILE
    override.write_text(override.read_text().replace('published: "5678"', f'published: "{port}"'))
    files = ("compose", "-f", "compose.yaml", "-f", development.FILE)

    def answer() -> str:
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8031/x', timeout=20).read())"
        return docker.attempt(*files, "exec", "-T", "api", "python", "-c", ask, folder=folder).stdout

    try:
        docker(*files, "up", "--detach", "--wait", "api", folder=folder)
        assert "one /x" in answer()
        editor = attached(port, "/app/api/main.py", BREAK_LINE)
        assert "/" in value_at_the_breakpoint(editor, "/app/api/main.py", "answer")  # the health check asks it
        (tmp_path / "api/main.py").write_text(PROGRAM.replace("one", "two"))
        assert until(lambda: "two /x" in answer(), 30)
    finally:
        docker(*files, "down", "--volumes", "--timeout", "1", folder=folder)
        for image in docker("image", "ls", "--quiet", f"{docker.name}/*").split():
            docker.attempt("rmi", "--force", image)
