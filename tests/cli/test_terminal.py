"""Output for people has live lines and tables on a terminal, and plain text in a pipe."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from estiba.cli import terminal

pytestmark = pytest.mark.slow

TOML = '[models.line]\ntrain = "line:train"\n'

WORKS = """
import pandas as pd
from sklearn.linear_model import LinearRegression


def train():
    sample = pd.DataFrame({"x": [float(i) for i in range(20)]})
    return LinearRegression().fit(sample, sample["x"]), sample
"""


def shown(*arguments: object, module: str = "-mestiba", colours: bool = False, **environment: str) -> tuple[int, str]:
    """The exit code of a command line on a terminal 80 columns wide, and what it showed, without colours."""
    ours, theirs = pty.openpty()
    command = [sys.executable, *([module] if module else []), *(str(a) for a in arguments)]
    settings = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment}
    child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=settings, start_new_session=True)
    os.close(theirs)
    screen = b""
    with contextlib.suppress(OSError):  # Linux says EIO where others say end of file
        while part := os.read(ours, 65536):
            screen += part
    os.close(ours)
    text = screen.decode()
    return child.wait(60), text if colours else re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "estiba.toml").write_text(TOML)
    (tmp_path / "line.py").write_text(WORKS)
    return tmp_path


def test_a_training_has_a_live_line_and_a_table_at_the_end(project: Path) -> None:
    code, screen = shown("train", "-C", project)
    assert code == 0
    assert re.search(r"line +training +it is not trained yet +\d+ s", screen)
    assert re.search(r"✔ +line +done +line@1 +\d+ s", screen)
    assert re.search(r"model +version +engine +parity +metrics", screen)
    code, screen = shown("train", "-C", project)
    assert re.search(r"= +line +unchanged +line@1", screen)


def test_a_failure_ends_its_line_and_shows_the_output(project: Path) -> None:
    (project / "line.py").write_text("print('as far as here')\nraise ValueError('no luck')\n")
    code, screen = shown("train", "-C", project)
    assert code == 1
    assert re.search(r"✘ +line +failed", screen)
    assert "as far as here" in screen
    assert "error: Training line failed: ValueError: no luck" in screen
    assert "hint: All of its output is in" in screen


def test_a_file_is_scored_with_a_bar(registry: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age,balance\n" + "20,100\n70,100\n" * 500)
    code, screen = shown("predict", "churn", tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    assert code == 0
    assert "in.csv" in screen
    assert "1,000 rows answered by churn@1" in screen


def test_a_terminal_that_can_do_nothing_gets_plain_lines(project: Path) -> None:
    (project / "line.py").write_text("raise ValueError('no luck')\n")
    code, screen = shown("train", "-C", project, TERM="dumb")
    assert code == 1
    assert "line: training (it is not trained yet)" in screen


def test_numbers_of_a_table_end_at_the_same_place(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("what", "MB"), [("numpy", "44.8"), ("click", "1.0")], right=["MB"])
    assert capsys.readouterr().out == "what     MB\nnumpy  44.8\nclick   1.0\n"


BUILDS = """
from estiba.cli.progress import Steps
with Steps() as steps:
    steps.tell("web", "building", "slim with docker")
    steps.tell("web", "", "#7 [2/6] COPY requirements.txt /")
    steps.tell("web", "weighing", "")
"""


def test_what_a_builder_says_is_gone_once_it_is_done() -> None:
    _, screen = shown("-c", BUILDS, module="", colours=True)
    before, said, after = screen.partition("#7 [2/6] COPY requirements.txt /")
    assert "web: building (slim with docker)" in before
    assert said
    assert "\x1b[2K" in after.partition("web: weighing")[0]  # erases the line
    _, screen = shown("-c", BUILDS, module="", TERM="dumb")
    assert screen.split("\r\n") == ["web: building (slim with docker)", "web: weighing", ""]


def test_a_window_too_narrow_for_a_table_shows_blocks_in_which_nothing_is_broken(registry: Path) -> None:
    from estiba.model.registry.registry import open_registry

    version = open_registry(str(registry)).versions("churn")[0]
    created = version.created[:16].replace("T", " ")
    for width in ("60", "120"):
        code, screen = shown("models", "--registry", registry, COLUMNS=width)
        assert code == 0
        assert version.digest[:12] in screen
        assert created in screen
        assert max(map(len, screen.splitlines())) <= int(width)
    assert re.search(r"model +version +alias +created \(UTC\) +digest +metrics", screen)


def test_the_help_of_a_group_is_not_cut_in_a_narrow_window() -> None:
    code, screen = shown("models", "--help", COLUMNS="60")
    assert code == 0
    assert "..." not in screen.partition("Commands:")[2].partition("Examples:")[0]
    assert "a server can use as its registry." in " ".join(screen.split())


RECORDS = """
from estiba.cli import terminal
terminal.table(("model", "data"), [("data", "data"), ("model", "x" * 70)])
"""


def test_names_of_users_are_not_translated() -> None:
    code, screen = shown("-c", RECORDS, module="", COLUMNS="40", ESTIBA_LANG="es")
    assert code == 0
    assert screen.split("\r\n")[0] == "data"
    assert re.search(r"datos +data\r\n", screen)
