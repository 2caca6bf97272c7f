"""`estiba up --debug` starts services under debugpy, to which a client of its protocol attaches."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from editor import attached, value_at_the_breakpoint

from estiba.core.errors import EstibaError, NotFound
from estiba.core.ports import free
from estiba.deploy.compose.development import FIRST_PORT
from estiba.local import debugger

PROGRAM = """\
import http.server
import sys


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        secret = len(self.path) * 6
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(secret).encode())


http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
"""
BREAK_LINE = PROGRAM.splitlines().index("        self.send_response(200)") + 1


def test_the_command_of_a_python_program_is_wrapped(tmp_path: Path) -> None:
    end = ["--listen", "127.0.0.1:5678"]
    wrapped = debugger.wrap("api", ["/usr/bin/python3", "-u", "-m", "app", "-v"], 5678)
    assert (wrapped[:2], wrapped[3:]) == (["/usr/bin/python3", "-u"], [*end, "-m", "app", "-v"])
    assert (Path(wrapped[2]) / "__main__.py").is_file()
    wrapped = debugger.wrap("api", ["/usr/bin/python3", "-X", "dev", "-um", "app"], 5678)
    assert (wrapped[1:4], wrapped[5:]) == (["-X", "dev", "-u"], [*end, "-m", "app"])
    (tmp_path / "python").touch()
    script = tmp_path / "uvicorn"
    script.write_text(f"#!{tmp_path}/python\nprint()\n")
    wrapped = debugger.wrap("api", [str(script), "app:app"], 5678)
    assert (wrapped[0], wrapped[2:]) == (f"{tmp_path}/python", [*end, str(script), "app:app"])


def test_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "python").touch()
    program = tmp_path / "nginx"
    program.write_bytes(b"\x7fELF python")
    with pytest.raises(EstibaError, match="nginx is not a Python program"):
        debugger.wrap("web", [str(program)], 5678)


def test_ports_are_allotted_and_unknown_names_refused() -> None:
    assert debugger.allot((), ["api"]) == {}
    with pytest.raises(NotFound, match="There is no application 'apj' to debug; did you mean 'api'"):
        debugger.allot(["apj"], ["api"])


@pytest.mark.slow
def test_an_editor_stops_at_a_breakpoint_and_reads_a_variable(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    port = free("127.0.0.1")
    (tmp_path / "estiba.toml").write_text(
        f'[services.api]\ncommand = "python app.py ${{host}} ${{port}}"\nport = {port}\n'
    )
    command = [sys.executable, "-m", "estiba", "up", "--debug", "api"]
    log = (tmp_path / "log").open("w")
    running = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while "listens on 127.0.0.1:5678" not in (tmp_path / "log").read_text():
            assert running.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.1)
        source = str(tmp_path / "app.py")
        editor = attached(FIRST_PORT, source, BREAK_LINE)
        ask = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/abcde').read())"
        asking = subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE)
        assert value_at_the_breakpoint(editor, source, "secret") == "36"
        assert b"36" in asking.communicate(timeout=20)[0]
    finally:
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0
        log.close()
